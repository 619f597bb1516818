"""The fused pass: what a step launches, and that it says what the model's own code says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import pytest
import tiny
import torch
from models_table import NOWHERE, generated
from models_table import loaded as loaded_kind
from recorded_step import RecordedCapture
from step_counted import counted_prompt, counted_step
from test_engine import run, some_ids
from test_stepper import gpu_like  # noqa: F401

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import fused_check, known_checks
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.fused import FusedModel
from loopserve_cli.engine.fused_check import says_the_same
from loopserve_cli.engine.fused_parts import KINDS, find_parts
from loopserve_cli.engine.known_checks import checked_fused
from loopserve_cli.engine.loader import LoadedModel, load
from loopserve_cli.engine.stepper import Stepper
from loopserve_cli.profile import load_profile

MOST_LAUNCHES = 15
WHOLE = {"sliding_window": None}
SMALL = {
    "snapkv": ["keep.budget=24"],
    "loopserve": ["keep.budget=24", "keep.interval=5", "keep.recent=4", "prefill.min_new=8", "prefill.min_keys=8"],
}


def with_fused(made: LoadedModel, join: bool) -> LoadedModel:
    """The model with its fused pass, which on a CPU runs the kernels' twins."""
    parts = find_parts(made.model, join)
    assert parts is not None and says_the_same(made.model, FusedModel(parts), made.layers)
    return replace(made, fused=FusedModel(parts))


@pytest.mark.parametrize("profile", ["full", "loopserve"])
@pytest.mark.parametrize(("kernels", "launches"), [("fused", 10), ("eager", 40)])
def test_a_step_of_an_8b_model_launches_so_much_per_layer_and_waits_for_nothing(
    kernels: str, launches: int, profile: str
) -> None:
    count = counted_step(kernels, profile)
    assert count.per_layer == launches and count.waits == 0
    assert count.of_a_layer["step_write_kernel"] == 1
    assert count.of_a_layer["decode_attention_kernel"] == count.of_a_layer["merge_splits_kernel"] == 1
    assert count.beside <= 27
    if kernels == "fused":
        assert count.per_layer <= MOST_LAUNCHES


def test_a_prompt_launches_less_too() -> None:
    assert counted_prompt("fused") <= counted_prompt("eager") - 25


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_dialogues_equal_generate(kind: str, join: bool) -> None:
    """Token for token over turns and a rewind, as every architecture does under its own code."""
    made = with_fused(loaded_kind(kind, **(WHOLE if kind == "mistral" else {})), join)
    reference = architectures.random_model(
        architectures.configuration(kind, **(WHOLE if kind == "mistral" else {})), "eager"
    )
    reference.generation_config.do_sample = False
    engine, held = Engine(made, load_profile("full")), list[int]()
    for turn, new in enumerate((30, 1, 17)):
        if turn == 2:
            del held[len(held) * 2 // 3 :]
            engine.rewind(min(len(held), len(engine.tokens)))
        asked = some_ids(new, seed=turn)
        ours, record = run(engine, held[len(engine.tokens) :] + asked, max_new_tokens=40)
        held += asked
        assert ours == generated(reference, held)
        assert record.step_kernels == "fused"
        held += ours


@pytest.mark.usefixtures("gpu_like")
@pytest.mark.parametrize("tier", ["device", "host", "evict"])
@pytest.mark.parametrize("profile", SMALL)
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_every_tier_decodes_as_the_models_own_code_does(kind: str, profile: str, tier: str) -> None:
    chosen = load_profile(profile).with_overrides([*SMALL[profile], f"retain.tier={tier}"])
    made = tiny.loaded(kind)
    engines = [Engine(one, chosen) for one in (made, with_fused(made, join=False), with_fused(made, join=False))]
    replayed = engines[2]
    replayed._stepper = Stepper(replayed._runtime.runs, replayed._store, torch.device("cpu"), RecordedCapture)
    for turn in range(3):
        answers = [run(engine, some_ids(40 + turn, seed=turn), max_new_tokens=25) for engine in engines]
        assert answers[0][0] == answers[1][0] == answers[2][0]
        assert [record.step_kernels for _, record in answers] == ["eager", "fused", "fused"]
        assert answers[0][1].keys_read == answers[1][1].keys_read == answers[2][1].keys_read


@pytest.mark.parametrize("kind", ["llama", "qwen3", "phi3"])
def test_bfloat16_is_close(kind: str) -> None:
    made = tiny.loaded(kind)
    made.model.to(torch.bfloat16)
    parts = find_parts(made.model, join=True)
    assert parts is not None
    pieces = fused_check.looked_at(made.model)
    with torch.inference_mode():
        own, ours = (
            fused_check.our_logits(one, made.layers, pieces, made.handover) for one in (made.model, FusedModel(parts))
        )
    assert fused_check.off_by(ours, own) < 2e-2


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "mistral"])
def test_what_has_other_parts_or_windows_is_left_as_it_is(kind: str) -> None:
    made = tiny.loaded(kind)
    assert checked_fused(made.model, made.layers, made.handover, None, NOWHERE) is None
    assert run(Engine(made, load_profile("full")), some_ids(20), max_new_tokens=4)[1].step_kernels == "eager"


def test_a_pass_that_says_something_else_is_not_used() -> None:
    made = tiny.loaded("llama")
    made.model.get_decoder().layers[1].input_layernorm.register_forward_hook(lambda _module, _inputs, out: out * 1.5)
    assert checked_fused(made.model, made.layers, made.handover, None, NOWHERE) is None


def test_what_was_found_is_known_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, file = tiny.loaded("llama"), tmp_path / "checks.json"
    assert isinstance(checked_fused(made.model, made.layers, made.handover, None, file), FusedModel)
    monkeypatch.setattr(known_checks, "says_the_same", lambda *_: pytest.fail("it was looked at again"))
    assert isinstance(checked_fused(made.model, made.layers, made.handover, None, file), FusedModel)


def test_joined_weights_are_the_modules_own() -> None:
    made = tiny.loaded("qwen2")
    attention = made.model.get_decoder().layers[0].self_attn
    before = {name: part.clone() for name, part in attention.state_dict().items()}
    parts = find_parts(made.model, join=True)
    assert parts is not None and len(parts.layers[0].heads.modules) == 1
    whole: Any = parts.layers[0].heads.modules[0]
    for name, part in attention.state_dict().items():
        assert torch.equal(part, before[name])
    assert attention.k_proj.weight.data_ptr() == whole.weight[64:].data_ptr()
    assert attention.v_proj.bias.data_ptr() == whole.bias[96:].data_ptr()
    assert sum(part.untyped_storage().nbytes() for part in (whole.weight, whole.bias)) == (64 + 32 + 32) * 65 * 4


def test_the_demo_model_is_loaded_with_its_fused_pass() -> None:
    loaded = load(ModelOptions("demo"))
    assert isinstance(loaded.fused, FusedModel) and loaded.runs is loaded.fused
    profile = load_profile("loopserve").with_overrides(["keep.budget=24", "keep.interval=5", "keep.recent=4"])
    fused, eager = (Engine(one, profile) for one in (loaded, replace(loaded, fused=None)))
    ids = loaded.tokenizer("The room of Miro is 417. What is the room of Miro?", add_special_tokens=False).input_ids
    answers = [run(engine, ids, max_new_tokens=30) for engine in (fused, eager)]
    assert answers[0][0] == answers[1][0]
    assert [record.step_kernels for _, record in answers] == ["fused", "eager"]
