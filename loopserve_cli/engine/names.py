"""Whether a model goes by a name, and which name was meant: told before anything large is imported."""

from __future__ import annotations

from pathlib import Path

from loopserve_cli.engine.hub import NAME, ask, cached_names, not_here, offline, snapshot
from loopserve_cli.engine.nearest import LIST, did_you_mean, models_in
from loopserve_cli.engine.packages import PACKAGE, packages_with_models
from loopserve_cli.engine.sources import resolve
from loopserve_cli.errors import ModelError
from loopserve_cli.shapes import RANDOM, SHAPES


def require(name: str) -> None:
    """Raise ModelError at once when no model goes by this name; if only the hub can know, it is asked once."""
    source = resolve(name)
    if not source.on_hub:
        return
    if source.adapter is not None:
        try:
            require(source.place)
        except ModelError as error:
            raise ModelError(f"{name}: is an adapter of {source.place}: {error}") from error
        return
    near = did_you_mean(name, known_models(name))
    if not NAME.fullmatch(name):
        raise ModelError(f"no model {name!r}; {near or f'give a hub name, a folder, a .gguf file, or demo. {LIST}'}")
    if near and "/" not in name:
        raise ModelError(f"no model {name!r}; {near}")
    if snapshot(name) is not None:
        return  # a part of it is here, so the name is right
    answer = "HF_HUB_OFFLINE is set" if offline() else ask(name)
    if answer is not None:
        raise ModelError(not_here(name, answer) + (f"; {near}" if near else ""))


def known_models(name: str) -> dict[str, str]:
    """What could be meant: names and their short forms, each with the value of --model that it stands for."""
    known = {"demo": "demo"}
    for hub in cached_names():
        known |= {hub.rpartition("/")[2]: hub, hub: hub}
    for package, _ in packages_with_models():
        known |= {package: PACKAGE + package, PACKAGE + package: PACKAGE + package}
    if ":" in name:
        known |= {RANDOM + shape.model: RANDOM + shape.model for shape in SHAPES}
    return known | models_in(Path())
