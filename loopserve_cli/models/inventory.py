"""The models at hand: the demo, what the hub's cache holds, and what installed packages ship."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.engine.hub import cache_folder, is_whole
from loopserve_cli.engine.packages import PACKAGE, packages_with_models
from loopserve_cli.engine.sources import resolve
from loopserve_cli.errors import LoopserveError
from loopserve_cli.files import MODEL_TEXT_LIMIT, Refused, read_file
from loopserve_cli.models.size import disk_bytes, parameters


@dataclass(frozen=True, slots=True)
class Found:
    """One model. `model` is what to give to --model; `parameters` is None where it is not cheap to know.

    `problem` says why it cannot be talked with, in one line.
    """

    model: str
    origin: str
    path: str
    disk_bytes: int
    parameters: int | None
    problem: str | None = None


def find_models() -> Iterator[Found]:
    """Everything at hand, the demo model first. Nothing is loaded, and the network is left alone."""
    yield found("demo", "bundled", demo_model_folder())
    yield from in_cache()
    for package, models in packages_with_models():
        for path in models:
            name = PACKAGE + package + (f"/{path.name}" if len(models) > 1 else "")
            yield found(name, "package", path)


def in_cache() -> Iterator[Found]:
    """The models that were downloaded from the hub; of one with several GGUF files each."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir(cache_folder()).repos
    except CacheNotFound:
        return
    except (OSError, ValueError) as error:  # one thing that is not as it should be hides all the others
        whole = str(cache_folder())
        yield Found(whole, "hub cache", whole, 0, None, f"cannot be read ({type(error).__name__}: {error})")
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        current: Any = repo.refs.get("main")
        if repo.repo_type != "model" or current is None:
            continue
        folder = Path(current.snapshot_path)
        ggufs = [] if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))
        if not is_whole(folder):
            problem = f"incomplete; hf download {repo.repo_id}"
            yield Found(repo.repo_id, "hub cache", str(folder), repo.size_on_disk, None, problem)
        elif len(ggufs) > 1:
            for file in ggufs:
                yield found(str(file), "hub cache", file)
        else:
            yield found(repo.repo_id, "hub cache", ggufs[0] if ggufs else folder)


def found(name: str, origin: str, path: Path) -> Found:
    """One model with its sizes, and whether its name can be resolved and it can write a chat."""
    try:
        source = resolve(name)
        problem = None if source.gguf or has_template(path) or source.adapter else "its tokenizer has no chat template"
    except LoopserveError as error:
        problem = str(error).removeprefix(f"{name}: ")
    return Found(name, origin, str(path), disk_bytes(path), parameters(path), problem)


def has_template(folder: Path) -> bool:
    """Whether a folder's tokenizer brings a chat template."""
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    try:
        return b'"chat_template"' in read_file(folder / "tokenizer_config.json", MODEL_TEXT_LIMIT)
    except (OSError, Refused):
        return False
