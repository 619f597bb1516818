"""Comparisons on a console."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from loopserve_cli.measure.compare.comparison import Comparison
from loopserve_cli.measure.compare.lines import comparison_lines, context_lines
from loopserve_cli.measure.compare.table import comparison_markdown, comparison_table


def show(comparisons: Iterable[Comparison], output: Console, markdown: bool = False) -> None:
    """Each comparison: its sentences first and last, between them what is not the same, and every figure."""
    for place, comparison in enumerate(comparisons):
        if place:
            output.print()
        if markdown:
            output.print(comparison_markdown(comparison), end="", soft_wrap=True)
            continue
        lines = comparison_lines(comparison, output.width)
        for line in lines:
            output.print(line, style="bold", soft_wrap=True)
        for line in context_lines(comparison, output.width):
            output.print(line, style="yellow" if line.startswith("warning") else "dim", soft_wrap=True)
        if comparison.changes:
            output.print(comparison_table(comparison))
            for line in lines:
                output.print(line, style="bold", soft_wrap=True)
