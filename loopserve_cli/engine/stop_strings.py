"""Text that ends an answer before it, wherever the tokens cut it."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Text in, text out: up to the first stop string, holding back what may become one."""

    def __init__(self, stop: Sequence[str]) -> None:
        """Nothing was met yet; an empty `stop` holds nothing back."""
        self._stop = stop
        self._held = ""
        self.met = False

    def feed(self, text: str) -> str:
        """What is certain to be said; nothing after a stop string was met."""
        if self.met:
            return ""
        pending = self._held + text
        ends = [at for at in (pending.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.met, self._held = True, ""
            return pending[: min(ends)]
        hold = held_back(pending, self._stop)
        self._held = pending[len(pending) - hold :]
        return pending[: len(pending) - hold]

    def flush(self) -> str:
        """What was held back, at the end of an answer."""
        rest, self._held = self._held, ""
        return rest


def held_back(text: str, words: Sequence[str]) -> int:
    """How many trailing characters of `text` could be the beginning of one of `words`."""
    longest = max((len(word) for word in words), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(word.startswith(text[-count:]) for word in words):
            return count
    return 0
