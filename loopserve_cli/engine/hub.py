"""Names on the hub: what of it lies in the local cache, and one short question whether a name exists there.

huggingface_hub repeats a request that fails five times, for half a minute, and transformers makes several. So a model
that is whole in the cache is loaded from there without the network, and for others the hub is asked once before.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from threading import Thread

from loopserve_cli.files import MODEL_TEXT_LIMIT, Refused, read_file

NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# Seconds to wait for the hub's answer, looking up its address included.
PATIENCE = 4.0
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloaded."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_names() -> list[str]:
    """The models of which anything lies in the cache."""
    folders = cache_folder().glob("models--*")
    return sorted(folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders)


def snapshot(name: str) -> Path | None:
    """The folder of a model's newest revision in the cache; None when there is none."""
    folder = cache_folder() / f"models--{name.replace('/', '--')}"
    try:
        revision = read_file(folder / "refs" / "main", MODEL_TEXT_LIMIT).decode().strip()
    except (OSError, ValueError, Refused):
        return None
    path = folder / "snapshots" / revision
    return path if revision and path.is_dir() else None


def cached_folder(name: str) -> Path | None:
    """The snapshot of a model that is whole in the cache: its configuration, tokenizer and all of its weights."""
    path = snapshot(name) if NAME.fullmatch(name) else None
    return path if path is not None and is_whole(path) else None


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a model, or an adapter, with nothing left to download."""
    if (folder / "adapter_config.json").exists():
        return any((folder / f"adapter_model.{end}").exists() for end in ("safetensors", "bin"))
    if not (folder / "config.json").exists():
        return any(folder.glob("*.gguf"))
    if not any((folder / file).exists() for file in TOKENIZERS):
        return False
    for kind in ("model.safetensors", "pytorch_model.bin"):
        if (folder / kind).exists():
            return True
        index = folder / f"{kind}.index.json"
        if index.exists():
            try:
                files = set(json.loads(read_file(index, MODEL_TEXT_LIMIT))["weight_map"].values())
            except (ValueError, KeyError, AttributeError, TypeError, Refused):
                return True  # a damaged one is told when it is loaded
            return all((folder / file).exists() for file in files)
    return False


def offline() -> bool:
    """Whether the user forbade the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def not_here(name: str, why: str) -> str:
    """The line for a name that is neither in the cache nor to be had."""
    return (
        f"{name} is not in the local cache, and {why}; check the name, or run "
        f"`hf download {name}` where there is a network and copy the folder here"
    )


def ask(name: str, patience: float = PATIENCE) -> str | None:
    """Ask the hub once for a model; None when it is there, else why it cannot be had.

    The request runs beside, and is left alone when the time is over: looking up an address cannot be cut short.
    """
    answers: list[str | None] = []
    asking = Thread(target=lambda: answers.append(_answer(name, patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return answers[0] if answers else f"the hub did not answer within {patience:g} s"


def _answer(name: str, patience: float) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        files = [file.rfilename for file in HfApi().model_info(name, timeout=patience).siblings or ()]
    except GatedRepoError:
        return None  # it is there; loading says what to do
    except RepositoryNotFoundError:
        return "the hub has no such model (or it is private: `hf auth login`)"
    except Exception as error:  # whatever a network does: what matters is that there was no answer
        return f"the hub cannot be reached ({type(error).__name__})"
    return _unfit(files)


def _unfit(files: list[str]) -> str | None:
    """Why transformers could not load a model of these files, None when it could."""
    if "config.json" in files or not files:
        return None
    if "adapter_config.json" in files:
        return "it is an adapter, which is loaded from a folder"
    ggufs = [file for file in files if file.endswith(".gguf")]
    return f"it holds only GGUF files ({', '.join(ggufs[:3])}), which are loaded one by one as files" if ggufs else None
