"""/cache: how many tokens of every past turn decoding still read, by layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.chat.columns import Column, fitting, table_of
from loopserve_cli.chat.commands.command import no_argument
from loopserve_cli.chat.figures import UNKNOWN, count, share
from loopserve_cli.chat.session import Session

# What a column of shares takes of the terminal, and what stands before them.
SHARE_WIDTH = 9
NAMES_WIDTH = 30


@dataclass(frozen=True, slots=True)
class TurnReads:
    """Of the `tokens` of one turn, or several, how many keys a head read at the last step, per layer; None: unknown."""

    name: str
    tokens: int
    by_layer: Sequence[float | None]

    @property
    def mean(self) -> float | None:
        """Over all layers."""
        return mean(self.by_layer)

    @property
    def unread(self) -> bool:
        """Whether no layer read any of them."""
        return not any(layer is None or layer > 0 for layer in self.by_layer)


def cache(session: Session, argument: str) -> None:
    """A row per turn. Where everything is read there is nothing to tell, and that is said."""
    no_argument(argument, "/cache")
    engine = session.conversation.engine
    held = len(engine.tokens)
    if not held:
        session.data(f"{UNKNOWN}: the cache is empty")
        return
    cuts = [*session.conversation.began(), held]
    read = engine.read_between(cuts)
    if read is None:
        session.data(f"{UNKNOWN}: nothing was decoded since the dialogue or the profile changed; ask something first")
        return
    if all(layer is None for layer in read):
        session.data(f"{UNKNOWN}: the last answer read every key of the {count(held)} tokens that are held")
        return
    turns = reads_by_turn(cuts, read, unknown=engine.freezes)
    width = session.out.width
    session.data(table_of(fitting(columns(turns, width), width)[0]))
    session.note("read: keys of each turn that a head read at the last step; shares by layers; all are means", True)


def reads_by_turn(cuts: list[int], read: Sequence[Sequence[float] | None], unknown: bool) -> list[TurnReads]:
    """The layers' counts turn by turn; a layer without any read all tokens, or is `unknown`."""
    turns = []
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        everything = None if unknown else float(last - first)
        by_layer = [everything if one is None else one[number] for one in read]
        turns.append(TurnReads(str(number + 1), last - first, by_layer))
    return turns


def folded(turns: list[TurnReads]) -> list[TurnReads]:
    """The same in fewer rows: turns in a row of which nothing is read are told together."""
    rows = []
    for unread, of in itertools.groupby(turns, lambda turn: turn.unread):
        together = list(of)
        if unread and len(together) > 1:
            name = f"{together[0].name}-{together[-1].name}"
            together = [TurnReads(name, sum(turn.tokens for turn in together), together[0].by_layer)]
        rows += together
    return rows


def columns(turns: list[TurnReads], width: int) -> list[Column]:
    """Rows of turns, and one for all: tokens, keys read, and shares by layers, or by ranges of them."""
    layers = len(turns[0].by_layer)
    sums = [[turn.by_layer[layer] for turn in turns] for layer in range(layers)]
    whole = TurnReads(
        "all",
        sum(turn.tokens for turn in turns),
        [sum(one for one in of if one is not None) if None not in of else None for of in sums],
    )
    rows = [*folded(turns), whole]
    shown = [
        Column("turn", [row.name for row in rows]),
        Column("tokens", [count(row.tokens) for row in rows]),
        Column("read", [keys(row.mean) for row in rows]),
        Column("share", [shared(row.mean, row.tokens) for row in rows]),
    ]
    for first, last in ranges(layers, max(1, (width - NAMES_WIDTH) // SHARE_WIDTH)):
        name = f"L{first}" if last == first else f"L{first}-{last}"
        cells = [shared(mean(row.by_layer[first : last + 1]), row.tokens) for row in rows]
        shown.append(Column(name, cells, rank=1 + first))
    return shown


def ranges(layers: int, most: int) -> list[tuple[int, int]]:
    """Layers in at most so many ranges of nearly the same length, first and last of each."""
    parts = min(layers, most)
    edges = [number * layers // parts for number in range(parts + 1)]
    return [(first, last - 1) for first, last in itertools.pairwise(edges)]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, unknown where one of them is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def keys(number: float | None) -> str:
    """A mean count of keys: with a digit behind the point where it is small and no whole number."""
    return count(number) if number is None or number >= 10 or number == round(number) else f"{number:.1f}"


def shared(part: float | None, tokens: int) -> str:
    """A share of so many tokens; a turn that holds none has no share."""
    return "0" if part == 0 else share(None if part is None or not tokens else part / tokens)
