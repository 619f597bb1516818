"""What `loopserve bench turns` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loopserve_cli.bundled_files import TRANSCRIPTS
from loopserve_cli.config import ModelOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.nearest import hint
from loopserve_cli.profile import parted, profile_names

RIVALS = ("transformers",)
SYNTHETIC = "synthetic"
DIALOGUES = (SYNTHETIC, *TRANSCRIPTS)
EVERY_PROFILE = "all"
FIRST_PROFILE = "full"
SHORT_ANSWER = 16
# What our side is called where only one profile is compared.
OURS = "loopserve"


@dataclass(frozen=True, slots=True)
class TurnsOptions:
    """What `loopserve bench turns` was asked for.

    `profile` is ours; `against` is "transformers", or another profile in the same engine.
    `tokens` is the prompt's length, `new_tokens` the answer's, `rounds` how often each variant runs.
    The same `tokens` are then said again in a dialogue of `turns` equal turns.

    With `profiles` it is a comparison of all of them, whom `against`, if not None, joins; `new_tokens` is then also
    the length of every answer of the dialogue. `dialogue` may then be a bundled one: its own turns, up to `tokens` of
    them, None for the whole. `compile`: the steps of `generate` are compiled on a CPU too.
    """

    model: ModelOptions = field(default_factory=ModelOptions)
    against: str | None = "transformers"
    tokens: int | None = 16384
    new_tokens: int = 64
    rounds: int = 5
    turns: int = 4
    json: bool = False
    profile: str = FIRST_PROFILE
    profiles: tuple[str, ...] = ()
    dialogue: str = SYNTHETIC
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        rivals = (*RIVALS, *profile_names())
        against = self.against
        base = None if against is None else parted(against)[0]
        if base is not None and base not in rivals and not base.endswith(".toml"):
            listed = f"unknown --against {against!r}; choose one of {', '.join(rivals)}"
            raise UsageError(listed + hint(base, rivals))
        if self.dialogue not in DIALOGUES:
            listed = f"unknown --dialogue {self.dialogue!r}; choose one of {', '.join(DIALOGUES)}"
            raise UsageError(listed + hint(self.dialogue, DIALOGUES))
        check_least(self, tokens=1, new_tokens=2, rounds=1, turns=1)
        if self.dialogue == SYNTHETIC and self.tokens is not None and self.tokens < self.turns:
            raise UsageError(f"--tokens {self.tokens} is too few for --turns {self.turns}; each needs one at least")
        assert self.dialogue == SYNTHETIC or self.profiles, "only a comparison has bundled dialogues"
        assert self.dialogue != SYNTHETIC or self.tokens is not None, "only a bundled dialogue has a length of its own"

    @property
    def answer_tokens(self) -> int:
        """The length of the dialogue's answers: of one profile only the prompts are timed, so they are short."""
        return self.new_tokens if self.profiles else min(self.new_tokens, SHORT_ANSWER)


def check_least(options: object, **least: int) -> None:
    """Refuse a number under the least that can be timed, None being none; raises UsageError."""
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UsageError(f"--{name.replace('_', '-')} is {value}, but must be at least {low}")


def all_named(names: Sequence[str]) -> tuple[str, ...]:
    """The profiles by name, each once; "all" is every shipped one, full attention first.

    "all+SECTION.KEY=VALUE" changes the setting in each of them.
    """
    named: list[str] = []
    for name in names:
        shipped = sorted(profile_names(), key=lambda name: name != FIRST_PROFILE)
        base, settings = parted(name)
        named += ["+".join([one, *settings]) for one in shipped] if base == EVERY_PROFILE else [name]
    return tuple(dict.fromkeys(named))
