"""A verdict in words, for 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from loopserve_cli.measure.figures import NO_DIFFERENCE, UNKNOWN, bounds, fine, times
from loopserve_cli.measure.ratio import Ratio
from loopserve_cli.measure.verdict import Verdict

WIDTH = 80
NARROWEST = 20


def verdict_lines(verdicts: Iterable[Verdict], width: int = WIDTH) -> list[str]:
    """A sentence for each profile that is compared, folded between words to 80 columns, or `width` if that is less."""
    room = max(NARROWEST, min(width, WIDTH))
    return [
        line
        for verdict in verdicts
        if verdict.against is not None
        for line in textwrap.wrap(sentence(verdict), room, subsequent_indent="  ", break_on_hyphens=False)
    ]


def sentence(verdict: Verdict) -> str:
    """What the profile gains, reads and answers; what is not known is left out, but for the two times."""
    parts = [
        f"first token {gained(verdict.first_token, verdict.ceiling)}",
        f"next tokens {gained(verdict.next_tokens)}",
    ]
    if verdict.keys_read is not None and verdict.keys_stored is not None:
        parts.append(f"cache read {verdict.keys_read:,.0f} of {verdict.keys_stored:,.0f} keys")
    if verdict.kl_mean is not None:
        parts.append(f"KL {fine(verdict.kl_mean)}")
    if verdict.same_answers is not None:
        parts.append(f"same answers {verdict.same_answers} of {verdict.answers}")
    return f"{verdict.profile} against {verdict.against}: {', '.join(parts)}"


def gained(ratio: Ratio | None, ceiling: float | None = None) -> str:
    """A ratio with its interval, what it shows where that is nothing, and its ceiling where one is known."""
    if ratio is None:
        return UNKNOWN
    said = [bounds(ratio)]
    if ratio.no_difference:
        said.append(NO_DIFFERENCE)
    if ceiling is not None:
        said.append(f"ceiling {times(ceiling)}")
    return f"{times(ratio.ratio)} ({'; '.join(said)})"
