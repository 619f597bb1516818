"""Profiles: an acceleration method as two policies and their numbers, read from TOML and checked.

What a number may be is said once, in `SETTINGS`; which policy reads which, and what it is unless a profile
says so, in `PREFILL_DEFAULTS` and `KEEP_DEFAULTS`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.files import PROFILE_LIMIT, Refused, read_file

DEFAULT_PROFILE = "loopserve"
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

    def check(self, name: str, value: Any) -> Any:
        """The value in its type; raises UsageError with the setting's name and range."""
        if self.choices:
            if value not in self.choices:
                raise UsageError(f"{name} is {brief(value)}; choose one of {', '.join(self.choices)}")
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
        return self.kind(value)


# Where the full history stays: on the device, in the host's memory, or only as far as the keep policy wants it.
TIERS = ("device", "host", "evict")
# Keep policies that say no fixed number of keys per head, which a frozen segment needs.
NOT_EVICTING = ("everything", "adakv")

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
}
DEFAULTS = {"prefill": PREFILL_DEFAULTS, "keep": KEEP_DEFAULTS}
PREFILL_POLICIES = {name: tuple(settings) for name, settings in PREFILL_DEFAULTS.items()}
KEEP_POLICIES = {name: tuple(settings) for name, settings in KEEP_DEFAULTS.items()}
POLICIES = {"prefill": PREFILL_POLICIES, "keep": KEEP_POLICIES}


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """A policy by name, with its settings."""

    policy: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """An acceleration method: how prefill attends, which keys decoding keeps, where the rest stays."""

    name: str
    description: str
    prefill: PolicyOptions
    keep: PolicyOptions
    retain: Mapping[str, Any] = field(default_factory=lambda: {"tier": "device"})

    @property
    def attends_to_everything(self) -> bool:
        """Whether nothing is left out, so that its greedy tokens are full attention's, however a dialogue was fed."""
        return self.prefill.policy == "dense" and self.keep.policy == "everything"

    def with_overrides(self, overrides: Iterable[str]) -> Profile:
        """The profile with "[SECTION.]KEY=VALUE" settings replaced; a changed profile's name says so."""
        profile = self
        for text in overrides:
            name, equals, value = text.partition("=")
            path = whole_name(name.strip())
            section, dot, key = path.partition(".")
            sections = sections_of(path)
            if equals and len(sections) > 1:
                both = " or ".join(f"{section}.{path}" for section in sections)
                raise UsageError(f"--set {path} could be {both}; say which")
            if not (equals and dot):
                raise UsageError(f"--set {text!r} is not SECTION.KEY=VALUE, for example prefill.alpha=0.9")
            value = value.strip()
            # Another policy begins with its own numbers: those of the old one mean nothing to it.
            table = {key: value} if key == "policy" else {**profile._section(section), key: value}
            checked = _check_section(section, table, where=f"--set {path}={value}")
            change: dict[str, Any] = {
                section: checked if section == "retain" else PolicyOptions(str(table["policy"]), checked)
            }
            profile = replace(profile, name=changed_name(profile.name, path, value), **change)
        _check_tier(profile)
        return profile

    def _section(self, section: str) -> dict[str, Any]:
        if section == "retain":
            return dict(self.retain)
        if section not in POLICIES:
            raise UsageError(f"unknown section {section!r}; a profile has prefill, keep and retain")
        options: PolicyOptions = getattr(self, section)
        return {"policy": options.policy, **options.settings}


def sections_of(key: str) -> list[str]:
    """The sections that know a setting of this name."""
    return [section for section, settings in SETTINGS.items() if key in settings]


def whole_name(key: str) -> str:
    """A setting with its section: "alpha" is "prefill.alpha", since no other section has such a key."""
    sections = sections_of(key)
    return f"{sections[0]}.{key}" if len(sections) == 1 else key


def changed_name(name: str, path: str, value: str) -> str:
    """A profile's name with one more setting in it; setting the same again replaces it."""
    base, *settings = name.split("+")
    kept = [text for text in settings if text.partition("=")[0] != path]
    return "+".join([base, *kept, f"{path}={value}"])


