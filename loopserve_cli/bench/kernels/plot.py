"""Speed-up as a picture. Only this module knows matplotlib, which is an extra: loopserve[plot]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]


def draw(summary: Sequence[Row], title: str, path: Path) -> None:
    """A PNG with a panel for each number of rows: gain over keys, or over density where there is one length only."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = sorted({row["keys"] for row in summary})
    # The largest shape's rows are "all": shapes that are square form one panel.
    panels: dict[str, list[Row]] = {}
    for row in summary:
        panels.setdefault("all rows" if row["rows"] == row["keys"] else f"{row['rows']:,} rows", []).append(row)
    figure = Figure(figsize=(5 * len(panels), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (name, rows) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), number + 1, title=name, xscale="log", yscale="log")
        if len(lengths) > 1:
            _over_keys(axes, rows)
        else:
            _over_density(axes, rows)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel("times faster than the best dense attention")
        axes.legend(fontsize="small")
    kinds = "solid: attention; dotted: with choosing and index; dashed: what attention cannot pass"
    figure.suptitle(f"{title}\n{kinds}", fontsize="medium")
    figure.savefig(path, dpi=120, format="png")


def _over_keys(axes: Axes, rows: Sequence[Row]) -> None:
    """A colour for each density."""
    keys = sorted({row["keys"] for row in rows})
    axes.set_xlabel("keys")
    axes.set_xticks(keys, [f"{number / 1024:g}k" for number in keys])
    axes.set_xticks([], minor=True)
    for number, density in enumerate(sorted({row["density"] for row in rows})):
        part = sorted((row for row in rows if row["density"] == density), key=lambda row: row["keys"])
        _lines(axes, [row["keys"] for row in part], part, f"C{number}", f"{density * 100:.3g}% of the entries")


def _over_density(axes: Axes, rows: Sequence[Row]) -> None:
    part = sorted(rows, key=lambda row: row["executed"])
    shares = [row["executed"] for row in part]
    axes.set_xlabel("share of the entries")
    axes.set_xticks(shares, [f"{share:.1%}" for share in shares])
    axes.set_xticks([], minor=True)
    _lines(axes, shares, part, "C0", f"{part[0]['keys']:,} keys")


def _lines(axes: Axes, places: Sequence[float], rows: Sequence[Row], colour: str, label: str) -> None:
    """Medians with their spread as bars, and the ceiling."""
    for name, style, text in (("attend_gain", "-", label), ("total_gain", ":", None)):
        middle = [row[name]["median"] for row in rows]
        below = [row[name]["median"] - row[name]["low"] for row in rows]
        above = [row[name]["high"] - row[name]["median"] for row in rows]
        axes.errorbar(
            places, middle, [below, above], linestyle=style, color=colour, marker="o", markersize=3, label=text
        )
    ceiling = [row["attend_ceiling"]["median"] for row in rows]
    axes.plot(places, ceiling, linestyle="--", linewidth=0.8, color=colour, alpha=0.6)
