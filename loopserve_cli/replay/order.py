"""The order in which one process runs a replay; see `runner`. Records stand in it, whoever ran them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loopserve_cli.config import ReplayOptions
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.reference import full_of
from loopserve_cli.measure.rounds import rotated
from loopserve_cli.replay.script import Script


def in_order(turns: Iterable[Measured], options: ReplayOptions, scripts: Sequence[Script]) -> list[Measured]:
    """The turns by repeat, dialogue, variant and number, as one process measures them."""
    indices = {script.id: index for index, script in enumerate(scripts)}
    full = full_of(options.profiles)
    # By the repeat, where it is the first one, and who goes first: a few, however many dialogues there are.
    orders: dict[tuple[bool, int], list[str]] = {}

    def order_of(repeat: int, index: int) -> list[str]:
        which = repeat == 1, (repeat - 1 + index) % len(options.names)
        if which not in orders:
            orders[which] = rotated(options.names, which[1])
            if full is not None and repeat == 1:
                orders[which].sort(key=lambda name: name != full.name)
        return orders[which]

    def place(turn: Measured) -> tuple[int, int, int, int]:
        record = turn.record
        repeat, index = record.repeat or 0, indices[record.conversation_id or ""]
        return repeat, index, order_of(repeat, index).index(record.profile or ""), record.turn or 0

    return sorted(turns, key=place)
