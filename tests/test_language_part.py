"""A model that also sees is loaded without its eyes, where the package for them is not installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import architectures
import pytest
import tiny
from models_table import answer
from safetensors.torch import load_file, save_file

from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import load
from loopserve_cli.errors import ModelError
from loopserve_cli.profile import load_profile

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")


def gemma3n(folder: Path, prefix: str) -> list[int]:
    """A whole Gemma 3n's files, its weights under such names; what its language model answers."""
    from transformers import AutoConfig

    text = architectures.configuration("gemma3n_text")
    model = architectures.random_model(text, "eager")
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("model.", prefix, 1): weight for name, weight in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    whole = AutoConfig.for_model("gemma3n", text_config=text.to_dict()).to_dict()
    (folder / "config.json").write_text(json.dumps(whole | {"architectures": ["Gemma3nForConditionalGeneration"]}))
    import torch

    prompt = torch.tensor([[20, 30, 40]])
    ends = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0, "eos_token_id": [1, 2]}
    said: list[int] = model.generate(prompt, attention_mask=torch.ones_like(prompt), **ends)[0, 3:].tolist()
    return said


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_gemma_3n_without_timm(tmp_path: Path, prefix: str) -> None:
    said = gemma3n(tmp_path, prefix)
    told: list[str] = []
    loaded = load(ModelOptions(str(tmp_path)), warn=told.append)
    assert answer(Engine(loaded, load_profile("full")), [20, 30, 40])[: len(said)] == said
    assert type(loaded.model).__name__ == "Gemma3nForCausalLM"
    assert len(told) == 1 and "only its language model is loaded" in told[0] and "timm" in told[0]


def test_weights_under_unknown_names_are_refused(tmp_path: Path) -> None:
    gemma3n(tmp_path, "elsewhere.")
    with pytest.raises(ModelError, match="the weights do not belong to config.json"):
        load(ModelOptions(str(tmp_path)))
