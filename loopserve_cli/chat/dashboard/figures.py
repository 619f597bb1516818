"""What the dashboard shows, as plain values: no text and no drawing.

The turn is shown as the record that it will become, so a figure is read and written the same way while the turn runs
and once it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from loopserve_cli.chat.dashboard.estimate import fit, ran_full
from loopserve_cli.chat.dashboard.watch import TurnWatch
from loopserve_cli.engine.gauges import Gauges
from loopserve_cli.stats import TurnRecord

Phase = Literal["prefill", "answering", "thinking", "idle"]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A dialogue and its engine at one moment; `turn` is the newest one's number, `past` the turns that stand."""

    model: str
    profile: str
    tier: str
    turn: int
    context_limit: int | None
    gauges: Gauges
    past: tuple[TurnRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """One moment. `now` is the turn so far, or the last one; its memory and cache are always those of the moment.

    `turn` is this turn's number, `tokens` what is in the cache, `total` what the turn is to read.
    `full_ms` is what the turn's TTFT would be, or was, under full attention; `measured` says that it was.
    """

    phase: Phase
    dialogue: Dialogue
    now: TurnRecord
    turn: int
    tokens: int
    stopping: bool = False
    total: int | None = None
    left_ms: float | None = None
    full_ms: float | None = None
    measured: bool = False

    @property
    def fill(self) -> float | None:
        """How full the context is."""
        limit = self.dialogue.context_limit
        return self.tokens / limit if limit else None

    @property
    def gain(self) -> float | None:
        """How many times as long full attention would take to the first token."""
        if self.full_ms is None or not self.now.ttft_ms or self.measured:
            return None
        return self.full_ms / self.now.ttft_ms


MEASURED_NOW = (
    "kv_used_device_bytes",
    "kv_used_host_bytes",
    "kv_store_device_bytes",
    "kv_store_host_bytes",
    "allocated_device_bytes",
    "reserved_device_bytes",
    "peak_device_bytes",
    "rss_bytes",
)
MEASURED_IN_TURN = (
    *("density", "coverage", "lines_vertical", "lines_slash", "select_ms"),
    *("keys_stored", "keys_read", "reselections", "reselect_ms", "working_set_bytes"),
)


def idle(dialogue: Dialogue) -> Figures:
    """Between two turns: the last that stands, and memory and cache as they are."""
    last = dialogue.past[-1] if dialogue.past else TurnRecord()
    now = _at(last, dialogue.gauges, MEASURED_NOW)
    return _with_full(Figures("idle", dialogue, now, dialogue.turn, dialogue.gauges.tokens))


def running(dialogue: Dialogue, watch: TurnWatch, stopping: bool = False) -> Figures:
    """Within a turn."""
    if not watch.answering:
        phase: Phase = "prefill"
    else:
        phase = "thinking" if watch.thinking else "answering"
    progress, gauges = watch.progress, dialogue.gauges
    if progress is None:  # the message is not part of the dialogue yet
        now = _at(watch.record(), gauges, MEASURED_NOW)
        return Figures(phase, dialogue, now, dialogue.turn + 1, gauges.tokens, stopping)
    now = _at(watch.record(), gauges, (*MEASURED_NOW, *MEASURED_IN_TURN))
    # Within a chunk the engine counts its tokens once all layers have them.
    tokens = gauges.tokens if watch.answering or progress.cached is None else progress.cached + progress.done
    return _with_full(Figures(phase, dialogue, now, dialogue.turn, tokens, stopping, progress.total, watch.left_ms))


def _at(record: TurnRecord, gauges: Gauges, names: tuple[str, ...]) -> TurnRecord:
    """The record with what the gauges show."""
    return replace(record, **{name: getattr(gauges, name) for name in names})


def _with_full(figures: Figures) -> Figures:
    """With what full attention costs: measured by a turn that ran so, else estimated from those that did."""
    now, past = figures.now, figures.dialogue.past
    if figures.phase == "idle" and ran_full(now):
        return replace(figures, full_ms=now.ttft_ms, measured=True)
    new = figures.total if figures.phase != "idle" else now.tokens_new
    if not past or not new or now.tokens_cached is None:
        return figures
    line = fit(past, past[-1])
    return figures if line is None else replace(figures, full_ms=line.ms(new, now.tokens_cached))
