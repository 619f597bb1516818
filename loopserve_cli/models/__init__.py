"""`loopserve models`: which models are at hand, how large they are, and which fit."""

from __future__ import annotations

from loopserve_cli.models.report import run

__all__ = ["run"]
