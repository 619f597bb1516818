"""What an engine is at now: memory, keys and values, and what the turn under way has chosen. Plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopserve_cli.engine.dialogue_state import DialogueState
    from loopserve_cli.memory_meter import Meter
    from loopserve_cli.policies.prefill import PrefillTurn
    from loopserve_cli.policies.prefill.report import PrefillReport


@dataclass(frozen=True, slots=True)
class Gauges:
    """Figures of this moment; None is unknown, or not known without waiting for a GPU.

    The kv_used bytes hold `tokens` tokens, the kv_store bytes are allocated. density, coverage, the lines and
    select_ms are of the newest prefill, as far as it has come; keys_read, reselections and the working set of the
    newest decoding.
    """

    tokens: int
    kv_used_device_bytes: int | None = None
    kv_used_host_bytes: int | None = None
    kv_store_device_bytes: int | None = None
    kv_store_host_bytes: int | None = None
    working_set_bytes: int | None = None
    keys_stored: int | None = None
    keys_read: int | None = None
    reselections: int | None = None
    reselect_ms: float | None = None
    density: float | None = None
    coverage: float | None = None
    lines_vertical: float | None = None
    lines_slash: float | None = None
    select_ms: float | None = None
    allocated_device_bytes: int | None = None
    reserved_device_bytes: int | None = None
    peak_device_bytes: int | None = None
    total_device_bytes: int | None = None
    gpu_busy: float | None = None
    rss_bytes: int | None = None
    total_host_bytes: int | None = None


class PrefillFigures:
    """The newest turn's prefill: what it has chosen so far, and whether that was all."""

    def __init__(self, prefill: PrefillTurn | None = None) -> None:
        """Nothing is fed yet."""
        self.prefilled = False
        self._prefill = prefill
        self._chosen: PrefillReport | None = None

    def chosen(self, meter: Meter) -> PrefillReport | None:
        """The prefill's figures so far; on a GPU, which would have to be waited for, once it is done."""
        if self._prefill is None or (meter.gpus and not self.prefilled):
            return None
        chosen = self._chosen or self._prefill.report()
        self._chosen = chosen if self.prefilled else None
        return chosen


def gauges_of(state: DialogueState, meter: Meter, chosen: PrefillReport | None) -> Gauges:
    """The gauges of what is held. Of decoding on a GPU nothing is read that it would have to be waited for."""
    store, decode, memory = state.store, state.decode, meter.read()
    report = decode.report(store.length) if decode.even or not meter.gpus else None
    return Gauges(
        tokens=len(state.tokens),
        **store.figures(),
        keys_read=report.keys_read if report else None,
        reselections=report.reselections if report else None,
        reselect_ms=report.reselect_ms if report else None,
        working_set_bytes=report.working_set_bytes if report else None,
        density=chosen.density if chosen else None,
        coverage=chosen.coverage if chosen else None,
        lines_vertical=chosen.lines_vertical if chosen else None,
        lines_slash=chosen.lines_slash if chosen else None,
        select_ms=chosen.select_ms if chosen else None,
        allocated_device_bytes=memory.allocated_device_bytes,
        reserved_device_bytes=memory.reserved_device_bytes,
        peak_device_bytes=memory.peak_device_bytes,
        total_device_bytes=meter.total_device_bytes,
        gpu_busy=meter.busy(),
        rss_bytes=memory.rss_bytes,
        total_host_bytes=meter.total_host_bytes,
    )
