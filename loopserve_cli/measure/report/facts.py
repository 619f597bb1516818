"""What was run, and where, as rows of names and values."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopserve_cli.measure.figures import UNKNOWN, whole

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """A profile's policies in a line, and every setting."""

    name: str
    summary: str
    rows: tuple[Row, ...]


def command_line(command: Mapping[str, Any]) -> str:
    """The words that were typed, quoted for a shell."""
    return shlex.join(["loopserve", *map(str, command.get("argv", ()))])


def options_rows(command: Mapping[str, Any]) -> list[Row]:
    """Every option as it was resolved, profiles aside, and how many dialogues had which history."""
    options = {key: value for key, value in command.get("options", {}).items() if key != "profiles"}
    histories = Counter(map(str, command.get("histories", {}).values()))
    counted = [(f"dialogues, history {name}", whole(count)) for name, count in histories.items()]
    return [*rows_of(options), *counted]


def profile_facts(command: Mapping[str, Any]) -> list[ProfileFacts]:
    """Each profile that the command names."""
    return [_profile(profile) for profile in command.get("options", {}).get("profiles", ())]


def _profile(profile: Mapping[str, Any]) -> ProfileFacts:
    policies = [f"{part} {profile[part]['policy']}" for part in ("prefill", "keep") if part in profile]
    sections = {key: value for key, value in profile.items() if key not in ("name", "about")}
    rows = [(name.replace(".settings.", "."), value) for name, value in rows_of(sections)]
    return ProfileFacts(str(profile.get("name")), ", ".join(policies), tuple(row for row in rows if row[1]))


def rows_of(values: Mapping[str, Any]) -> list[Row]:
    """Names, those of nested ones by their path, with their values as text; unknown is n/a."""
    return list(_rows(values, ""))


def _rows(values: Mapping[str, Any], prefix: str) -> Iterator[Row]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", whole(value) if key.endswith("_bytes") else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_text(one)}" for key, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
