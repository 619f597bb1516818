"""What a model's name stands for: a folder, a GGUF file in one, an adapter on a base, or a name on the hub.

Nothing here loads torch, so that a mistyped name costs no time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.engine.adapters import base_of
from loopserve_cli.engine.gguf_files import is_gguf, parts_of, whole_models
from loopserve_cli.engine.gguf_header import read_header
from loopserve_cli.engine.hub import cached_folder
from loopserve_cli.engine.nearest import did_you_mean, models_in
from loopserve_cli.engine.packages import PACKAGE, packaged
from loopserve_cli.errors import ModelError
from loopserve_cli.files import MODEL_TEXT_LIMIT, Refused, check_file
from loopserve_cli.shapes import random_shape

# Files that transformers reads whole, and those that it maps or reads in parts.
TEXTS = (".json", ".jinja", ".txt", ".model", ".py")
WEIGHTS = (".safetensors", ".bin", ".pt")
WEIGHT_LIMIT = 2**63
# Letters of a name that a message repeats.
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's files are: `place` is a folder or a name on the hub.

    `gguf` are the GGUF files in that folder that hold the model: none, one, or its parts in order. `adapter` is the
    folder of a LoRA adapter that goes on top. With `language_only` just the language model of the files is wanted.
    """

    place: str
    gguf: tuple[str, ...] = ()
    adapter: Path | None = None
    language_only: bool = False

    @property
    def on_hub(self) -> bool:
        """Whether the model, or an adapter's base, has to be fetched from the hub."""
        return not Path(self.place).is_dir()

    @property
    def where(self) -> dict[str, str]:
        """The arguments of transformers' `from_pretrained` that name the files."""
        named = {"pretrained_model_name_or_path": self.place}
        return named | {"gguf_file": self.gguf[0]} if self.gguf else named


def resolve(name: str) -> Source:
    """Where the model of that name is; raises ModelError for what can be seen to be missing without a network.

    A random model speaks the demo model's language: its tokenizer and chat template are read from there.
    """
    try:
        return _resolved(name)
    except OSError as error:  # a name too long for a path, or a folder that may not be read
        raise ModelError(
            f"no model {name[:SHOWN]!r}{'...' * (len(name) > SHOWN)}: {error.strerror or error}"
        ) from error


def _resolved(name: str) -> Source:
    if name == "demo" or random_shape(name) is not None:
        return Source(str(demo_model_folder()))
    if name.startswith(PACKAGE):
        return of_path(packaged(name.removeprefix(PACKAGE)), name)
    path = Path(name).expanduser()
    if looks_local(name):
        return of_path(path, name)
    cached = cached_folder(name)
    return Source(name) if cached is None else of_path(cached, name)


def looks_local(name: str) -> bool:
    """Whether a name can only be a path, or is the path of something that is there."""
    path = Path(name).expanduser()
    a_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith(".gguf")
    return a_path or path.exists()


def of_path(path: Path, name: str) -> Source:
    """The model in a folder or a GGUF file; `name` is what the user calls it."""
    if path.is_file() and is_gguf(path):
        return of_gguf(path, name)
    if not path.is_dir():
        kind = "file" if path.suffix.lower() == ".gguf" else "folder"
        near = did_you_mean(path.name, models_in(path.parent))
        raise ModelError(f"no model {kind} {name!r}; {near or 'give a folder with config.json, a hub name, or demo'}")
    check_folder(path, name)
    if is_adapter(path):
        return of_adapter(path, name)
    if (path / "config.json").is_file():
        return Source(str(path))
    models = whole_models(path)
    if len(models) == 1:
        return of_gguf(models[0], name)
    if models:
        listed = ", ".join(model.name for model in models)
        raise ModelError(f"{name}: holds {len(models)} GGUF files; give one of them: {listed}")
    raise ModelError(f"{name}: no config.json in this folder, so it is no transformers model")


def check_folder(folder: Path, name: str) -> None:
    """Raise ModelError for a file that a library would wait for, or fill the memory with."""
    for file in [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]:
        limit = MODEL_TEXT_LIMIT if file.suffix in TEXTS else WEIGHT_LIMIT
        if file.suffix not in TEXTS + WEIGHTS or file.is_dir() or not file.exists():
            continue
        try:
            check_file(file, limit)
        except Refused as refusal:
            raise ModelError(f"{name}: its {file.name} {refusal}") from None


def of_gguf(path: Path, name: str) -> Source:
    """A GGUF file with the parts that belong to it, each looked at; raises ModelError for what is wrong with one."""
    files = parts_of(path)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(f"{name}: {len(missing)} of its {len(files)} parts are missing ({missing[0]}); copy them here")
    first, *_ = [read_header(file) for file in files]
    if "tokenizer.chat_template" not in first.settings:
        raise ModelError(f"{name}: its tokenizer has no chat template; use an instruct or chat model")
    return Source(str(path.parent), tuple(file.name for file in files))


def of_adapter(folder: Path, name: str) -> Source:
    """A LoRA adapter on its base, whose name may be a path from the adapter's folder."""
    base = base_of(folder, name)
    beside = folder / base
    here = next((path for path in (beside, Path(base)) if path.exists()), None) or cached_folder(base)
    if here is not None and is_adapter(here):
        raise ModelError(f"{name}: its base {base} is an adapter itself; give it the model that one is made for")
    try:
        source = of_path(beside, str(beside)) if beside.exists() else resolve(base)
    except ModelError as error:
        raise ModelError(f"{name}: is an adapter of {base}: {error}") from error
    return replace(source, adapter=folder)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no whole model."""
    return (folder / "adapter_config.json").is_file() and not any(folder.glob("model*.safetensors"))
