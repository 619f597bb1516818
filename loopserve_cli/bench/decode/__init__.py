"""`loopserve bench decode`: what an output token costs at several lengths, beside what memory's bandwidth allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from loopserve_cli.bench.decode.options import DecodeOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import PolicyOptions, Profile, load_profile

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine


def run_decode(options: DecodeOptions) -> int:
    """Time the profiles, print what was found; the exit status.

    Raises UsageError when a length does not fit into the model's context or a profile cannot be timed, ModelError
    while loading, LoopserveError when memory runs out.
    """
    from loopserve_cli.engine.names import require

    require(options.model.model)  # before torch, which takes longer than seeing that a name is mistyped

    from loopserve_cli.bench.decode.bound import bound_of
    from loopserve_cli.bench.decode.rounds import time_answers
    from loopserve_cli.bench.decode.summary import summarise
    from loopserve_cli.bench.decode.tables import print_tables
    from loopserve_cli.bench.text import made_up
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import load
    from loopserve_cli.environment import measuring
    from loopserve_cli.measure.document import command_of, whole_run
    from loopserve_cli.output import print_document, teller

    say = teller()
    profiles = decoding_profiles(options.profiles)
    loaded = replace(load(options.model, say), stop_ids=frozenset())
    ids = made_up(loaded, max(options.tokens), 0)
    engines = [Engine(loaded, profile) for profile in profiles]
    check_steps(engines, options.new_tokens)
    say("measuring the bandwidth of a copy")
    bound = bound_of(loaded)
    with measuring(engines[0].device, engines[0].dtype) as environment:
        answers = time_answers(engines, ids, options.tokens, options.new_tokens, options.rounds, say)
    summary = summarise(answers, [profile.name for profile in profiles], bound)
    records = [answer.as_document() for answer in answers]
    whole = whole_run(command_of("bench decode", options), environment, records, summary, bound=asdict(bound))
    if options.json:
        print_document(whole)
    else:
        where = f"{options.model.model}, {environment['dtype']} on {environment['device']}"
        print_tables(whole, f"an answer of {options.new_tokens}, {options.rounds} rounds, {where}")
    return 0


def decoding_profiles(names: Sequence[str]) -> list[Profile]:
    """The profiles with dense prefill, which nobody times here.

    Raises UsageError for two of one name, and for one that evicts: no answer of it can be taken back for another round.
    """
    profiles = [replace(load_profile(name), prefill=PolicyOptions("dense")) for name in names]
    called = [profile.name for profile in profiles]
    for profile in profiles:
        if called.count(profile.name) > 1:
            raise UsageError(f"two profiles are called {profile.name!r}; rename a profile's file")
        if profile.retain["tier"] == "evict":
            raise UsageError(f"profile {profile.name} evicts, so it cannot answer the same again; take another tier")
    return profiles


def check_steps(engines: Sequence[Engine], new_tokens: int) -> None:
    """Refuse answers that end before keys were chosen; raises UsageError."""
    from loopserve_cli.bench.decode.rounds import open_steps

    for engine in engines:
        if new_tokens - 1 <= open_steps(engine):
            raise UsageError(
                f"--new-tokens {new_tokens} is too few: {engine.profile.name} reads everything for "
                f"{open_steps(engine)} steps; give at least {open_steps(engine) + 2}"
            )


__all__ = ["DecodeOptions", "run_decode"]
