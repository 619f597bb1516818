"""How many launches choosing, a decode step and a re-selection may take on a GPU, and what they take.

Counted on tensors of the meta device, so any machine can count: the layers of Llama-3.1-8B in bfloat16, 8,192 new rows
over 32,768 keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopserve_cli.bench.device.counting import Counted, counted
from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.store import Store
from loopserve_cli.policies.keep import KeepPolicy, keep_policy
from loopserve_cli.policies.prefill import PrefillTurn, prefill_policy
from loopserve_cli.profile import load_profile
from loopserve_cli.shapes import Shape, random_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL = "random:Llama-3.1-8B"
ROWS, KEYS = 8192, 32768
META = torch.device("meta")
# Attention itself is no part of choosing: its kernels, and torch's own where a head or a layer is dense.
ATTENTION = ("vertical_slash", "scaled_dot_product", "flash", "merge_splits")
# What a step reads has settled by then: every interval of the shipped profiles is shorter.
STEPS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """Launches and waits of one thing, and the most frequent launches by name."""

    launches: float
    waits: float
    names: Counter[str]


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many launches and waits `per`; `count` counts them now."""

    name: str
    what: str
    per: str
    launches: int
    waits: int
    count: Callable[[], Found]


def choosing(changes: tuple[str, ...] = ()) -> Found:
    """Choosing lines and making the index, of a chunk of all layers, per layer."""
    profile = load_profile("loopserve-prefill").with_overrides(f"prefill.{change}" for change in changes)
    turn = PrefillTurn(prefill_policy(profile.prefill))
    layers = _shape().layers
    query, key, _ = _tensors(ROWS, KEYS)
    with counted() as found:
        for layer in range(layers):
            turn.attend(layer, query, key, key, query.shape[-1] ** -0.5)
    names = Counter({n: c for n, c in (found.torch + found.triton).items() if not any(a in n for a in ATTENTION)})
    return Found(names.total() / layers, found.waits.total() / layers, names)


def decode_step(profile: str) -> Found:
    """A settled decode step, per layer: what a model of three layers needs beyond one of two."""
    two, three = (step_of(profile, layers) for layers in (2, 3))
    names = (three.torch - two.torch) + (three.triton - two.triton)
    return Found(three.launches - two.launches, three.waits.total(), names)


def reselection(profile: str) -> Found:
    """Choosing keys again, of all layers, beyond what a step without a choice does on the host's side."""
    layers = _shape().layers
    decode = decoding(keep_policy(load_profile(profile).keep), layers)
    interval = decode.policy.interval
    assert interval is not None, f"{profile} chooses once only"
    for _ in range(2 * interval):  # the first choice may read everything, and makes the working sets
        ordinary = _between_passes(decode)
    choice = _between_passes(decode)
    names = (choice.torch - ordinary.torch) + (choice.triton - ordinary.triton)
    return Found(choice.launches - ordinary.launches, choice.waits.total() - ordinary.waits.total(), names)


BUDGETS = (
    Budget("choosing", "choosing lines and the index", "layer and chunk", 40, 0, choosing),
    *(
        Budget(f"choosing, {change}", f"the same with {change}", "layer and chunk", 40, 0, partial(choosing, (change,)))
        for change in ("share=group", "objective=lines", "objective=optimal")
    ),
    Budget("step, full", "a decode step that reads everything", "layer", 15, 0, partial(decode_step, "full")),
    Budget("step, loopserve", "one that reads chosen keys", "layer", 15, 0, partial(decode_step, "loopserve")),
    Budget("step, quest", "one that first chooses the keys it reads", "layer", 45, 0, partial(decode_step, "quest")),
    Budget("re-selection", "choosing keys again", "choice of 32 layers", 200, 0, partial(reselection, "loopserve")),
)


def markdown(counts: Iterable[tuple[Budget, Found]]) -> str:
    """The budgets and what was counted, as a table for a document."""
    rows = ["| | per | launches | at most | waits | at most |", "|---|---|---|---|---|---|"]
    for budget, found in counts:
        figures = f"{found.launches:.4g} | {budget.launches} | {found.waits:.4g} | {budget.waits}"
        rows.append(f"| {budget.what} | {budget.per} | {figures} |")
    return "\n".join(rows)


def decoding(policy: KeepPolicy, layers: int) -> DecodeTurn:
    """A turn's decoding over a store that holds KEYS tokens in every layer, its prefill observed."""
    store = Store(layers)
    store.reserve(KEYS + 2 * STEPS)
    decode = DecodeTurn(policy, store)
    query, key, value = _tensors(max(policy.window, 1), KEYS)
    for layer in range(layers):
        store.layers[layer].update(key, value)
        decode.observe(layer, query, key, query.shape[-1] ** -0.5)
    return decode


@torch.inference_mode()
def step_of(profile: str, layers: int) -> Counted:
    """One settled step of a model of so many layers, in the fused pass that a GPU runs."""
    from loopserve_cli.engine.fused import FusedModel
    from loopserve_cli.engine.fused_parts import find_parts
    from loopserve_cli.engine.sampling import Sampler
    from loopserve_cli.engine.stepper import Stepper

    decode = decoding(keep_policy(load_profile(profile).keep), layers)
    parts = find_parts(model_of(layers), join=True)
    assert parts is not None, f"{MODEL} has no fused pass"
    stepper, sampler = Stepper(FusedModel(parts), decode.store, META, None), Sampler(SamplingOptions(), META, [])
    token = torch.zeros(1, 1, dtype=torch.int64, device=META)
    for place in range(STEPS):
        with counted() as found:  # all of them: nothing runs here
            token = stepper.launch(token, KEYS + place, decode, sampler)
            stepper.count()
    return found


def model_of(layers: int) -> PreTrainedModel:
    """The model's first layers, without storage."""
    from transformers import AutoConfig

    from loopserve_cli.engine import attention
    from loopserve_cli.engine.random_model import random_config, random_model

    attention.register()
    config = random_config(replace(_shape(), layers=layers), AutoConfig.for_model("llama"))
    return random_model(config, torch.bfloat16, META, attention.ATTENTION_NAME).eval()


def _between_passes(decode: DecodeTurn) -> Counted:
    """What a step does before its pass: choosing, where that is due, and where its token goes."""
    with counted() as found:
        decode.begin_step()
    decode.end_step()
    return found


def _tensors(rows: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [1, H, rows, D], keys and values [1, G, keys, D] of one layer, without storage."""
    shape = _shape()
    query, key, value = (
        torch.empty(1, heads, count, shape.head_size, dtype=torch.bfloat16, device=META)
        for heads, count in ((shape.heads, rows), (shape.kv_heads, keys), (shape.kv_heads, keys))
    )
    return query, key, value


def _shape() -> Shape:
    shape = random_shape(MODEL)
    assert shape is not None
    return shape
