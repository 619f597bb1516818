"""One decode step of an 8B-shaped model on tensors of the meta device: what a GPU would be asked to do in it.

`counted_step("fused", "loopserve")` is a settled step under a profile: after a choice where the profile makes one, in
the middle of an interval, with nothing left to allocate. A second layer is counted beside the first, and the difference
is what a layer costs; the rest is what a step costs whatever the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from launches import Counted, counted

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.attention import ATTENTION_NAME, register
from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.fused import FusedModel
from loopserve_cli.engine.fused_parts import find_parts
from loopserve_cli.engine.model_call import next_logits, positions
from loopserve_cli.engine.sampling import Sampler
from loopserve_cli.engine.stepper import Stepper
from loopserve_cli.engine.tiers import empty_store
from loopserve_cli.policies.keep import keep_policy
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.policies.prefill.dense import Dense
from loopserve_cli.profile import load_profile

PROMPT = 4096
META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class StepCount:
    """Launches of one layer and of the step without its layers, and all waits."""

    per_layer: int
    beside: int
    waits: int
    of_a_layer: dict[str, int]


def shape_of_8b(layers: int) -> Any:
    """A Llama with the sizes of an 8B model: random and without memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    config = AutoConfig.for_model(
        "llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128, max_position_embeddings=131072,
    )  # fmt: skip
    with META:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=ATTENTION_NAME).eval()


def counted_step(kernels: str, profile: str, tier: str = "device") -> StepCount:
    """What a step costs by "eager" or "fused" kernels under a profile."""
    one, two = (_passes(layers, kernels, profile, tier)[1] for layers in (1, 2))
    per_layer = two.launches - one.launches
    names = (two.torch + two.triton) - (one.torch + one.triton)
    return StepCount(per_layer, one.launches - per_layer, two.waits.total(), dict(names))


def counted_prompt(kernels: str) -> int:
    """Launches per layer of a prompt that is read densely."""
    one, two = (_passes(layers, kernels, "full", "device")[0] for layers in (1, 2))
    return two.launches - one.launches


@torch.inference_mode()
def _passes(layers: int, kernels: str, profile: str, tier: str) -> tuple[Counted, Counted]:
    """A prompt, and a settled step after it."""
    model = shape_of_8b(layers)
    if kernels == "fused":
        parts = find_parts(model, join=True)
        assert parts is not None
        model = FusedModel(parts)
    store = empty_store(tier, layers)
    store.reserve(PROMPT + 1024)
    decode = DecodeTurn(keep_policy(load_profile(profile).keep), store)
    ids = torch.zeros(1, PROMPT, dtype=torch.int64, device=META)
    sampler = Sampler(SamplingOptions(), META, [])
    stepper = Stepper(model, store, META, None)
    token = torch.zeros(1, 1, dtype=torch.int64, device=META)
    with counted() as prompt:
        next_logits(model, ids, positions(0, PROMPT, META), store, prefill=PrefillTurn(Dense()), decode=decode)
    with counted():  # so that nothing is run
        for place in range(PROMPT, PROMPT + 18):  # past the first choice
            token = stepper.launch(token, place, decode, sampler)
            stepper.count()
    assert not decode.watches or any(state.chosen for state in decode._layers.values())
    with counted() as step:
        stepper.launch(token, PROMPT + 18, decode, sampler)
    return prompt, step
