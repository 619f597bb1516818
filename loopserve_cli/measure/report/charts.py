"""The figures, without their data: axes, units, and how each profile's line looks. Drawn by plotly, offline."""

from __future__ import annotations

import functools
from typing import Any

from loopserve_cli.measure.report.by_head import Share
from loopserve_cli.measure.report.by_turn import Measure
from loopserve_cli.measure.report.marks import Mark
from loopserve_cli.measure.report.packed import Packed

HEIGHT = 300
SHORTEST_HEAT, TALLEST_HEAT, LAYER_HEIGHT = 220, 640, 18
AROUND = 96  # pixels above and below a heat map's cells


@functools.cache  # compressing it takes longer than all the rest of a page
def library() -> Packed:
    """The code that draws, as it stands in the page."""
    from plotly.offline import get_plotlyjs

    return Packed.of(get_plotlyjs())


def line_chart(measure: Measure, marks: list[Mark]) -> dict[str, Any]:
    """A measure over the turns: a line with markers and error bars for each profile."""
    import plotly.graph_objects as go

    lines = [
        go.Scatter(
            mode="lines+markers",
            line={"color": mark.colour, "dash": mark.dash, "width": 2},
            marker={"color": mark.colour, "symbol": mark.symbol, "size": 8},
            error_y={"type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": mark.faint},
            hovertemplate="%{customdata}<extra></extra>",
        )
        for mark in marks
    ]
    layout = _layout(HEIGHT) | {"hovermode": "closest", "dragmode": False}
    layout["xaxis"] = _axis("turn") | {"tick0": 0}
    layout["yaxis"] = _axis(measure.axis) | {"rangemode": "tozero", "tickformat": ",~g"}
    return _plain(go.Figure(lines, layout))


def heat_map(share: Share, layers: int) -> dict[str, Any]:
    """A share of every head in percent, layers from the top down; the page knows from what to what it ranges."""
    import plotly.graph_objects as go

    height = max(SHORTEST_HEAT, min(TALLEST_HEAT, AROUND + LAYER_HEIGHT * layers))
    cells = go.Heatmap(
        colorscale="Cividis",
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": f"{share.title} (%)", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="%{customdata}<extra></extra>",
    )
    layout = _layout(height) | {"dragmode": False}
    layout["xaxis"] = _axis(share.heads) | {"showgrid": False}
    layout["yaxis"] = _axis("layer") | {"autorange": "reversed", "showgrid": False, "type": "category"}
    return _plain(go.Figure(cells, layout))


def _layout(height: int) -> dict[str, Any]:
    """What all figures share; colours of text and grid are the page's, which knows whether it is dark."""
    return {
        "template": {},
        "height": height,
        "showlegend": False,
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }


def _axis(title: str) -> dict[str, Any]:
    return {"title": {"text": title, "standoff": 8}, "automargin": True, "fixedrange": False, "zeroline": False}


def _plain(figure: Any) -> dict[str, Any]:
    found: dict[str, Any] = figure.to_plotly_json()
    return {"data": list(found["data"]), "layout": found["layout"]}
