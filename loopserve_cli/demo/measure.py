"""Measure the demo model: `python -m loopserve_cli.demo.measure --model demo`.

Recall: sparse dialogues with names and values never seen in training are read once; then every question
is asked on its own, answered greedily until the end token, and the answer must equal the true one to the letter.
The headline is single and updated facts together, by dialogue length and by where the fact stands;
questions about what was never told, through two facts, and for lists are counted apart.

With `--profile` (repeatable) it is loopserve's engine that reads, in `--turns` turns, under each profile, and all of
them get the same questions; without it, plain transformers under full attention.

Density (`--density`): what share of attention's entries a share alpha of its mass costs, per layer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loopserve_cli.demo.command import run
from loopserve_cli.demo.planted import THIRDS
from loopserve_cli.demo.recall import HEADLINE, OTHERS, Answerer, Recall, dialogue_ids, measure_recall, planted_dialogue
from loopserve_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from loopserve_cli.demo.density import HeadDensity
    from loopserve_cli.demo.reader import Reader

PLAIN = "transformers"
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)


def measure_density(reader: Reader, length: int, seed: int, alpha: float, dialogues: int) -> list[HeadDensity]:
    """Every head's density, averaged over a few dialogues of that length."""
    import torch

    from loopserve_cli.demo.density import HeadDensity, sample_rows

    runs = []
    for index in range(dialogues):
        ids = dialogue_ids(planted_dialogue(seed, length, index, reader), reader)
        rows = sample_rows(len(ids), torch.Generator().manual_seed(seed + index))
        runs.append(reader.densities(ids, rows, alpha))
    return [
        HeadDensity(
            layer=heads[0].layer,
            head=heads[0].head,
            entries=fmean(h.entries for h in heads),
            lines=fmean(h.lines for h in heads),
            cheapest=fmean(h.cheapest for h in heads),
            coverage=fmean(h.coverage for h in heads),
            verticals=round(fmean(h.verticals for h in heads)),
            slashes=round(fmean(h.slashes for h in heads)),
        )
        for heads in zip(*runs, strict=True)
    ]


def print_recall(results: Mapping[str, Sequence[Recall]], console: Console) -> None:
    """The table of exact answers, one row per profile and length; 95% Wilson intervals in brackets."""
    from rich.table import Table

    table = Table(title="Answers exactly right (95% interval)", title_justify="left")
    for name in ("profile", "tokens", "dialogues", "questions", "facts", *THIRDS, *HEADLINE, *OTHERS):
        table.add_column(name, justify="right")
    for profile, recalls in results.items():
        for r in recalls:
            cells = [r.headline, *r.thirds.values(), *r.kinds.values()]
            counts = (str(r.length), str(len(r.tokens)), str(r.headline.asked))
            table.add_row(profile, *counts, *(str(cell) for cell in cells))
    console.print(table)


def print_density(results: dict[int, list[HeadDensity]], alpha: float, console: Console) -> None:
    """The table of densities, one row per length and layer, and one for all heads."""
    from rich.table import Table

    table = Table(title=f"Density at alpha {alpha:g}", title_justify="left")
    for name in (
        "tokens",
        "layer",
        "entries",
        "lines",
        "cheapest",
        "coverage",
        "verticals",
        "slashes",
        "lines by head",
    ):
        table.add_column(name, justify="right")
    for length, heads in results.items():
        layers = sorted({h.layer for h in heads})
        groups = {str(layer): [h for h in heads if h.layer == layer] for layer in layers}
        for name, group in {**groups, "all": heads}.items():
            by_head = " ".join(f"{h.lines:.1%}" for h in group) if name != "all" else ""
            shares = [
                f"{fmean(getattr(h, key) for h in group):.1%}" for key in ("entries", "lines", "cheapest", "coverage")
            ]
            counts = [f"{fmean(getattr(h, key) for h in group):.0f}" for key in ("verticals", "slashes")]
            table.add_row(str(length), name, *shares, *counts, by_head, end_section=name == "all")
    console.print(table)


