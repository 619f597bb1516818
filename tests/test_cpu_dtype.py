"""The dtype that a CPU computes in, when nobody asked for one, is what was measured to be faster there."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import cpu_dtype, loader
from loopserve_cli.engine.cpu_dtype import DtypeTimes
from loopserve_cli.engine.engine import Engine
from loopserve_cli.profile import load_profile

NATIVE = DtypeTimes(prompt=(2.0, 1.0), token=(0.1, 0.12))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny.model("llama", "sdpa").save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A CPU on which bfloat16 is twice as fast, asked even for a tiny model; the shapes it was asked for."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(cpu_dtype, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(cpu_dtype, "has_bfloat16", lambda: True)
    monkeypatch.setattr(cpu_dtype, "measured", lambda *shape: asked.append(shape) or NATIVE)
    return asked


@pytest.mark.parametrize(
    ("prompt", "token", "wanted"),
    [
        ((2.0, 1.0), (0.1, 0.12), True),
        ((1.1, 1.0), (0.1, 0.05), False),  # within the noise
        ((1.0, 9.0), (0.1, 0.9), False),  # emulated
        ((2.0, 1.0), (0.1, 0.3), False),  # a token would take three times as long
    ],
)
def test_bfloat16_must_gain_on_prompts_and_not_lose_on_tokens(
    prompt: tuple[float, float], token: tuple[float, float], wanted: bool
) -> None:
    assert DtypeTimes(prompt, token).prefers_bfloat16 is wanted


def test_a_model_is_loaded_in_the_faster_dtype_and_it_is_said(folder: Path, native: list[tuple[int, int]]) -> None:
    steps: list[str] = []
    loaded = loader.load(ModelOptions(str(folder), device="cpu"), steps.append)
    assert loaded.model.dtype == torch.bfloat16
    assert Engine(loaded, load_profile("full")).dtype == "bfloat16"
    assert native == [(64, 128)]
    assert [step for step in steps if "bfloat16" in step and "2.0 times as fast" in step]


@pytest.mark.parametrize("asked", [{"dtype": "float32"}, {"quant": "nf4"}])
def test_what_was_asked_for_and_quantised_models_are_not_measured(
    folder: Path, native: list[tuple[int, int]], asked: dict[str, str]
) -> None:
    loaded = loader.load(ModelOptions(str(folder), device="cpu", **asked))
    assert loaded.model.dtype == torch.float32 and not native


def test_the_demo_model_stays_in_float32(native: list[tuple[int, int]]) -> None:
    assert loader.load(ModelOptions(device="cpu")).model.dtype == torch.float32 and not native


def test_a_slower_or_missing_bfloat16_is_not_used(
    folder: Path, native: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_dtype, "measured", lambda *shape: DtypeTimes((1.0, 4.0), (1.0, 4.0)))
    assert loader.load(ModelOptions(str(folder), device="cpu")).model.dtype == torch.float32
    monkeypatch.setattr(cpu_dtype, "measured", lambda *shape: pytest.fail("there is nothing to measure"))
    monkeypatch.setattr(cpu_dtype, "has_bfloat16", lambda: False)
    assert loader.load(ModelOptions(str(folder), device="cpu")).model.dtype == torch.float32


def test_small_models_are_not_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_dtype, "measured", lambda *shape: pytest.fail("too small to tell"))
    assert loader.load(ModelOptions(str(folder), device="cpu")).model.dtype == torch.float32


def test_the_measurement_is_of_the_models_shape_and_leaves_the_threads_alone() -> None:
    config = tiny.model("llama", "sdpa").config
    assert cpu_dtype.linear_shape(config) == (64, 128)
    config.hidden_size, config.intermediate_size = 4096, 14336
    assert cpu_dtype.linear_shape(config) == (4096, 256), "a million weights show as much"
    threads = torch.get_num_threads()
    times = cpu_dtype.measured(64, 128)
    assert all(0 < seconds < 1 for seconds in (*times.prompt, *times.token))
    assert torch.get_num_threads() == threads
