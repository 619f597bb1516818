"""`loopserve doctor`: what this machine has, what fits, and what to do about what is missing."""

from __future__ import annotations

from loopserve_cli.doctor.report import run

__all__ = ["run"]