def load_reader(options: argparse.Namespace) -> tuple[Reader, str, int | None]:
    """The model that is asked for, its name, and how many tokens it was trained on, where known."""
    from loopserve_cli.bundled_files import demo_model_folder
    from loopserve_cli.demo.reader import Reader, load_checkpoint, load_folder

    if options.checkpoint:
        model, tokenizer, done = load_checkpoint(options.checkpoint, options.device)
        return Reader(model, tokenizer), options.checkpoint.name, done
    folder = demo_model_folder() if options.model == "demo" else Path(options.model)
    return Reader(*load_folder(folder, options.device)), options.model, None


def load_engine_readers(options: argparse.Namespace) -> Mapping[str, Answerer]:
    """The engine under each profile that is asked for, by the profile's name."""
    if not options.profile:
        return {}
    from loopserve_cli.config import ModelOptions
    from loopserve_cli.demo.engine_reader import engine_readers
    from loopserve_cli.profile import load_profile

    model = ModelOptions(options.model, dtype="float32", device=options.device)
    return engine_readers(model, [load_profile(name) for name in options.profile], options.turns)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="demo, or the folder of an exported model")
    parser.add_argument("--checkpoint", type=Path, help="measure a checkpoint.pt of the training instead")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="dialogue lengths in tokens")
    parser.add_argument("--dialogues", type=int, default=20, help="at least so many dialogues per length")
    parser.add_argument("--questions", type=int, default=10, help="facts asked for per dialogue, where it has so many")
    parser.add_argument("--profile", action="append", default=[], help="read through the engine under this profile")
    parser.add_argument("--turns", type=int, default=5, help="with --profile: in how many turns a dialogue is read")
    parser.add_argument("--density", action="store_true", help="measure the density of attention as well")
    parser.add_argument("--density-dialogues", type=int, default=2)
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=7001)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    options = parser.parse_args(arguments)
    try:
        options.lengths = [int(text) for text in options.lengths.split(",")]
    except ValueError:
        raise UsageError(f"--lengths {options.lengths!r} is not a list of numbers, for example 1024,2048") from None
    if min(options.lengths) < 256 or options.dialogues < 0 or options.questions < 1:
        raise UsageError("--lengths must be at least 256, --questions at least 1 and --dialogues at least 0")
    if options.profile and (options.checkpoint or options.turns < 1):
        raise UsageError("--profile needs an exported model (--model), and --turns at least 1")
    if options.density and min(options.lengths) < 512:
        raise UsageError("--density samples rows of long dialogues; give --lengths of at least 512 with it")
    return options


def measure(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Measure and print; returns the JSON document."""
    from loopserve_cli.output import CleanConsole
    from loopserve_cli.stats import versions

    out, err = CleanConsole(width=None if sys.stdout.isatty() else 200), CleanConsole(stderr=True)

    def progress(recall: Recall) -> None:
        if len(recall.tokens) % 10 == 0 or recall.length >= 8192:
            err.print(f"{recall.length} tokens, {len(recall.tokens)} dialogues: {recall.headline}")

    reader, name, trained = load_reader(options)
    readers = load_engine_readers(options) or {PLAIN: reader}
    recalls: dict[str, list[Recall]] = {profile: [] for profile in readers if options.dialogues}
    densities: dict[int, list[HeadDensity]] = {}
    sizes = (options.dialogues, options.questions, options.seed)
    for length in options.lengths:
        for profile, found in recalls.items():
            err.print(f"{profile}, {length} tokens", style="dim", markup=False)
            found.append(measure_recall(readers[profile], length, *sizes, progress))
        if options.density:
            densities[length] = measure_density(reader, length, options.seed, options.alpha, options.density_dialogues)
    if recalls:
        print_recall(recalls, out)
    if densities:
        print_density(densities, options.alpha, out)
    return {
        "command": command,
        "model": name,
        "tokens_trained": trained,
        "seed": options.seed,
        "alpha": options.alpha,
        "versions": versions(),
        "recall": [{"profile": p, **recall.to_json()} for p, found in recalls.items() for recall in found],
        "density": [
            {
                "length": length,
                "entries": fmean(h.entries for h in heads),
                "lines": fmean(h.lines for h in heads),
                "cheapest": fmean(h.cheapest for h in heads),
                "heads": [asdict(h) for h in heads],
            }
            for length, heads in densities.items()
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options and measure; the exit code."""

    def act(given: list[str], command: str) -> None:
        options = parse(given)
        document = measure(options, command)
        if options.json:
            options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    return run("loopserve_cli.demo.measure", arguments, act)


if __name__ == "__main__":
    sys.exit(main())
