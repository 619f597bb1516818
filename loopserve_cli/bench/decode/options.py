"""What `loopserve bench decode` was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from loopserve_cli.bench.options import check_least
from loopserve_cli.config import ModelOptions
from loopserve_cli.errors import UsageError

# Rows of the question that is answered: policies that judge keys by the prompt look at its last ones.
QUESTION = 64
PROFILES = ("full", "loopserve", "loopserve+retain.tier=host")


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """The profiles that answer in turn, `rounds` times each, at every one of the lengths `tokens`.

    A length is the dialogue's when its answer of `new_tokens` has ended. The default's steps are whole intervals of
    the profiles that choose again every 16.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    profiles: tuple[str, ...] = PROFILES
    tokens: tuple[int, ...] = (8192,)
    new_tokens: int = 129
    rounds: int = 5
    json: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        check_least(self, new_tokens=2, rounds=1)
        least = self.new_tokens + QUESTION + 1
        if min(self.tokens) < least:
            raise UsageError(
                f"--tokens {min(self.tokens)} is too few for an answer of {self.new_tokens} to a question of "
                f"{QUESTION}; give at least {least}"
            )
