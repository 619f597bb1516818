"""LoRA adapters: merged into their base, told apart from it, and refused in one line where they do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.engine import loader, names
from loopserve_cli.engine.adapters import check_vocabulary
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.identity import identify
from loopserve_cli.errors import ModelError
from loopserve_cli.profile import load_profile

PROMPT = [1, 40, 50, 60]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, and in `adapter` one for it, named by a path from there."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    home = tmp_path_factory.mktemp("adapters")
    base = tiny.model("llama", "sdpa")
    base.save_pretrained(home / "base")
    tiny.tokenizer().save_pretrained(home / "base")
    settings = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(tiny.model("llama", "sdpa"), settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(home / "adapter")
    with torch.no_grad():
        inputs = torch.tensor([PROMPT])
        ids = adapted.generate(
            input_ids=inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=12, do_sample=False
        )
    (home / "answer.json").write_text(json.dumps(ids[0, len(PROMPT) :].tolist()))
    return home


def changed(home: Path, target: Path, **settings: Any) -> Path:
    """A copy of the adapter with other settings."""
    shutil.copytree(home / "adapter", target)
    file = target / "adapter_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(home / "base")} | settings)
    )
    return target


def load(folder: Path, **options: Any) -> loader.LoadedModel:
    return loader.load(ModelOptions(str(folder), device="cpu", **options))


def answer(loaded: loader.LoadedModel) -> list[int]:
    engine = Engine(loaded, load_profile("full"))
    return [e.id for e in engine.turn(PROMPT, SamplingOptions(max_new_tokens=12)) if isinstance(e, Token)]


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value).removeprefix(f"{folder}: ")


def test_an_adapter_answers_as_peft_does_and_not_as_its_base(home: Path) -> None:
    theirs = json.loads((home / "answer.json").read_text())
    adapted, base = load(home / "adapter"), load(home / "base")
    assert answer(adapted)[: len(theirs)] == theirs
    assert answer(base) != answer(adapted)
    assert adapted.name == str(home / "adapter") and type(adapted.model) is type(base.model)
    assert adapted.model.config._attn_implementation == "loopserve"


def test_a_saved_cache_tells_an_adapter_from_its_base(home: Path) -> None:
    of = [identify(one.model, one.tokenizer, one.name, None) for one in map(load, [home / "base", home / "adapter"])]
    again = load(home / "adapter")
    assert "with other weights" in (of[0].difference(of[1]) or "")
    assert of[1].difference(identify(again.model, again.tokenizer, again.name, None)) is None


def test_its_own_tokenizer_goes_before_the_base_s(home: Path, tmp_path: Path) -> None:
    folder = changed(home, tmp_path / "adapter")
    tiny.fresh_tokenizer("{{ messages[0]['content'] }}!").save_pretrained(folder)
    assert load(folder).tokenizer.chat_template == "{{ messages[0]['content'] }}!"
    assert load(home / "adapter").tokenizer.chat_template == tiny.tokenizer().chat_template


def test_it_is_quantised_after_merging(home: Path, tmp_path: Path) -> None:
    load(home / "adapter").model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    for quant in ("nf4", "int8"):
        assert answer(load(home / "adapter", quant=quant)) == answer(load(tmp_path, quant=quant))


def test_demo_can_be_a_base(home: Path, tmp_path: Path) -> None:
    assert "the adapter does not fit its base model: " in refused(
        changed(home, tmp_path / "a", base_model_name_or_path="demo")
    )


def test_without_peft_the_base_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    assert refused(home / "adapter") == "is an adapter of ../base, which needs peft: pip install 'loopserve[peft]'"


def test_what_does_not_fit_is_one_line(home: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    gone = changed(home, tmp_path / "gone", base_model_name_or_path="/no/such/base")
    assert refused(gone).startswith("is an adapter of /no/such/base: no model folder '/no/such/base'")
    assert refused(changed(home, tmp_path / "none", base_model_name_or_path=None)).startswith("is an adapter whose")
    assert "is an adapter itself" in refused(
        changed(home, tmp_path / "two", base_model_name_or_path=str(home / "adapter"))
    )
    assert refused(changed(home, tmp_path / "kind", peft_type="PREFIX_TUNING")).startswith(
        "is an adapter of kind PREFIX"
    )
    assert "not found in the base model" in refused(changed(home, tmp_path / "odd", target_modules=["nosuch"]))
    assert "is an adapter itself" in refused(changed(home, tmp_path / "self", base_model_name_or_path="."))
    half = changed(home, tmp_path / "half")
    weights = load_file(half / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[2:]), half / "adapter_model.safetensors")
    assert refused(half) == "the adapter's weights are incomplete, or of another base model; copy it again"
    (half / "adapter_model.safetensors").unlink()
    assert refused(half).startswith("has no weights (adapter_model.safetensors)")
    (half / "adapter_config.json").write_text("{")
    assert refused(half).startswith("its adapter_config.json is damaged")


def test_a_base_on_the_hub_is_asked_for_by_its_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = changed(home, tmp_path / "far", base_model_name_or_path="acme/Parrot")
    with pytest.raises(ModelError, match=r"far: is an adapter of acme/Parrot: acme/Parrot is not in the local cache"):
        names.require(str(folder))


def test_more_tokens_than_embeddings_are_refused(home: Path) -> None:
    loaded = load(home / "base")
    check_vocabulary(loaded.model, loaded.tokenizer, "m")
    loaded.tokenizer.add_tokens(["<|new|>"])
    with pytest.raises(ModelError, match=r"m: its tokenizer has 1,025 tokens, but its base has embeddings for 1,024"):
        check_vocabulary(loaded.model, loaded.tokenizer, "m")
