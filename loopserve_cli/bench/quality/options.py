"""What the three commands were asked for, and how that is written on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loopserve_cli.bench.quality.combination import combinations
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.reference import FULL
from loopserve_cli.profile import load_profile, profile_names

LENGTHS = "1024,2048,4096,8192,16384,32768"
BUDGETS = "128,256,512,1024"


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """What all three are told: the model, dialogues of which lengths (in tokens), how many of each, by which seed.

    `json` is the file for everything that was measured, written anew whenever more is known.
    """

    model: str
    lengths: tuple[int, ...]
    dialogues: int
    seed: int
    device: str
    json: Path | None

    def check(self, least: int, of_what: str, *counts: str) -> None:
        """Refuse shorter lengths, and counts below 1, among them the dialogues; raises UsageError."""
        counts = ("dialogues", *counts)
        if min(self.lengths) < least or min(getattr(self, name) for name in counts) < 1:
            named = ", ".join(f"--{name}" for name in counts)
            raise UsageError(f"--lengths must be at least {of_what}, and {named} at least 1")


@dataclass(frozen=True, slots=True)
class RecallOptions(QualityOptions):
    """Facts asked for per dialogue, and who reads: the engine in `turns` under each profile, or plain transformers."""

    checkpoint: Path | None
    profiles: tuple[str, ...]
    turns: int
    questions: int

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        self.check(256, "256", "turns", "questions")
        if self.profiles and self.checkpoint:
            raise UsageError("--profile needs an exported model; give it by --model in place of --checkpoint")


@dataclass(frozen=True, slots=True)
class DensityOptions(QualityOptions):
    """Which share `alpha` of attention's mass is to be covered."""

    checkpoint: Path | None
    alpha: float

    def __post_init__(self) -> None:
        """Refuse what cannot be measured: rows are sampled of long dialogues."""
        self.check(512, "512")
        if not 0 < self.alpha <= 1:
            raise UsageError(f"--alpha is {self.alpha:g}, but must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class CompressionOptions(QualityOptions):
    """Profiles, each at every budget (keys per head), and what is asked after every turn.

    `questions` are facts, `others` those of each other kind. Without profiles it is `full` and all with a budget.
    """

    profiles: tuple[str, ...]
    budgets: tuple[int, ...]
    turns: int
    questions: int
    others: int

    def __post_init__(self) -> None:
        """Refuse what cannot be measured, unknown profiles among it."""
        self.check(256 * self.turns, "256 a turn", "turns", "questions")
        if self.others < 0:
            raise UsageError("--others must be at least 0")
        combinations(self.profiles, self.budgets, 0)


def with_a_budget() -> tuple[str, ...]:
    """The shipped profiles whose decoding has a budget, after the one that leaves nothing out."""
    return FULL, *(name for name in profile_names() if "budget" in load_profile(name).keep.settings)


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas; raises UsageError that names the flag."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text!r} is not a list of numbers, for example 1024,2048") from None


def parse(arguments: Sequence[str]) -> RecallOptions | DensityOptions | CompressionOptions:
    """The options of a command line whose first word is the command; raises UsageError for what cannot be measured."""
    given = vars(_parser().parse_args(arguments))
    kind = COMMANDS[given.pop("command")][0]
    for name in ("lengths", "budgets"):
        if name in given:
            given[name] = numbers(f"--{name}", given[name])
    profiles = tuple(dict.fromkeys(given.get("profiles", ())))
    if kind is CompressionOptions:
        profiles = profiles or with_a_budget()
    return kind(**given | ({"profiles": profiles} if "profiles" in given else {}))


COMMANDS = {
    "recall": (RecallOptions, "how many answers are exactly right, by the dialogue's length"),
    "density": (DensityOptions, "what share of attention's entries a share of its mass costs, per layer"),
    "compression": (CompressionOptions, "recall under every compressed profile and budget"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loopserve_cli.bench.quality", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recall, density, compression = (commands.add_parser(name, help=what) for name, (_, what) in COMMANDS.items())
    for command, lengths, dialogues in ((recall, LENGTHS, 20), (density, LENGTHS, 2), (compression, "8192,16384", 8)):
        command.add_argument("--model", default="demo", help="demo, or the folder of an exported model")
        command.add_argument("--lengths", default=lengths, help="dialogue lengths in tokens")
        command.add_argument("--dialogues", type=int, default=dialogues, help="dialogues per length, at least")
        command.add_argument("--seed", type=int, default=7001)
        command.add_argument("--device", default="cpu")
        command.add_argument("--json", type=Path, help="write everything to this file, anew whenever more is known")
    for command in (recall, density):
        command.add_argument("--checkpoint", type=Path, help="measure a checkpoint.pt of the training instead")
    density.add_argument("--alpha", type=float, default=0.95, help="the share of the mass that is to be covered")
    for command, questions, default in (
        (recall, 10, "plain transformers"),
        (compression, 6, "full, all with a budget"),
    ):
        command.add_argument(
            "--questions", type=int, default=questions, help="facts asked for, where there are so many"
        )
        command.add_argument("--turns", type=int, default=5, help="in how many turns the engine reads a dialogue")
        told = f"read through the engine under this profile; repeatable; default: {default}"
        command.add_argument("--profile", action="append", default=[], dest="profiles", metavar="PROFILE", help=told)
    compression.add_argument("--budgets", default=BUDGETS, help="keys per head")
    compression.add_argument("--others", type=int, default=2, help="questions of each other kind after every turn")
    return parser
