"""Benchmarks: our engine timed against other ways to run the same model."""

from __future__ import annotations

from collections.abc import Callable

from loopserve_cli.bench.options import RIVALS, TurnsOptions
from loopserve_cli.profile import load_profile

Say = Callable[[str], None]


def run_turns(options: TurnsOptions) -> int:
    """Time our engine and its rivals, round by round in turn; the exit status.

    1 when the greedy tokens of two that attend to everything differ although the model computes in float32, where
    they must not: then the two did not do the same work. In half precision near ties may part, and a sparse
    profile may answer otherwise; it is said, and the status is 0.
    Raises UsageError when the dialogue does not fit into the model's context, ModelError while loading.
    """
    from loopserve_cli.engine.names import require

    require(options.model.model)  # before torch, which takes longer than seeing that a name is mistyped
    from loopserve_cli.output import CleanConsole

    console = CleanConsole(stderr=True)

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False, soft_wrap=True)

    return compare(options, say) if options.profiles else contend(options, say)


def contend(options: TurnsOptions, say: Say) -> int:
    """One profile against one rival."""
    from loopserve_cli.bench.contest import open_contest
    from loopserve_cli.bench.document import document
    from loopserve_cli.bench.forms import best_form
    from loopserve_cli.bench.rounds import ANSWER_TOKENS, time_rounds
    from loopserve_cli.bench.tables import print_tables
    from loopserve_cli.bench.timing import OURS, summarise, with_agreement
    from loopserve_cli.collector import settled
    from loopserve_cli.environment import describe, load_average
    from loopserve_cli.output import print_document

    assert options.against is not None and options.tokens is not None
    answers = options.turns * min(options.new_tokens, ANSWER_TOKENS)
    profile = load_profile(options.profile)
    rival = None if options.against in RIVALS else load_profile(options.against)
    asked = (options.tokens, options.new_tokens, answers)
    contest = open_contest(options.model, profile, rival, *asked, say, options.compile)
    environment = describe(contest.device) | {"dtype": contest.dtype}
    sizes = (options.new_tokens, options.turns, options.rounds)
    with settled():
        timings = with_agreement(time_rounds(contest.variants, contest.prompt, *sizes, say), contest.full)
    environment["loadavg_end"] = load_average()
    summary = summarise(timings) | {"generate": best_form(timings, contest.variants)}
    if options.json:
        print_document(document(options, environment, timings, summary))
    else:
        ours = "" if profile.name == "full" else f"{OURS} is {profile.name}, "
        where = f"{ours}{options.model.model}, {contest.dtype} on {contest.device}, {options.rounds} rounds"
        print_tables(summary, f"{options.tokens:,} tokens in, {options.new_tokens} out: {where}")
    differs = summary["first_difference"] is not None
    return 1 if differs and contest.exact and contest.dtype == "float32" else 0


def compare(options: TurnsOptions, say: Say) -> int:
    """All profiles asked for, and transformers where it was, side by side."""
    from loopserve_cli.bench.comparison import open_comparison, profiles_compared
    from loopserve_cli.bench.comparison_tables import print_comparison
    from loopserve_cli.bench.document import document
    from loopserve_cli.bench.forms import best_form
    from loopserve_cli.bench.timing import first_difference, summarise, with_agreement
    from loopserve_cli.collector import settled
    from loopserve_cli.environment import describe, load_average
    from loopserve_cli.measure.reference import FULL
    from loopserve_cli.output import print_document

    comparison = open_comparison(options, profiles_compared(options), say)
    environment = describe(comparison.device) | {"dtype": comparison.dtype}
    with settled():
        timings = with_agreement(comparison.run(options, say), FULL)
    environment["loadavg_end"] = load_average()
    exact = [timing for timing in timings if timing.variant in comparison.exact]
    differs = first_difference(exact, comparison.exact[0]) if exact else None
    summary = summarise(timings, comparison.order) | {"exact": list(comparison.exact), "exact_difference": differs}
    summary["generate"] = best_form(timings, comparison.variants)
    if options.json:
        print_document(document(options, environment, timings, summary))
    else:
        where = f"{options.model.model}, {comparison.dtype} on {comparison.device}, {options.rounds} rounds"
        print_comparison(summary, f"{options.dialogue} dialogue, {options.new_tokens} tokens out: {where}")
    return 1 if differs is not None and comparison.dtype == "float32" else 0


__all__ = ["TurnsOptions", "run_turns"]
