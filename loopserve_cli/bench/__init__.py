"""Benchmarks: our engine timed against other ways to run the same model."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from loopserve_cli.config import ModelOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile, profile_names

RIVALS = ("transformers",)


@dataclass(frozen=True, slots=True)
class TurnsOptions:
    """What `loopserve bench turns` was asked for.

    `profile` is ours; `against` is "transformers", or another profile in the same engine.
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
    profile: str = "full"

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        rivals = (*RIVALS, *profile_names())
        if self.against.partition("+")[0] not in rivals and not self.against.endswith(".toml"):
            raise UsageError(f"unknown --against {self.against!r}; choose one of {', '.join(rivals)}")
        for name, low in {"tokens": 1, "new_tokens": 2, "rounds": 1, "turns": 1}.items():
            if getattr(self, name) < low:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {getattr(self, name)}, but must be at least {low}")
        if self.tokens < self.turns:
            raise UsageError(f"--tokens {self.tokens} is too few for --turns {self.turns}; each needs one at least")


def run_turns(options: TurnsOptions) -> int:
    """Time our engine under a profile and its rival, round by round in turn; the exit status.

    1 when the greedy tokens differ although both sides attend to everything and the model computes in float32,
    where they must not: then the two did not do the same work. In half precision near ties may part, and a sparse
    profile may answer otherwise; it is said, and the status is 0.
    Raises UsageError when the dialogue does not fit into the model's context, ModelError while loading.
    """
    from rich.console import Console

    from loopserve_cli.bench.rounds import ANSWER_TOKENS, time_rounds
    from loopserve_cli.bench.tables import print_tables
    from loopserve_cli.bench.timing import OURS, summarise
    from loopserve_cli.bench.variants import open_contest
    from loopserve_cli.collector import settled
    from loopserve_cli.environment import describe, load_average
    from loopserve_cli.output import print_document

    console = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False, soft_wrap=True)

    answers = options.turns * min(options.new_tokens, ANSWER_TOKENS)
    profile = load_profile(options.profile)
    rival = None if options.against in RIVALS else load_profile(options.against)
    contest = open_contest(options.model, profile, rival, options.tokens, options.new_tokens, answers, say)
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
        ours = "" if profile.name == "full" else f"{OURS} is {profile.name}, "
        where = f"{ours}{options.model.model}, {contest.dtype} on {contest.device}, {options.rounds} rounds"
        print_tables(summary, f"{options.tokens:,} tokens in, {options.new_tokens} out: {where}")
    differs = summary["first_difference"] is not None
    return 1 if differs and contest.exact and contest.dtype == "float32" else 0
