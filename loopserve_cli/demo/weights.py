"""The demo model's weights from disk: as they were exported, or as a run of the training left them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopserve_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase


def load_folder(folder: Path, device: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The exported model in float32, from its folder; raises ModelError when files are missing."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}; give the folder that loopserve_cli.demo.train exported")
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.to(device), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_checkpoint(file: Path, device: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase, int]:
    """A model still in training, rounded to bfloat16 as it will be shipped, and how many tokens it has seen.

    Its tokenizer is the one that the training wrote beside it: one built anew may have other ids. Raises ModelError
    when files are missing.
    """
    for path in (file, file.parent / "tokenizer" / "tokenizer.json"):
        if not path.is_file():
            raise ModelError(
                f"{path} does not exist; give the checkpoint.pt in loopserve_cli.demo.train's --out folder"
            )
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    from loopserve_cli.demo.train import configuration

    state = torch.load(file, map_location=device, weights_only=True)
    model: Any = LlamaForCausalLM(configuration()).to(device)
    model.load_state_dict(state["model"])
    tokenizer = AutoTokenizer.from_pretrained(file.parent / "tokenizer", local_files_only=True)
    return model.to(torch.bfloat16).to(torch.float32), tokenizer, int(state["done"])
