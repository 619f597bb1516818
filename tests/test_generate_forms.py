"""The forms of transformers' `generate` that a comparison runs, and which is taken for its best."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch

from loopserve_cli.bench.forms import FORMS, best_form, form_lines, generate_forms
from loopserve_cli.bench.generate import COMPILED, GENERATE, STATIC, Generate
from loopserve_cli.errors import ModelError
from loopserve_cli.measure.measured import Measured
from loopserve_cli.stats import TurnRecord


def timed(variant: str = "", ttft: float = 100.0, gap: float = 10.0) -> Measured:
    place = TurnRecord(conversation_id="prompt", profile=variant, repeat=1, turn=1)
    return Measured(replace(place, ttft_ms=ttft, itl_ms=[gap] * 5), (1,) * 6)


class OnGpu:
    """A model of which only the device is asked."""

    device = torch.device("cuda")
    config = tiny.model("llama", "sdpa").config


def compiling(monkeypatch: pytest.MonkeyPatch, error: str | None = None) -> None:
    def prepare(form: Generate) -> None:
        if error is not None:
            raise ModelError(error)
        form.compile_ms = 1500.0

    monkeypatch.setattr(Generate, "prepare", prepare)


def test_on_a_cpu_steps_are_compiled_only_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling(monkeypatch)
    model = tiny.model("llama", "sdpa")
    assert [form.name for form in generate_forms(model, 40, False, print)] == [GENERATE, STATIC]
    assert [form.name for form in generate_forms(model, 40, True, print)] == [GENERATE, STATIC, COMPILED]


def test_on_a_gpu_they_always_are_and_where_they_cannot_be_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling(monkeypatch)
    assert [form.name for form in generate_forms(OnGpu(), 40, False, print)] == [GENERATE, STATIC, COMPILED]
    compiling(monkeypatch, "there is no compiler")
    said: list[str] = []
    assert [form.name for form in generate_forms(OnGpu(), 40, False, said.append)] == [GENERATE, STATIC]
    assert "there is no compiler" in said[-1]
    with pytest.raises(ModelError, match="no compiler"):
        generate_forms(OnGpu(), 40, True, said.append)


def test_the_best_is_the_shortest_from_the_first_token_to_the_last() -> None:
    times = {GENERATE: (90.0, 12.0), STATIC: (100.0, 11.0), COMPILED: (101.0, 5.0), "full": (1.0, 1.0)}
    timings = [timed(name, ttft, tpot) for name, (ttft, tpot) in times.items()]
    form = Generate(tiny.model("llama", "sdpa"), 40, compiled=True)
    form.compile_ms = 7300.0
    found = best_form(timings, [object(), form])
    assert found == {
        "best": "static, compiled",
        "ms": {"dynamic": 150.0, "static": 155.0, "static, compiled": 126.0},
        "compile_ms": 7300.0,
    }
    assert form_lines(found) == [
        "generate: static, compiled is its best here; the prompt and its answer took dynamic 150 ms, static 155 ms, "
        "static, compiled 126 ms",
        "generate: compiling took 7.3 s, which is in no figure",
    ]
    assert best_form([timed("full")], []) is None and form_lines(None) == []


def test_generate_compiles_nothing_unless_that_is_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny.model("llama", "sdpa"), []

    def generate(**given: Any) -> None:
        asked.append(given)
        given["streamer"].put(given["input_ids"])
        given["streamer"].put(torch.tensor([5]))

    monkeypatch.setattr(model, "generate", generate)
    for form in (Generate(model), Generate(model, 40), Generate(model, 40, compiled=True)):
        form.turn([3, 4, 5], 2)
    assert [given.get("disable_compile") for given in asked] == [True, True, None]
    assert asked[2]["compile_config"]._compile_all_devices is True


def test_the_cache_of_compiled_steps_stays_and_is_emptied() -> None:
    model = tiny.model("llama", "sdpa")
    form, other = Generate(model, 40, compiled=True), Generate(model, 40)
    for one in (form, other):
        one.feed([3, 4, 5])
    held = form._cache
    assert held.get_seq_length() == 3
    form.reset()
    other.reset()
    assert form._cache is held and held.get_seq_length() == 0 and other._cache is None


def test_a_model_that_is_not_compiled_is_no_compiled_form(monkeypatch: pytest.MonkeyPatch) -> None:
    form = Generate(tiny.model("llama", "sdpa"), 40, compiled=True)
    monkeypatch.setattr(form, "turn", lambda ids, new_tokens: timed())
    with pytest.raises(ModelError, match="does not compile"):
        form.prepare()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on a CPU needs g++")
def test_compiled_steps_give_the_same_tokens_and_compile_once() -> None:
    from torch._dynamo.utils import counters

    model = tiny.model("llama", "sdpa")
    compiled = Generate(model, 60, compiled=True)
    compiled.prepare()
    graphs = counters["stats"]["unique_graphs"]
    assert compiled.compile_ms is not None and compiled.compile_ms > 100
    expected = Generate(model).turn([3, 4, 5, 6], 12).output_ids
    for _ in range(2):
        timing = compiled.turn([3, 4, 5, 6], 12)
        compiled.reset()
        assert timing.output_ids == expected
        assert max(timing.record.itl_ms) < compiled.compile_ms
    assert counters["stats"]["unique_graphs"] == graphs, "nothing is compiled in a timing"


def test_every_form_has_a_name_in_the_table() -> None:
    assert set(FORMS) == {GENERATE, STATIC, COMPILED}