def _check_section(section: str, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All settings of one section without its policy name, the given ones known, in range and read by the policy."""
    allowed = SETTINGS[section]
    policy = table.get("policy")
    if section in POLICIES:
        if policy is None:
            raise UsageError(f"{where}: [{section}] names no policy; known: {', '.join(POLICIES[section])}")
        if not isinstance(policy, str) or policy not in POLICIES[section]:
            raise UsageError(f"{where}: unknown {section} policy {policy!r}; known: {', '.join(POLICIES[section])}")
    settings = dict(DEFAULTS.get(section, {}).get(str(policy), {}))
    for key, value in table.items():
        if key == "policy" and section in POLICIES:
            continue
        if key not in allowed:
            raise UsageError(f"{where}: unknown key {section}.{key}; known: {', '.join(allowed)}")
        try:
            settings[key] = allowed[key].check(f"{section}.{key}", value)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        if section in POLICIES and key not in POLICIES[section][str(policy)]:
            readers = [name for name, keys in POLICIES[section].items() if key in keys]
            hint = f"; it belongs to {', '.join(readers)}" if readers else ""
            raise UsageError(f"{where}: {section} policy {policy!r} has no setting {key!r}{hint}")
    return settings


def profiles_folder() -> Path:
    """Where the shipped profiles lie: in the package when installed, beside it in a checkout."""
    packaged = Path(__file__).parent / "profiles"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "profiles"


def profile_names() -> list[str]:
    """The shipped profiles, sorted."""
    return sorted(path.stem for path in profiles_folder().glob("*.toml"))


def profile_path(name: str) -> Path:
    """The file that a profile is read from: `name` itself if it ends in .toml, else a shipped profile's."""
    return Path(name) if name.endswith(".toml") else profiles_folder() / f"{name}.toml"


def load_profile(name: str) -> Profile:
    """A shipped profile by name, or one from a TOML file by path; raises UsageError with the file's name.

    "NAME+SECTION.KEY=VALUE", the name that an override gives a profile, loads it with that override.
    """
    if "+" in name and not name.endswith(".toml"):
        base, *settings = name.split("+")
        return load_profile(base).with_overrides(settings)
    path = profile_path(name)
    try:
        text = read_file(path, PROFILE_LIMIT, streams=True).decode("utf-8-sig")
    except Refused as refusal:
        raise UsageError(f"{path}: {refusal}") from None
    except FileNotFoundError:
        if name.endswith(".toml"):
            raise UsageError(f"{path}: no such file; check the path") from None
        known = ", ".join(profile_names())
        raise UsageError(f"no profile {name!r}; known: {known}; or give the path of a .toml file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; give a .toml file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; check its path and mode") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except ValueError:
        raise UsageError(f"{name[:40]!r} is no file's name: it holds a NUL or half a character") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    return parse_profile(path.stem, table, where=str(path) if name.endswith(".toml") else f"profile {name}")


def parse_profile(name: str, table: Mapping[str, Any], where: str) -> Profile:
    """A profile from its TOML table; every key is checked."""
    for key, value in table.items():
        if key != "description" and key not in SETTINGS:
            raise UsageError(f"{where}: unknown key {key!r}; known: description, {', '.join(SETTINGS)}")
        if key != "description" and not isinstance(value, dict):
            raise UsageError(f"{where}: {key} must be a table, written [{key}]")
    description = table.get("description")
    if not isinstance(description, str) or not description:
        raise UsageError(f"{where}: description is missing; say in a line what the profile does")
    options = {}
    for section in POLICIES:
        settings = _check_section(section, table.get(section, {}), where)
        options[section] = PolicyOptions(str(table[section]["policy"]), settings)
    retain = {"tier": "device", **_check_section("retain", table.get("retain", {}), where)}
    profile = Profile(name, description, options["prefill"], options["keep"], retain)
    _check_tier(profile)
    return profile


def _check_tier(profile: Profile) -> None:
    """Refuse to evict by a policy that does not choose, or not evenly."""
    if profile.retain["tier"] == "evict" and profile.keep.policy in NOT_EVICTING:
        fitting = ", ".join(name for name in KEEP_DEFAULTS if name not in NOT_EVICTING)
        raise UsageError(
            f"profile {profile.name}: retain.tier evict needs a keep policy with the same number of keys in every "
            f"head, not {profile.keep.policy}; choose one of {fitting}"
        )
