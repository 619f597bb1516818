"""One output token: the wall clock's time between two, and what the GPU was busy for it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from loopserve_cli.bench.decode.rounds import answer
from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.kernels.clock import kernels_of
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import LoadedModel, load
from loopserve_cli.profile import load_profile

if TYPE_CHECKING:
    from loopserve_cli.stats import TurnRecord

MODELS = {"gpu": "random:Llama-3.1-8B", "cpu": "demo", "quick": "demo"}
KEYS = {"gpu": (8192, 32768), "cpu": (4096,), "quick": (512,)}
PROFILES = ("full", "loopserve")
QUESTION = 16
# Whole intervals of the profiles that choose again every 16 tokens; the GPU's share is from the difference.
SHORT, LONG = {"gpu": 49, "cpu": 33, "quick": 17}, {"gpu": 113, "cpu": 65, "quick": 25}
ROUNDS = {"gpu": 3, "cpu": 3, "quick": 1}


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record per length and profile."""
    loaded = loaded_for(device, scale)
    ids = prompt_ids(loaded.tokenizer, max(KEYS[scale]))
    for name in PROFILES:
        engine = Engine(loaded, load_profile(name))
        for keys in KEYS[scale]:
            facts = {"model": loaded.name, "dtype": engine.dtype, "profile": name, "keys": keys}
            yield attempt(facts, partial(token, engine, ids[:keys], scale, device))
        engine.reset()


def token(engine: Engine, ids: list[int], scale: str, device: torch.device) -> Record:
    """Milliseconds per token: `tpot_ms` by the wall, `device_ms` of kernels, `busy` the share; warmed up before."""
    asked, short, long = len(ids) - QUESTION, SHORT[scale], LONG[scale]
    engine.feed(ids[len(engine.tokens) : asked])

    def answered(tokens: int) -> TurnRecord:
        record = answer(engine, ids[asked:], tokens)
        engine.rewind(asked)
        return record

    answered(long)
    records = [answered(long) for _ in range(ROUNDS[scale])]
    times = [record.tpot_ms for record in records if record.tpot_ms is not None]
    tpot = statistics.median(times)
    few, many = (kernels_of(partial(answered, tokens), device) for tokens in (short, long))
    steps = long - short

    def per_token(name: str) -> float | None:
        return None if many[name] is None or few[name] is None else (many[name] - few[name]) / steps

    busy = per_token("device_ms")
    return {
        "tpot_ms": tpot,
        "device_ms": busy,
        "busy": None if busy is None else busy / tpot,
        "kernels": per_token("kernels"),
        "graph_replays": records[-1].graph_replays,
        "graph_refusal": records[-1].graph_refusal,
        "compile_ms": records[-1].compile_ms,
        "step_kernels": records[-1].step_kernels,
        "by_name": many["by_name"],
    }


def loaded_for(device: torch.device, scale: str) -> LoadedModel:
    """The model of this scale, without stop ids: an answer has exactly the length asked for."""
    loaded = load(ModelOptions(MODELS[scale], device=str(device)))
    return replace(loaded, stop_ids=frozenset())
