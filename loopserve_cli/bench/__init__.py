"""Benchmarks: our engine timed against other ways to run the same model."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from loopserve_cli.config import ModelOptions
from loopserve_cli.errors import UsageError

RIVALS = ("transformers",)


@dataclass(frozen=True, slots=True)
class TurnsOptions:
    """What `loopserve bench turns` was asked for.

    `tokens` is the prompt's length, `new_tokens` the answer's, `rounds` how often each variant runs.
    The same `tokens` are then said again in a dialogue of `turns` equal turns.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    against: str = "transformers"
    tokens: int = 16384
    new_tokens: int = 64
    rounds: int = 5
    turns: int = 4
    json: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        if self.against not in RIVALS:
            raise UsageError(f"unknown --against {self.against!r}; choose one of {', '.join(RIVALS)}")
        for name, low in {"tokens": 1, "new_tokens": 2, "rounds": 1, "turns": 1}.items():
            if getattr(self, name) < low:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {getattr(self, name)}, but must be at least {low}")
        if self.tokens < self.turns:
            raise UsageError(f"--tokens {self.tokens} is too few for --turns {self.turns}; each needs one at least")


def run_turns(options: TurnsOptions) -> int:
    """Time full attention of our engine and of transformers' `generate`, round by round in turn; the exit status.

    1 when the greedy tokens differ although the model computes in float32, where they must not: then the
    two did not do the same work. In half precision near ties may part; it is said, and the status is 0.
    Raises UsageError when the dialogue does not fit into the model's context, ModelError while loading.
    """
    from rich.console import Console

    from loopserve_cli.bench.rounds import ANSWER_TOKENS, time_rounds
    from loopserve_cli.bench.tables import print_tables
    from loopserve_cli.bench.timing import summarise
    from loopserve_cli.bench.variants import open_contest
    from loopserve_cli.collector import settled
    from loopserve_cli.environment import describe, load_average
    from loopserve_cli.output import print_document

    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False, soft_wrap=True)

    answers = options.turns * min(options.new_tokens, ANSWER_TOKENS)
    contest = open_contest(options.model, options.tokens, options.new_tokens, answers, say)
    environment = describe(contest.device) | {"dtype": contest.dtype}
    sizes = (options.new_tokens, options.turns, options.rounds)
    with settled():
        timings = time_rounds(contest.variants, contest.prompt, *sizes, say)
    environment["loadavg_end"] = load_average()
    summary = summarise(timings)
    whole: dict[str, Any] = {
        "command": {"name": "bench turns", "argv": sys.argv[1:], "options": asdict(options)},
        "environment": environment,
        "records": [asdict(timing) for timing in timings],
        "summary": summary,
    }
    if options.json:
        print_document(whole)
    else:
        where = f"{options.model.model}, {contest.dtype} on {contest.device}, {options.rounds} rounds"
        print_tables(summary, f"{options.tokens:,} tokens in, {options.new_tokens} out: {where}")
    differs = summary["first_difference"] is not None
    return 1 if differs and contest.dtype == "float32" else 0
