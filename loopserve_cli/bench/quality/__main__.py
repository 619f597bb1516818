"""`python -m loopserve_cli.bench.quality COMMAND`: measure length by length, print the tables, keep one document."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loopserve_cli.bench.quality.options import (
    CompressionOptions,
    DensityOptions,
    QualityOptions,
    RecallOptions,
    parse,
)
from loopserve_cli.errors import LoopserveError
from loopserve_cli.printable import printable_line

if TYPE_CHECKING:
    from rich.console import Group

    from loopserve_cli.bench.quality.questions import Answerer
    from loopserve_cli.bench.quality.reader import Reader
    from loopserve_cli.engine.loader import LoadedModel

Say = Callable[[str], None]


class Run(Protocol):
    """One command's measuring under way."""

    def measure(self, length: int) -> None:
        """Everything at one dialogue length."""

    def to_json(self) -> dict[str, Any]:
        """What is known so far."""

    def tables(self) -> Sequence[Group]:
        """The same for a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command; an error is a line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        measure(parse(given), shlex.join(["python", "-m", "loopserve_cli.bench.quality", *given]))
    except LoopserveError as error:
        print(f"error: {printable_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {printable_line(str(error))}; check the path and its permissions", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # what was measured so far is in the document
        return 130
    return 0


def measure(options: RecallOptions | DensityOptions | CompressionOptions, command: str) -> None:
    """Measure and print; with --json everything is kept as soon as it is known."""
    from loopserve_cli.output import output_console, teller
    from loopserve_cli.stats import versions

    aside, found_versions = teller(), versions()

    def say(text: str) -> None:
        aside(text)
        if options.json is not None:
            keep(options.json, facts | run.to_json())

    run, model = opened(options, say)
    facts = {"command": command, **model, "seed": options.seed, "versions": found_versions}
    for length in options.lengths:
        run.measure(length)
    out = output_console()
    for table in run.tables():
        out.print(table)


def opened(options: RecallOptions | DensityOptions | CompressionOptions, say: Say) -> tuple[Run, dict[str, Any]]:
    """The command's run over a loaded model, and what a document says of the model; raises ModelError."""
    if isinstance(options, CompressionOptions):
        from loopserve_cli.bench.quality.compression import CompressionRun

        return CompressionRun(options, load_engine(options), say), {"model": options.model}
    if isinstance(options, RecallOptions) and options.profiles:
        from loopserve_cli.bench.quality.recall import RecallRun

        return RecallRun(options, engine_readers(options), say), {"model": options.model, "tokens_trained": None}
    reader, model = load_reader(options)
    if isinstance(options, DensityOptions):
        from loopserve_cli.bench.quality.density_run import DensityRun

        return DensityRun(options, reader, say), model
    from loopserve_cli.bench.quality.recall import PLAIN, RecallRun

    return RecallRun(options, {PLAIN: reader}, say), model


def load_reader(options: RecallOptions | DensityOptions) -> tuple[Reader, dict[str, Any]]:
    """The model that is asked for in plain transformers, its name, and how many tokens it was trained on, if known."""
    from loopserve_cli.bundled_files import demo_model_folder
    from loopserve_cli.demo.weights import load_checkpoint, load_folder

    if options.checkpoint is not None:
        model, tokenizer, trained = load_checkpoint(options.checkpoint, options.device)
        name = options.checkpoint.name
    else:
        folder = demo_model_folder() if options.model == "demo" else Path(options.model)
        model, tokenizer = load_folder(folder, options.device)
        name, trained = options.model, None
    from loopserve_cli.bench.quality.reader import Reader

    return Reader(model, tokenizer), {"model": name, "tokens_trained": trained}


def engine_readers(options: RecallOptions) -> Mapping[str, Answerer]:
    """The engine under each profile that is asked for, by the profile's name, all over the same weights."""
    from loopserve_cli.bench.quality.engine_reader import EngineReader
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.profile import load_profile

    profiles = [load_profile(name) for name in options.profiles]
    loaded = load_engine(options)
    return {profile.name: EngineReader(Engine(loaded, profile), options.turns) for profile in profiles}


def load_engine(options: QualityOptions) -> LoadedModel:
    """The model for the engine, in float32 so that no near tie decides."""
    from loopserve_cli.config import ModelOptions
    from loopserve_cli.engine.loader import load

    return load(ModelOptions(options.model, dtype="float32", device=options.device))


def keep(file: Path, document: Mapping[str, Any]) -> None:
    """Write the document in place of what was known before; raises LoopserveError where the disk refuses."""
    from loopserve_cli.transcript.write import write_whole

    write_whole(file, (json.dumps(document, indent=1) + "\n").encode(), overwrite=True)


if __name__ == "__main__":
    sys.exit(main())
