"""How profiles are told apart in every figure: by colour, and without it by a line's dashes and its markers."""

from __future__ import annotations

from dataclasses import dataclass

# On white and on the dark page each has a contrast of 3 or more (WCAG 2.2, 1.4.11); tests/test_report.py counts it.
COLOURS = ("#2f7de1", "#d9622b", "#12966a", "#b452c9", "#a8800f", "#dd3f7d", "#168ea8", "#7b8494")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# Names of the library's markers, and each as a path around 0, 0.
SYMBOLS = {
    "circle": "M4,0A4,4 0 1,1 -4,0A4,4 0 1,1 4,0Z",
    "square": "M-3.6,-3.6H3.6V3.6H-3.6Z",
    "diamond": "M0,-5L5,0L0,5L-5,0Z",
    "triangle-up": "M0,-4.6L4.4,3.4H-4.4Z",
    "cross": "M-4.5,-1.5H-1.5V-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5Z",
    "triangle-down": "M0,4.6L4.4,-3.4H-4.4Z",
    "star": "M0,-5L1.2,-1.6H4.8L1.9,0.6L2.9,4L0,1.9L-2.9,4L-1.9,0.6L-4.8,-1.6H-1.2Z",
}
FAINT = 0.6
STROKES = {"solid": "", "dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "10 4"}


@dataclass(frozen=True, slots=True)
class Mark:
    """One profile's look: `dash` and `symbol` are the library's names, `stroke` and `path` the same in SVG."""

    colour: str
    dash: str
    symbol: str

    @property
    def faint(self) -> str:
        """The colour of what lies behind other lines: error bars."""
        red, green, blue = (int(self.colour[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red},{green},{blue},{FAINT})"

    @property
    def stroke(self) -> str:
        """Lengths of dashes and gaps."""
        return STROKES[self.dash]

    @property
    def path(self) -> str:
        """The marker's outline."""
        return SYMBOLS[self.symbol]


def mark(number: int) -> Mark:
    """The look of a run's profile of that number: 280 of them differ."""
    symbols = list(SYMBOLS)
    return Mark(COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)], symbols[number % len(symbols)])
