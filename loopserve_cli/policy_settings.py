"""What a profile's settings may be: policies, the settings that each reads, their ranges and their defaults.

What a number may be is said once, in `SETTINGS`; which policy reads which, and what it is unless a profile
says so, in `PREFILL_DEFAULTS` and `KEEP_DEFAULTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.nearest import hint

# No dialogue is longer, in tokens: a larger number of keys, rows or tokens says nothing.
LONGEST = 2**24
# Rows of queries that are held in every layer, or compared with every key.
MOST_ROWS = 4096


def brief(value: Any) -> str:
    """A setting's value as an error shows it; a very long one is cut."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True, slots=True)
class Setting:
    """What one number or word of a profile may be."""

    kind: type
    low: float = 0
    high: float = LONGEST
    choices: tuple[str, ...] = ()
    doubles: bool = False  # only powers of two

    def check(self, name: str, value: Any) -> Any:
        """The value in its type; raises UsageError with the setting's name and range."""
        if self.choices:
            if value not in self.choices:
                meant = hint(value, self.choices) if isinstance(value, str) else ""
                raise UsageError(f"{name} is {brief(value)}; choose one of {', '.join(self.choices)}{meant}")
            return value
        if isinstance(value, str):
            try:
                value = self.kind(value)
            except ValueError:
                raise UsageError(f"{name} is {brief(value)}, but must be a number") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise UsageError(f"{name} is {brief(value)}, but must be a number")
        if not self.low <= value <= self.high:
            shown = brief(value) if isinstance(value, int) else f"{value:g}"
            raise UsageError(f"{name} is {shown}, but must be from {self.low:g} to {self.high:.10g}")
        if self.kind is int and value != int(value):
            raise UsageError(f"{name} is {brief(value)}, but must be a whole number")
        if self.doubles and int(value) & (int(value) - 1):
            raise UsageError(f"{name} is {brief(value)}, but must be a power of two")
        return self.kind(value)


# Where the full history stays: on the device, in the host's memory, or only as far as the keep policy wants it.
TIERS = ("device", "host", "evict")
# Keep policies that choose no fixed number of keys per head once a turn, which a frozen segment needs.
NOT_EVICTING = ("everything", "adakv", "quest")

SETTINGS: dict[str, dict[str, Setting]] = {
    "prefill": {
        "alpha": Setting(float, 0.01, 1.0),
        "sample_rows": Setting(int, 1, MOST_ROWS),
        "candidates": Setting(int, 1),
        "share": Setting(str, choices=("head", "group")),
        "objective": Setting(str, choices=("lines", "optimal", "latency")),
        "verticals": Setting(int, 0),
        "slashes": Setting(int, 1),
        "window": Setting(int, 1, MOST_ROWS),
        "sinks": Setting(int, 0),
        "local": Setting(int, 1),
        "dense_rows": Setting(int, 0),
        "gamma": Setting(float, 0.01, 1.0),
        "tau": Setting(float, 0.0, 1.0),
        "min_budget": Setting(int, 0),
        "threshold": Setting(float, 0.01, 1.0),
        "stride": Setting(int, 1, 16, doubles=True),
        "block": Setting(int, 16, 1024, doubles=True),
        "min_new": Setting(int, 1),
        "min_keys": Setting(int, 1),
        "most_density": Setting(float, 0.0, 1.0),
    },
    "keep": {
        "budget": Setting(int, 1),
        "interval": Setting(int, 1),
        "first": Setting(str, choices=("prompt", "full")),
        "group": Setting(str, choices=("mean", "max")),
        "follow": Setting(int, 0, MOST_ROWS),
        "sinks": Setting(int, 0),
        "recent": Setting(int, 0),
        "window": Setting(int, 1, MOST_ROWS),
        "pool_width": Setting(int, 1, MOST_ROWS),
        "floor": Setting(float, 0.0, 1.0),
        "page": Setting(int, 1, MOST_ROWS),
        "dense_layers": Setting(int, 0),
        "future": Setting(int, 1, MOST_ROWS),
        "epsilon": Setting(float, 0.0, 1.0),
    },
    "retain": {"tier": Setting(str, choices=TIERS)},
}
# Every policy with the settings it reads and what they are when a profile does not say. The shipped profiles
# say all of them, and explain them.
OPEN_GATE = {"min_new": 1, "min_keys": 1, "most_density": 1.0}
PREFILL_DEFAULTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "a_shape": {"sinks": 128, "local": 3968, **OPEN_GATE},
    "tri_shape": {"sinks": 128, "local": 3968, "dense_rows": 100, **OPEN_GATE},
    "minference": {"verticals": 1000, "slashes": 6096, "window": 64, "sinks": 30, "local": 100, **OPEN_GATE},
    "online": {
        "alpha": 0.95,
        "sample_rows": 64,
        "candidates": 8192,
        "sinks": 4,
        "local": 64,
        "share": "head",
        "objective": "latency",
        "dense_rows": 64,
        "min_new": 1024,
        "min_keys": 6144,
        "most_density": 0.5,
    },
    "flexprefill": {"gamma": 0.95, "tau": 0.1, "min_budget": 1024, "block": 128, **OPEN_GATE},
    "xattention": {"threshold": 0.9, "stride": 8, "block": 128, **OPEN_GATE},
}
KEEP_DEFAULTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "streaming": {"budget": 1024, "sinks": 4},
    "snapkv": {"budget": 1024, "window": 32, "pool_width": 5},
    "adakv": {"budget": 1024, "window": 32, "pool_width": 5, "floor": 0.2},
    "h2o": {"budget": 1024},
    "progressive": {
        "budget": 1024,
        "interval": 16,
        "first": "full",
        "group": "mean",
        "follow": 8,
        "sinks": 4,
        "recent": 16,
    },
    "quest": {"budget": 1024, "page": 16, "group": "max", "dense_layers": 2},
    "expected_attention": {"budget": 1024, "future": 512, "sinks": 4, "epsilon": 0.0},
}
DEFAULTS = {"prefill": PREFILL_DEFAULTS, "keep": KEEP_DEFAULTS}
PREFILL_POLICIES = {name: tuple(settings) for name, settings in PREFILL_DEFAULTS.items()}
# Those that choose blocks of rows and keys; the others choose lines.
BLOCK_POLICIES = ("flexprefill", "xattention")
KEEP_POLICIES = {name: tuple(settings) for name, settings in KEEP_DEFAULTS.items()}
POLICIES = {"prefill": PREFILL_POLICIES, "keep": KEEP_POLICIES}


def sections_of(key: str) -> list[str]:
    """The sections that know a setting of this name."""
    return [section for section, settings in SETTINGS.items() if key in settings]


def whole_name(key: str) -> str:
    """A setting with its section: "alpha" is "prefill.alpha", since no other section has such a key."""
    sections = sections_of(key)
    return f"{sections[0]}.{key}" if len(sections) == 1 else key


def every_setting() -> list[str]:
    """Every setting that some policy reads, with its section; the policies' own names among them."""
    policies = [f"{section}.policy" for section in POLICIES]
    return [*policies, *(f"{section}.{key}" for section, settings in SETTINGS.items() for key in settings)]


def short_names() -> list[str]:
    """The settings that need no section: no other section has their name."""
    return [key for settings in SETTINGS.values() for key in settings if len(sections_of(key)) == 1]
