"""Memory and time by tier and phase: what reading a long dialogue and answering take at their peaks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from loopserve_cli.bench.decode.rounds import answer
from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.device.stage_token import QUESTION, loaded_for
from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.store import empty_cache
from loopserve_cli.memory_meter import Meter
from loopserve_cli.profile import load_profile

KEYS = {"gpu": (32768, 131072), "cpu": (8192,), "quick": (512,)}
TIERS = ("full", "loopserve", "loopserve+retain.tier=host")
NEW_TOKENS = {"gpu": 65, "cpu": 33, "quick": 18}


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record per length and tier, each with an engine of its own."""
    loaded = loaded_for(device, scale)
    ids = prompt_ids(loaded.tokenizer, max(KEYS[scale]))
    for keys in KEYS[scale]:
        for profile in TIERS:
            facts = {"model": loaded.name, "profile": profile, "keys": keys}
            # The answer's own tokens fit as well.
            prompt = ids[: keys - NEW_TOKENS[scale]]
            yield attempt(facts, partial(phases, loaded, profile, prompt, NEW_TOKENS[scale], device))
            empty_cache(device)


def phases(loaded: LoadedModel, profile: str, ids: list[int], new_tokens: int, device: torch.device) -> Record:
    """Reading all but the question, then answering: milliseconds and bytes; those of a device are None on a CPU."""
    engine, clock = Engine(loaded, load_profile(profile)), Clock(device)
    meter = Meter([device] if device.type == "cuda" else [])
    meter.reset_peak()
    prefill_ms = clock.first_ms(lambda: engine.feed(ids[:-QUESTION]))
    read = meter.read()
    record = answer(engine, ids[-QUESTION:], new_tokens)
    return {
        "prefill_ms": prefill_ms,
        "prefill_peak_bytes": read.peak_device_bytes,
        "prefill_allocated_bytes": read.allocated_device_bytes,
        "prefill_reserved_bytes": read.reserved_device_bytes,
        "prefill_rss_bytes": read.rss_bytes,
        "answer_tpot_ms": record.tpot_ms,
        "answer_peak_bytes": record.peak_device_bytes,
        "answer_reserved_bytes": record.reserved_device_bytes,
        "answer_rss_bytes": record.rss_bytes,
        "reselect_ms": record.reselect_ms,
        "kv_device_bytes": None if device.type == "cpu" else record.kv_store_device_bytes,
        "kv_host_bytes": record.kv_store_host_bytes,
        "working_set_bytes": record.working_set_bytes,
    }
