"""Tri-shape: A-shape whose last rows see everything, so that the question reads the whole dialogue.

Source: SCBench (arXiv 2412.10319).
"""

from __future__ import annotations

from loopserve_cli.policies.prefill.a_shape import AShape


class TriShape(AShape):
    """A-shape, with the turn's last `dense_rows` rows dense."""

    def __init__(self, dense_rows: int, **widths: int | float) -> None:
        """A-shape's settings, and how many rows at the end are dense."""
        super().__init__(**widths)  # type: ignore[arg-type]
        self.dense_rows = dense_rows
