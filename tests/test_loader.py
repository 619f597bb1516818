"""Loading models: from a folder, quantised, and every way it can go wrong, each in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.engine import loader, placement
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.errors import ModelError
from loopserve_cli.profile import load_profile


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama saved as transformers saves models."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny.model("llama", "sdpa").save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def answer(loaded: loader.LoadedModel, count: int = 8) -> list[int]:
    engine = Engine(loaded, load_profile("full"))
    return [e.id for e in engine.turn([1, 40, 50, 60], SamplingOptions(max_new_tokens=count)) if isinstance(e, Token)]


def test_a_folder_loads_with_progress(folder: Path) -> None:
    steps: list[str] = []
    loaded = loader.load(ModelOptions(str(folder), device="cpu"), steps.append)
    assert loaded.layers == 2 and loaded.context_limit == 4096 and loaded.stop_ids == {2}
    assert loaded.model.dtype == torch.float32 and loaded.device.type == "cpu"
    assert len(steps) == 2 and "GiB on cpu" in steps[1]
    assert answer(loaded) == answer(tiny.loaded("llama"))


def test_dtype_is_taken_as_asked(folder: Path) -> None:
    assert loader.load(ModelOptions(str(folder), device="cpu", dtype="bfloat16")).model.dtype == torch.bfloat16


@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_quantised_weights_are_smaller_and_still_answer(folder: Path, quant: str) -> None:
    loaded = loader.load(ModelOptions(str(folder), device="cpu", quant=quant))
    layer = loaded.model.model.layers[0].mlp.up_proj
    full = 64 * 128 * 4
    assert layer.weight.nbytes == full // (8 if quant == "nf4" else 4)
    assert loaded.quant == quant and loaded.model.config._attn_implementation == "loopserve"
    assert len(answer(loaded)) == 8


def test_weight_bytes_are_the_parameters_bytes(folder: Path) -> None:
    options = ModelOptions(str(folder), device="cpu")
    counted = placement.weight_bytes(loader.read_config(str(folder), options), torch.float32, options)
    assert counted == sum(p.nbytes for p in tiny.model("llama", "sdpa").parameters())


def test_shared_weights_count_once() -> None:
    options = ModelOptions("demo", device="cpu")
    counted = placement.weight_bytes(loader.read_config(loader.resolve("demo"), options), torch.bfloat16, options)
    model = loader.load(ModelOptions("demo", device="cpu", dtype="bfloat16")).model
    assert model.config.tie_word_embeddings and counted == sum(p.nbytes for p in model.parameters())


def test_too_little_memory_is_said_before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Little:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    with pytest.raises(
        ModelError, match=r"needs 0\.0 GiB .* cpu has 0\.0 GiB free; use --quant nf4 or a smaller model"
    ):
        loader.load(ModelOptions(str(folder), device="cpu"))


def edited(folder: Path, target: Path, **changes: object) -> Path:
    """A copy of the folder's configuration with other values."""
    target.mkdir()
    config = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    template = folder / "chat_template.jinja"
    if template.exists():
        (target / template.name).write_bytes(template.read_bytes())
    return target


def test_bad_models_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((folder / "config.json").read_bytes())
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    cut = edited(folder, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    cases = {
        "./no/such/folder": "no model folder",
        str(tmp_path / "nothing"): "no model folder",
        str(empty): "no config.json in this folder",
        str(bare): "the folder has no tokenizer",
        str(broken): "cannot be loaded",
        str(edited(folder, tmp_path / "weightless")): "cannot be loaded",
        str(cut): "cannot be loaded",
        str(edited(folder, tmp_path / "unknown", model_type="nosuchmodel")): "nosuchmodel",
        str(edited(folder, tmp_path / "encoder", model_type="bert")): "architecture 'bert'",
        str(edited(folder, tmp_path / "recurrent", model_type="mamba")): "does not let its attention be exchanged",
        str(
            edited(folder, tmp_path / "linear", layer_types=["full_attention", "linear_attention"])
        ): "linear_attention",
    }
    for name, expected in cases.items():
        with pytest.raises(ModelError) as caught:
            loader.load(ModelOptions(name, device="cpu"))
        message = str(caught.value)
        assert expected in message, (name, message)
        assert "\n" not in message and len(message) < 500


def test_special_tokens_that_are_empty_are_none(folder: Path, tmp_path: Path) -> None:
    model = edited(folder, tmp_path / "m")
    (model / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    said = json.loads((model / "tokenizer_config.json").read_text())
    changed = {**said, "bos_token": "", "eos_token": "", "unk_token": ""}
    (model / "tokenizer_config.json").write_text(json.dumps(changed))
    loaded = loader.load(ModelOptions(str(model), device="cpu"))
    assert loaded.tokenizer.eos_token_id is None and None not in loaded.stop_ids
    assert loaded.tokenizer.decode([40, 41], skip_special_tokens=True) == tiny.tokenizer().decode([40, 41])


def test_a_hub_model_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"nobody/nothing is not in the local cache.*hf download nobody/nothing"):
        loader.load(ModelOptions("nobody/nothing", device="cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="torch sees no GPU; use --device cpu"):
        placement.pick_device("cuda")
