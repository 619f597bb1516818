"""Chosen lines as tables and pictures: of all layers, of one layer's heads, and of one head."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loopserve_cli.chat.columns import Column, fitting, table_of
from loopserve_cli.chat.figures import UNKNOWN, count, share
from loopserve_cli.chat.matrix import Matrix, Pixel, half_blocks
from loopserve_cli.chat.png import grey_png
from loopserve_cli.errors import UsageError

if TYPE_CHECKING:
    from loopserve_cli.policies.prefill import ChosenLines
    from loopserve_cli.policies.prefill.chosen import HeadChoice

# Lines of the terminal that stand around a drawing.
AROUND = 8
MOST_PIXELS = 768
# A picture's grey where no key is seen: the future.
FUTURE = 232


def heading(found: ChosenLines, began: list[int]) -> str:
    """Which prefill it is about, by its last chunk: its rows, and their turns, which `began` after so many tokens."""
    first = found.keys - found.new
    turns = [sum(one <= row for one in began) for row in (first, found.keys - 1)]
    of = f"turn {turns[0]}" if turns[0] == turns[1] else f"turns {turns[0]} to {turns[1]}"
    return f"{of}, rows {count(first)} to {count(found.keys - 1)} over {count(found.keys)} keys"


def layers(found: ChosenLines, width: int) -> Table:
    """A row per layer: dense heads, and of the others how many lines they chose; density over all of its heads."""
    of = [found.choices(layer) for layer in range(found.layers)]
    counts = [sorted(head.lines for head in heads if not head.dense) for heads in of]
    return table_of(
        fitting(
            [
                Column("layer", [str(number) for number in range(found.layers)]),
                Column("dense heads", [f"{sum(head.dense for head in heads)} of {len(heads)}" for heads in of]),
                Column("lines min", [count(one[0] if one else None) for one in counts], 2),
                Column("median", [count(statistics.median(one) if one else None) for one in counts], 1),
                Column("max", [count(one[-1] if one else None) for one in counts], 2),
                Column("density", [share(statistics.fmean(head.density for head in heads)) for heads in of]),
                Column("covers", [_coverage(heads) for heads in of], 3),
            ],
            width,
        )[0]
    )


def heads(found: ChosenLines, layer: int, width: int) -> Table:
    """A row per query head of a layer."""
    of = found.choices(layer)
    return table_of(
        fitting(
            [
                Column("head", [str(number) for number in range(len(of))]),
                Column("vertical", [UNKNOWN if head.dense else count(head.verticals) for head in of]),
                Column("slash", [UNKNOWN if head.dense else count(head.slashes) for head in of]),
                Column("density", [share(head.density) for head in of]),
                Column("covers", [share(head.coverage) for head in of], 1),
                Column("", [_dense(head) for head in of], 2, left=True),
            ],
            width,
        )[0]
    )


def drawing(found: ChosenLines, layer: int, head: int, width: int, height: int) -> RenderableType:
    """A head's lines in half blocks, for a terminal of `width` columns and `height` lines."""
    choice = found.choices(layer)[head]
    if choice.dense:
        return Text(f"layer {layer}, head {head}: {_dense(choice)}, so there are no lines to draw")
    tall = max(4, min(2 * (height - AROUND), round(width * found.new / found.keys)))
    drawn = half_blocks(_matrix(found, layer, head).pixels(width, tall))
    last = f"key {count(found.keys - 1)}"
    scale = "key 0" + last.rjust(max(0, min(width, found.keys) - len("key 0")))
    return Group(
        Text(
            f"layer {layer}, head {head}: {count(choice.verticals)} vertical and {count(choice.slashes)} slash lines, "
            f"density {share(choice.density)}, covers {share(choice.coverage)}"
        ),
        *(Text(line, no_wrap=True) for line in drawn),
        Text(scale),
        Text("rows go down; filled: verticals or slashes as close together as on average, or closer", style="dim"),
    )


def picture(found: ChosenLines, layer: int, head: int) -> bytes:
    """A head's lines as a PNG, the darker the more of a spot's cells lie on them; raises UsageError where it is dense.

    Shares are drawn by their square root, so that a line of its own in a large matrix is seen.
    """
    choice = found.choices(layer)[head]
    if choice.dense:
        raise UsageError(f"layer {layer}, head {head}: {_dense(choice)}, so there are no lines to draw")
    width = min(MOST_PIXELS, found.keys)
    tall = max(1, round(width * found.new / found.keys))
    pixels = _matrix(found, layer, head).pixels(width, tall)
    return grey_png([bytes(map(_grey, row)) for row in pixels])


def _grey(pixel: Pixel | None) -> int:
    return FUTURE if pixel is None else round(255 * (1 - pixel.either**0.5))


def _matrix(found: ChosenLines, layer: int, head: int) -> Matrix:
    vertical, slash = found.lines_of(layer, head)
    return Matrix(vertical, slash, found.new, found.keys)


def _coverage(heads: list[HeadChoice]) -> str:
    known = [head.coverage for head in heads if head.coverage is not None]
    return share(statistics.fmean(known)) if len(known) == len(heads) else UNKNOWN


def _dense(head: HeadChoice) -> str:
    """Why a head is dense; nothing for one that is not."""
    if not head.dense:
        return ""
    return "dense: lines would have cost as much" if head.asked else "dense: not asked, nothing was found before"
