"""Launches and waits on the meta device, as the product itself counts them."""

from __future__ import annotations

from loopserve_cli.bench.device.counting import Counted, copies, counted, free

__all__ = ["Counted", "copies", "counted", "free"]
