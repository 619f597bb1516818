"""What a replay is doing now, in a line."""

from __future__ import annotations

from loopserve_cli.engine.events import Event, PrefillProgress, Token
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.variant import Named


class Phase:
    """Follows one dialogue after the other; its text names the dialogue, the profile and what the turn is at."""

    def __init__(self, repeats: int) -> None:
        """Nothing runs yet; the repeat is named where there are several."""
        self._repeats = repeats
        self._what = self._doing = ""
        self._tokens = 0

    def begin(self, script: Script, variant: Named, repeat: int) -> None:
        """A dialogue starts under a profile, or at a server."""
        of_repeats = f" · repeat {repeat}/{self._repeats}" if self._repeats > 1 else ""
        self._what, self._doing = f"{script.id} · {variant.name}{of_repeats}", ""

    def event(self, event: Event) -> None:
        """Something happened within a turn."""
        if isinstance(event, PrefillProgress):
            self._tokens = 0
            self._doing = f"prefill {event.done:,}/{event.total:,} tokens"
        elif isinstance(event, Token):
            self._tokens += 1
            self._doing = ""

    def asked(self) -> None:
        """A server is about to be asked."""
        self._doing = "waiting for the server"

    def forcing(self, tokens: int) -> None:
        """A given answer is decoded, which is in no timing."""
        self._doing = f"fidelity, {tokens:,} tokens"

    def ended(self) -> None:
        """A turn is over."""
        self._tokens, self._doing = 0, ""

    def __str__(self) -> str:
        doing = self._doing or (f"token {self._tokens:,}" if self._tokens else "")
        return f"{self._what} · {doing}" if doing else self._what
