"""Attention reads what the model hands over: architectures that change keys after the cache, share them, or mask."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from models_table import BOTH, NOWHERE, answer, differing_turn, loaded

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import attention_check, known_checks
from loopserve_cli.engine.attention import ATTENTION_NAME, MASKED_NAME, register
from loopserve_cli.engine.attention_check import check_attention
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.handover import Handover, Witness
from loopserve_cli.engine.loader import cache_layers, check_architecture
from loopserve_cli.errors import ModelError
from loopserve_cli.profile import load_profile

EVERY = frozenset(range(4))
# By kind: the attention that it runs with, and how it is handed keys and values.
FOUND = {
    "llama": (ATTENTION_NAME, Handover()),
    "gpt_neox": (ATTENTION_NAME, Handover()),
    "gpt_oss": (ATTENTION_NAME, Handover()),
    "phimoe": (ATTENTION_NAME, Handover()),
    "deepseek_v2": (ATTENTION_NAME, Handover(EVERY, EVERY)),
    "deepseek_v3": (ATTENTION_NAME, Handover(EVERY, EVERY)),
    "minicpm3": (ATTENTION_NAME, Handover(EVERY, EVERY)),
    "diffllama": (ATTENTION_NAME, Handover(EVERY, EVERY)),
    "jetmoe": (ATTENTION_NAME, Handover(EVERY, EVERY)),
    "gemma3n_text": (ATTENTION_NAME, Handover(frozenset({2, 3}), frozenset({0, 1}), frozenset({0, 1}))),
    "gemma4_text": (ATTENTION_NAME, Handover(frozenset({2, 3}), frozenset({0, 1}), frozenset({0, 1}))),
    "doge": (MASKED_NAME, Handover(EVERY, EVERY)),
    "llama4_text": (MASKED_NAME, Handover(EVERY, EVERY)),
}


def reference(kind: str) -> Any:
    made = architectures.random_model(architectures.configuration(kind), "eager")
    made.generation_config.do_sample = False
    return made


@pytest.mark.parametrize("kind", FOUND)
@pytest.mark.parametrize("tier", ["device", "host"])
def test_turns_equal_generate(kind: str, tier: str) -> None:
    made = loaded(kind)
    assert (made.model.config._attn_implementation, made.handover) == FOUND[kind]
    engine = Engine(made, load_profile("full").with_overrides([f"retain.tier={tier}"]))
    assert differing_turn(engine, reference(kind)) is None


@pytest.mark.parametrize("kind", ["deepseek_v3", "gemma3n_text", "jetmoe"])
def test_the_default_handover_would_be_wrong(kind: str) -> None:
    """So the tests above would fail, were attention not handed what its model hands over."""
    engine = Engine(replace(loaded(kind), handover=Handover()), load_profile("full"))
    try:
        assert differing_turn(engine, reference(kind)) is not None
    except (AssertionError, RuntimeError, IndexError):
        return


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
@pytest.mark.parametrize("kind", ["deepseek_v3", "gemma3n_text", "doge", "phimoe"])
def test_other_profiles_run(kind: str, tier: str) -> None:
    profile = load_profile("loopserve").with_overrides([*BOTH, f"retain.tier={tier}"])
    engine = Engine(replace(loaded(kind), stop_ids=frozenset()), profile)
    for turn in (range(40, 130), range(200, 203)):
        assert len(answer(engine, list(turn))) == 40


def test_layers_that_lend_their_keys_are_still_compressed() -> None:
    """Gemma 4's layer 1 has no window: it reads chosen keys, while layer 3, which borrows them, reads all."""
    engine = Engine(loaded("gemma4_text"), load_profile("loopserve").with_overrides(BOTH))
    answer(engine, list(range(40, 130)))
    assert engine._state.decode.layers == [1]


REFUSED = {
    # Before 5.20 its code keeps what it is told from its attention, which is found first.
    "moshi": "(the sliding window of layer 0 stands in its cache alone|it keeps keyword arguments from its attention)",
    "mllama": "only 3 of its 4 layers keep keys and values",
}

BIDIRECTIONAL = {"use_bidirectional_attention": True}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_run_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ModelError, match=f"cannot run architecture '{kind}.*': {REFUSED[kind]}; use another model"):
        loaded(kind)


@pytest.mark.parametrize(("kind", "options"), [("doge", {"is_moe": True}), ("gemma3_text", BIDIRECTIONAL)])
def test_a_model_whose_tokens_depend_on_later_ones_is_refused(kind: str, options: dict[str, bool]) -> None:
    """Doge's mixture of experts routes a token by others, Gemma's embedding models attend to later ones."""
    with pytest.raises(ModelError, match="its logits depend on which tokens are read at once, by [0-9]+%; use"):
        loaded(kind, **options)


def test_what_cannot_run_quantised_may_run_otherwise() -> None:
    model, layers = tiny_llama()
    model.model.forward = lambda **_: 1 / 0
    with pytest.raises(
        ModelError, match="'llama' with --quant nf4: it fails .*; leave --quant out, or use another model"
    ):
        known_checks.checked(model, layers, "tiny", "nf4", NOWHERE)


