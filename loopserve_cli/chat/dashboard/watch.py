"""What a turn has told of itself so far, as the record that it will become."""

from __future__ import annotations

from dataclasses import replace

from loopserve_cli.engine.events import PrefillProgress, Token
from loopserve_cli.stats import TurnRecord


class TurnWatch:
    """One turn's events, summed up. What is not known yet is None."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.progress: PrefillProgress | None = None
        self.thinking = False
        self._stamps: list[float] = []
        self._gaps: list[float] = []
        self._tokens = self._thought = 0

    @property
    def answering(self) -> bool:
        """Whether there is a token."""
        return self._tokens > 0

    def prefill(self, event: PrefillProgress) -> None:
        """Some more is read."""
        self.progress = event

    def token(self, event: Token) -> None:
        """There is another token."""
        self._tokens += 1
        self._thought += event.reasoning
        self.thinking = event.reasoning
        if event.ms is not None:
            self._gaps += [event.ms - self._stamps[-1]] if self._stamps else []
            self._stamps.append(event.ms)

    @property
    def left_ms(self) -> float | None:
        """How long the prefill will take yet, at the speed it had so far."""
        now = self.progress
        if now is None or now.ms is None or not now.done:
            return None
        return now.ms * (now.total - now.done) / now.done

    def record(self) -> TurnRecord:
        """The turn so far."""
        now, stamps = self.progress, self._stamps
        record = TurnRecord(tokens_output=self._tokens, tokens_reasoning=self._thought or None)
        if now is not None:
            rate = now.done / now.ms * 1e3 if now.ms and now.done else None
            record = replace(
                record, tokens_new=now.done, tokens_cached=now.cached, prefill_ms=now.ms, prefill_tokens_per_s=rate
            )
        if not stamps:
            return record
        spent = stamps[-1] - stamps[0]
        return replace(
            record,
            ttft_ms=stamps[0],
            tpot_ms=spent / (len(stamps) - 1) if len(stamps) > 1 else None,
            decode_tokens_per_s=(len(stamps) - 1) / spent * 1e3 if spent else None,
            itl_ms=self._gaps,
        )
