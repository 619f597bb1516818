"""Recall under every compressed profile and budget: `python -m loopserve_cli.demo.compression --lengths 8192`.

Planted dialogues with names never seen in training are read in turns, and after every turn each profile is asked the
same questions at each budget, one by one from the same state: an answer counts when it is exactly the right one, ended.
Profiles with the same prefill share what was read, for no method forgets anything between turns; the question's own
prefill and the answer run under the profile itself.

The demo model's answers are short. Beside what was right the tables say how much of the answers was decoded from
chosen keys only; "long" are the answers that go on beyond the 16 tokens that loopserve begins by reading everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopserve_cli.demo.combination import SHORT_ANSWER, Combination, combinations
from loopserve_cli.demo.command import run
from loopserve_cli.demo.recall import MOST_ANSWER_TOKENS
from loopserve_cli.demo.recall_tables import print_facts, print_others
from loopserve_cli.demo.rounds import Question, rounds
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile, profile_names

if TYPE_CHECKING:
    from loopserve_cli.demo.engine_reader import EngineReader
    from loopserve_cli.engine.loader import LoadedModel

FULL = "full"
BUDGETS = (128, 256, 512, 1024)


def with_a_budget() -> list[str]:
    """The shipped profiles whose decoding has a budget, after the one that leaves nothing out."""
    return [FULL, *(name for name in profile_names() if "budget" in load_profile(name).keep.settings)]


class Run:
    """What was asked and answered so far."""

    def __init__(self, options: argparse.Namespace, loaded: LoadedModel, asked: Callable[[Run, str], None]) -> None:
        """Nothing yet; `asked` hears after every turn, when all combinations got the same questions, where that was."""
        self.options = options
        self.loaded = loaded
        self.asked = asked
        self.questions: list[Question] = []
        self.combinations: list[Combination] = []

    def measure(self, length: int) -> None:
        """All dialogues of one length."""
        options = self.options
        found = combinations(options.profile, options.budgets, length)
        self.combinations += found
        readers = readers_by_prefill(found, self.loaded)
        any_reader = readers[0][0]
        for dialogue in range(options.dialogues):
            sizes = (options.turns, options.questions, options.others)
            for reader, _ in readers:
                reader.engine.reset()
            for turn, one in enumerate(rounds(options.seed, length, dialogue, *sizes, any_reader), 1):
                first = len(self.questions)
                self.questions += one.questions
                for reader, sharing in readers:
                    reader.engine.set_profile(sharing[0].profile)
                    reader.engine.feed(one.ids)
                    for combination in sharing:
                        ask(reader, combination, one.questions, first)
                self.asked(self, f"{length} tokens, dialogue {dialogue + 1}, turn {turn}")

    def full(self, length: int) -> Combination | None:
        """The combination that leaves nothing out, where it was measured."""
        return next((c for c in self.combinations if c.name == FULL and c.length == length), None)

    def to_json(self, command: str, versions: dict[str, str]) -> dict[str, Any]:
        """All questions and all counts."""
        return {
            "command": command,
            "model": self.options.model,
            "seed": self.options.seed,
            "versions": versions,
            "dialogues": {q.length: q.dialogue + 1 for q in self.questions},
            "short_answer_tokens": SHORT_ANSWER,
            "combinations": [c.to_json(self.full(c.length)) for c in self.combinations],
            "questions": [asdict(question) for question in self.questions],
        }


def readers_by_prefill(
    found: Sequence[Combination], loaded: LoadedModel
) -> list[tuple[EngineReader, list[Combination]]]:
    """One reader for each way of reading a dialogue, with the combinations that read it so."""
    from loopserve_cli.demo.engine_reader import EngineReader
    from loopserve_cli.engine.engine import Engine

    groups: dict[str, list[Combination]] = {}
    for combination in found:
        profile = combination.profile
        groups.setdefault(repr((profile.prefill, profile.retain)), []).append(combination)
    return [(EngineReader(Engine(loaded, sharing[0].profile), 1), sharing) for sharing in groups.values()]


def ask(reader: EngineReader, combination: Combination, questions: Sequence[Question], first: int) -> None:
    """Ask all of them under the combination's profile, each from the state that the reader is in."""
    reader.engine.set_profile(combination.profile)
    for number, question in enumerate(questions, first):
        combination.add(number, question, reader.ask(question.said, MOST_ANSWER_TOKENS))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="demo, or the folder of an exported model")
    parser.add_argument("--lengths", default="8192,16384", help="dialogue lengths in tokens")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="keys per head")
    parser.add_argument("--profile", action="append", default=[], help="default: full, and all that have a budget")
    parser.add_argument("--dialogues", type=int, default=8, help="dialogues per length")
    parser.add_argument("--turns", type=int, default=5, help="in how many turns a dialogue is read")
    parser.add_argument("--questions", type=int, default=6, help="facts asked for after every turn, where there are")
    parser.add_argument("--others", type=int, default=2, help="questions of each other kind after every turn")
    parser.add_argument("--seed", type=int, default=7001)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write everything to this file, anew after every turn")
    options = parser.parse_args(arguments)
    for name in ("lengths", "budgets"):
        text = getattr(options, name)
        try:
            setattr(options, name, [int(number) for number in text.split(",")])
        except ValueError:
            raise UsageError(f"--{name} {text!r} is not a list of numbers, for example 1024,2048") from None
    if min(options.lengths) < 256 * options.turns or min(options.dialogues, options.turns, options.questions) < 1:
        raise UsageError("--lengths must be at least 256 a turn; --dialogues, --turns and --questions at least 1")
    if options.others < 0:
        raise UsageError("--others must be at least 0")
    options.profile = list(dict.fromkeys(options.profile)) or with_a_budget()
    return options


def measure(options: argparse.Namespace, command: str) -> Run:
    """Measure and print; with --json every turn of a dialogue is kept as soon as it is done."""
    from loopserve_cli.config import ModelOptions
    from loopserve_cli.engine.loader import load
    from loopserve_cli.output import CleanConsole
    from loopserve_cli.stats import versions
    from loopserve_cli.transcript.write import write_whole

    found_versions = versions()
    out, err = CleanConsole(width=None if sys.stdout.isatty() else 200), CleanConsole(stderr=True)

    def keep(run: Run, place: str) -> None:
        err.print(f"{place}: {len(run.questions)} questions, {len(run.combinations)} combinations", markup=False)
        if options.json:
            document = json.dumps(run.to_json(command, found_versions), indent=1) + "\n"
            write_whole(options.json, document.encode(), overwrite=True)

    combinations(options.profile, options.budgets, 0)  # a wrong name or budget is said before a model is loaded
    measured = Run(options, load(ModelOptions(options.model, dtype="float32", device=options.device)), keep)
    for length in options.lengths:
        measured.measure(length)
    print_facts(measured.combinations, options.turns, out)
    print_others(measured.combinations, measured.full, out)
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options and measure; the exit code."""
    return run("loopserve_cli.demo.compression", arguments, lambda given, command: measure(parse(given), command))


if __name__ == "__main__":
    sys.exit(main())
