"""Benchmarks: our engine timed against other ways to run the same model."""

from __future__ import annotations

from dataclasses import asdict

from loopserve_cli.bench.options import FIRST_PROFILE, OURS, TurnsOptions
from loopserve_cli.profile import load_profile


def run_turns(options: TurnsOptions) -> int:
    """Time our engine and its rivals, round by round in turn; the exit status.

    1 when the greedy tokens of two that attend to everything differ although the model computes in float32, where
    they must not: then the two did not do the same work. In half precision near ties may part, and a sparse
    profile may answer otherwise; it is said, and the status is 0.
    Raises UsageError when the dialogue does not fit into the model's context, ModelError while loading.
    """
    from loopserve_cli.engine.names import require

    require(options.model.model)  # before torch, which takes longer than seeing that a name is mistyped
    from loopserve_cli.bench.comparison import open_comparison
    from loopserve_cli.bench.comparison_tables import print_comparison
    from loopserve_cli.bench.forms import best_form
    from loopserve_cli.bench.summary import (
        as_document,
        first_difference,
        summarise,
        verdicts_of,
        verdicts_on_ours,
        with_agreement,
    )
    from loopserve_cli.bench.tables import print_tables
    from loopserve_cli.environment import measuring
    from loopserve_cli.measure.document import command_of, whole_run
    from loopserve_cli.output import print_document, teller

    say = teller()
    comparison = open_comparison(options, say)
    with measuring(comparison.device, comparison.dtype) as environment:
        turns = with_agreement(comparison.run(options, say), comparison.full)
    exact = [turn for turn in turns if turn.record.profile in comparison.exact]
    differs = first_difference(exact, comparison.exact[0]) if exact else None
    summary = summarise(turns, comparison.order)
    if options.profiles:
        summary |= {"exact": list(comparison.exact), "exact_difference": differs}
    talk = [turn.record for turn in turns if turn.record.conversation_id == "dialogue"]
    found = (verdicts_of if options.profiles else verdicts_on_ours)(talk, comparison.order)
    summary["verdicts"] = [asdict(verdict) for verdict in found]
    summary["generate"] = best_form(turns, comparison.variants)
    if options.json:
        command = command_of("bench turns", options)
        print_document(whole_run(command, environment, map(as_document, turns), summary))
    else:
        where = f"{options.model.model}, {comparison.dtype} on {comparison.device}, {options.rounds} rounds"
        (print_comparison if options.profiles else print_tables)(summary, title_of(options, where))
    return 1 if differs is not None and comparison.dtype == "float32" else 0


def title_of(options: TurnsOptions, where: str) -> str:
    """What is timed, in a line."""
    if options.profiles:
        return f"{options.dialogue} dialogue, {options.new_tokens} tokens out: {where}"
    ours = "" if options.profile == FIRST_PROFILE else f"{OURS} is {load_profile(options.profile).name}, "
    return f"{options.tokens:,} tokens in, {options.new_tokens} out: {ours}{where}"


__all__ = ["TurnsOptions", "run_turns"]