@pytest.mark.parametrize(("context", "refused"), [(None, True), (100, True), (64, False)])
def test_what_chooses_tokens_beyond_a_length_runs_up_to_it(context: int | None, refused: bool) -> None:
    config = architectures.configuration("doge", keep_window_size=64)
    with (
        pytest.raises(ModelError, match="'doge' attends to 64 tokens .* give --context 64")
        if refused
        else nullcontext()
    ):
        check_architecture(config, ModelOptions("m", context=context))


def test_a_model_that_attends_otherwise_is_refused() -> None:
    """One that turns its queries around where ours cannot see it."""
    model, layers = tiny_llama()
    attention = model.model.layers[1].self_attn
    forward = attention.forward

    def turned(hidden_states: torch.Tensor, **named: Any) -> Any:
        own = model.config._attn_implementation == "eager"
        return forward(hidden_states.flip(-1) if own else hidden_states, **named)

    attention.forward = turned
    with pytest.raises(ModelError, match="its logits differ from those of transformers' own attention by"):
        check_attention(model, layers)


def test_a_model_that_tells_its_attention_more_is_refused() -> None:
    model, layers = tiny_llama()
    attention = model.model.layers[0].self_attn
    forward = attention.forward
    attention.forward = lambda *given, **named: forward(*given, indices=torch.zeros(1), **named)
    with pytest.raises(ModelError, match="its attention is also told indices, which loopserve does not heed"):
        check_attention(model, layers)


@pytest.mark.parametrize("kind", ["mixtral", "olmoe", "phimoe"])
def test_experts_that_flip_in_half_precision_refuse_no_model(kind: str) -> None:
    """A rounding may choose another expert, and then logits are far off: for some of these models it does."""
    config = architectures.configuration(kind)
    for seed in range(6):
        model = architectures.random_model(config, ATTENTION_NAME, seed).to(torch.bfloat16)
        assert check_attention(model, cache_layers(config)).implementation == ATTENTION_NAME


@pytest.mark.parametrize("kind", ["deepseek_v3", "diffllama", "gemma3n_text"])
def test_in_half_precision_a_wrong_handover_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = architectures.configuration(kind)
    model = architectures.random_model(config, ATTENTION_NAME).to(torch.bfloat16)
    monkeypatch.setattr(Witness, "handover", lambda _: Handover())
    for draw in range(attention_check.DRAWS):
        pieces = attention_check.looked_at(model, draw)
        expected = attention_check._own_logits(model, pieces)
        found = attention_check._found(model, cache_layers(config), pieces, expected, ATTENTION_NAME)
        assert isinstance(found, str), "so it is not run like this"


def tiny_llama() -> tuple[Any, int]:
    register()
    config = architectures.configuration("llama")
    return architectures.random_model(config, ATTENTION_NAME), cache_layers(config)


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "checks.json"
    model, layers = tiny_llama()
    assert known_checks.checked(model, layers, "tiny", None, file) == Handover()
    (row,) = json.loads(file.read_text()).values()
    assert row == {"implementation": ATTENTION_NAME, "foreign": [], "whole": [], "shared": []}

    monkeypatch.setattr(known_checks, "check_attention", lambda *_: pytest.fail("looked again"))
    assert known_checks.checked(model, layers, "tiny", None, file) == Handover()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"KEY": 3}', '{"KEY": {"implementation": "x"}}', "\udcff"])
def test_a_damaged_memory_is_written_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "checks.json"
    model, layers = tiny_llama()
    text = content.replace("KEY", known_checks.fingerprint(model, None))
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert known_checks.checked(model, layers, "tiny", None, file) == Handover()
    assert known_checks.fingerprint(model, None) in json.loads(file.read_text())


def test_a_memory_that_cannot_be_written_costs_nothing() -> None:
    model, layers = tiny_llama()
    assert known_checks.checked(model, layers, "tiny", None, NOWHERE) == Handover()


def test_other_models_are_not_taken_for_known_ones() -> None:
    model, _ = tiny_llama()
    wider = architectures.random_model(architectures.configuration("llama", intermediate_size=192), ATTENTION_NAME)
    known = known_checks.fingerprint(model, None)
    assert known != known_checks.fingerprint(wider, None)
    assert known != known_checks.fingerprint(model, "nf4")
    assert known != known_checks.fingerprint(model.to(torch.bfloat16), None)


def test_other_code_of_a_model_is_not_taken_for_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny_llama()
    known = known_checks.fingerprint(model, None)
    (tmp_path / "modeling.py").write_text("changed = True\n")
    monkeypatch.setattr("inspect.getfile", lambda _: str(tmp_path / "modeling.py"))
    assert known != known_checks.fingerprint(model, None)


@pytest.mark.parametrize("kind", ["deepseek_v3", "gemma4_text", "doge"])
def test_what_they_hold_is_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    made = loaded(kind)
    engine = Engine(made, load_profile("full"))
    answer(engine, list(range(40, 70)))
    engine.save(tmp_path / "talk.kv.safetensors")
    other = Engine(made, load_profile("full"))
    other.restore(other.saved(tmp_path / "talk.kv.safetensors"))
    assert other.tokens == engine.tokens
    assert answer(other, [50, 60, 70]) == answer(engine, [50, 60, 70])
