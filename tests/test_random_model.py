"""Models of a known shape with random weights: the same each time, whole models otherwise, and nothing downloaded."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
import torch
from random_shapes import LLAMA, QWEN, know_tiny_shapes

from loopserve_cli import app
from loopserve_cli.bench import TurnsOptions, run_turns
from loopserve_cli.bench.generate import load_rival
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.engine import loader, placement
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.errors import ModelError, UsageError
from loopserve_cli.profile import load_profile
from loopserve_cli.shapes import BF16_BYTES, SHAPES, Shape, random_shape

NAMES = [LLAMA.model, QWEN.model]


@pytest.fixture(autouse=True)
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny_shapes(monkeypatch)


def options(name: str, **more: str) -> ModelOptions:
    return ModelOptions(f"random:{name}", device="cpu", **more)


@pytest.mark.parametrize("name", NAMES)
def test_two_builds_have_the_same_weights_and_logits_and_torchs_own_draws_go_on(name: str) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = loader.load(options(name)).model
    assert torch.equal(torch.rand(3), expected)
    second = loader.load(options(name)).model
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert first.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        logits = [model(input_ids=ids, attention_mask=None, use_cache=False).logits for model in (first, second)]
    assert torch.equal(*logits) and logits[0].shape == (1, 40, first.config.vocab_size)


@pytest.mark.parametrize("shape", [LLAMA, QWEN], ids=NAMES)
def test_the_model_has_the_shape_and_the_demo_models_language(shape: Shape) -> None:
    steps: list[str] = []
    loaded = loader.load(options(shape.model, dtype="bfloat16"), steps.append)
    config = loaded.model.config
    assert (config.model_type, loaded.layers, loaded.context_limit) == (shape.kind, shape.layers, shape.context)
    attention = loaded.model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == (shape.heads * shape.head_size, shape.width)
    assert attention.v_proj.weight.shape == (shape.kv_heads * shape.head_size, shape.width)
    assert loaded.model.model.embed_tokens.weight.shape == (shape.vocabulary, shape.width)
    assert (loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight) is shape.tied
    assert config.rope_parameters["rope_theta"] == shape.rope_base
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    demo = loader.load(ModelOptions("demo", device="cpu"))
    assert loaded.stop_ids == demo.stop_ids
    assert loaded.tokenizer.chat_template == demo.tokenizer.chat_template
    assert loaded.tokenizer.get_vocab() == demo.tokenizer.get_vocab()
    assert loaded.name == f"random:{shape.model}" and "its answers mean nothing" in steps[-1]


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.model for shape in SHAPES])
def test_a_real_shape_weighs_what_its_arithmetic_says(shape: Shape) -> None:
    asked = options(shape.model)
    config = loader.read_config(loader.resolve(asked.model), asked)
    loader.check_architecture(config, asked)
    # Norms and biases, which the arithmetic leaves out, are under a hundredth of a percent.
    counted = placement.weight_bytes(config, torch.bfloat16, asked)
    assert counted == pytest.approx(shape.weight_bytes(BF16_BYTES), rel=1e-4)
    assert placement.pick_dtype("auto", torch.device("cuda"), config) == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_are_what_generate_gives(name: str) -> None:
    loaded = replace(loader.load(options(name)), stop_ids=frozenset())
    reference = load_rival(options(name), loaded)
    assert reference.config._attn_implementation == "sdpa" and loaded.model.config._attn_implementation == "loopserve"
    engine, rng, held = Engine(loaded, load_profile("full")), Random(name), []
    for _ in range(3):
        held += [rng.randrange(3, 1024) for _ in range(30)]
        sampling = SamplingOptions(max_new_tokens=12)
        ours = [e.id for e in engine.turn(held[len(engine.tokens) :], sampling) if isinstance(e, Token)]
        with torch.inference_mode():
            theirs = reference.generate(torch.tensor([held]), do_sample=False, max_new_tokens=12)[0, len(held) :]
        assert ours == theirs.tolist()
        held += ours


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "llama-3.1-8b", "LLAMA-3.1-8B"])
def test_a_shape_is_found_in_any_case(name: str) -> None:
    shape = random_shape(f"random:{name}")
    assert shape is not None and shape.model == "Llama-3.1-8B"


@pytest.mark.parametrize("name", ["demo", "./random:x", "org/Llama-3.1-8B", "random"])
def test_other_models_have_no_shape(name: str) -> None:
    assert random_shape(name) is None


def test_an_unknown_shape_is_told_with_all_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["chat", "--model", "random:Llama-9", "hello"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "no shape 'Llama-9'" in lines[0]
    assert all(shape.model in lines[0] for shape in SHAPES)


def test_quantised_random_weights_are_refused_and_not_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    with pytest.raises(UsageError, match=r"--quant nf4 needs weights to quantise, but random:tiny-llama has random"):
        options("tiny-llama", quant="nf4")

    class Little:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    with pytest.raises(ModelError, match=r"random:tiny-llama needs .* cpu has 0\.0 GiB free; use a smaller model$"):
        loader.load(options("tiny-llama"))


@pytest.mark.parametrize(
    ("dtype", "share", "advice"),
    [
        ("float32", 0.6, r"use --dtype bfloat16 \(0\.0 GiB\) or a smaller model$"),
        ("auto", 0.6, r"use --dtype bfloat16 \(0\.0 GiB\) or a smaller model$"),
        ("float32", 0.4, "free; use a smaller model$"),  # in 16 bits it would not fit either
        ("bfloat16", 0.3, "free; use a smaller model$"),
    ],
)
def test_sixteen_bits_are_advised_where_they_would_fit(
    dtype: str, share: float, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Some:
        available = int(2 * LLAMA.weight_bytes(BF16_BYTES) * share / placement.SPARE)

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Some)
    monkeypatch.setattr(loader, "cpu_dtype", lambda config, progress: torch.float32)
    with pytest.raises(ModelError, match=advice):
        loader.load(options("tiny-llama", dtype=dtype))


def test_a_turns_benchmark_runs_on_it_and_transformers_has_the_same_weights(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = TurnsOptions(options("tiny-llama"), tokens=60, new_tokens=5, rounds=1, turns=2, json=True)
    assert run_turns(asked) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["summary"]["first_difference"] is None
    assert {record["variant"] for record in whole["records"]} >= {"loopserve", "transformers"}
    assert {len(record["output_ids"]) for record in whole["records"]} == {5}


@pytest.mark.parametrize("command", [["chat"], ["replay"], ["bench", "turns"]])
def test_the_help_says_what_its_answers_are_worth(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([*command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "random:Llama-3.1-8B" in said and "its answers mean nothing" in said
