"""The order in which one process runs a replay; see `runner`. Records stand in it, whoever ran them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loopserve_cli.measure.reference import full_of
from loopserve_cli.profile import Profile
from loopserve_cli.replay.agreement import Measured
from loopserve_cli.replay.script import Script


def rotated(profiles: Sequence[Profile], by: int) -> list[Profile]:
    """The profiles, starting `by` places further on."""
    start = by % len(profiles)
    return [*profiles[start:], *profiles[:start]]


def order_of(profiles: Sequence[Profile], repeat: int, index: int) -> list[Profile]:
    """The profiles as they go over the dialogue of that index in that repeat, the reference first in the first one."""
    order = rotated(profiles, repeat - 1 + index)
    if repeat == 1:
        full = full_of(profiles)
        order.sort(key=lambda profile: profile is not full)
    return order


def in_order(turns: Iterable[Measured], profiles: Sequence[Profile], scripts: Sequence[Script]) -> list[Measured]:
    """The turns by repeat, dialogue, profile and number, as one process measures them."""
    indices = {script.id: index for index, script in enumerate(scripts)}
    # Profiles rotate, so there are as many orders as profiles, and that of the first repeat.
    places: dict[tuple[bool, int], dict[str, int]] = {}

    def place(turn: Measured) -> tuple[int, int, int, int]:
        record = turn.record
        repeat, index = record.repeat or 0, indices.get(record.conversation_id or "", len(indices))
        kind = repeat == 1, (repeat + index) % len(profiles)
        if kind not in places:
            places[kind] = {profile.name: n for n, profile in enumerate(order_of(profiles, repeat, index))}
        return repeat, index, places[kind].get(record.profile or "", len(profiles)), record.turn or 0

    return sorted(turns, key=place)
