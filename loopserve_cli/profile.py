"""Profiles: an acceleration method as two policies and their numbers, read from TOML and checked.

What the numbers may be stands in `policy_settings`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.files import PROFILE_LIMIT
from loopserve_cli.nearest import hint, hint_file
from loopserve_cli.phrases import filled, unknown_place
from loopserve_cli.policy_settings import (
    DEFAULTS,
    KEEP_DEFAULTS,
    KEEP_POLICIES,
    LONGEST,
    POLICIES,
    PREFILL_DEFAULTS,
    PREFILL_POLICIES,
    SETTINGS,
    Setting,
    brief,
    every_setting,
    sections_of,
    short_names,
    whole_name,
)
from loopserve_cli.profile_sections import check_tier, checked_section
from loopserve_cli.text_file import read_text

DEFAULT_PROFILE = "loopserve"


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """A policy by name, with its settings."""

    policy: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """An acceleration method: how prefill attends, which keys decoding keeps, where the rest stays.

    `about` is the description as its file has it, with places for settings, such as {keep.budget}.
    """

    name: str
    about: str
    prefill: PolicyOptions
    keep: PolicyOptions
    retain: Mapping[str, Any] = field(default_factory=lambda: {"tier": "device"})

    @property
    def attends_to_everything(self) -> bool:
        """Whether nothing is left out, so that its greedy tokens are full attention's, however a dialogue was fed."""
        return self.prefill.policy == "dense" and self.keep.policy == "everything"

    @property
    def description(self) -> str:
        """What the profile does in a line, with the numbers of now."""
        return filled(self.about, {section: self._section(section) for section in SETTINGS})

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
                meant = hint(path, [*every_setting(), *short_names()]) if equals else ""
                raise UsageError(f"--set {text!r} is not SECTION.KEY=VALUE, for example prefill.alpha=0.9{meant}")
            value = value.strip()
            # Another policy begins with its own numbers: those of the old one mean nothing to it.
            table = {key: value} if key == "policy" else {**profile._section(section), key: value}
            checked = checked_section(section, table, where=f"--set {path}={value}")
            change: dict[str, Any] = {
                section: checked if section == "retain" else PolicyOptions(str(table["policy"]), checked)
            }
            profile = replace(profile, name=changed_name(profile.name, path, value), **change)
        check_tier(profile.name, profile.retain["tier"], profile.keep.policy)
        return profile

    def _section(self, section: str) -> dict[str, Any]:
        if section == "retain":
            return dict(self.retain)
        if section not in POLICIES:
            meant = hint(section, SETTINGS)
            raise UsageError(f"unknown section {section!r}; a profile has prefill, keep and retain{meant}")
        options: PolicyOptions = getattr(self, section)
        return {"policy": options.policy, **options.settings}


def changed_name(name: str, path: str, value: str) -> str:
    """A profile's name with one more setting in it; setting the same again replaces it.

    Another policy replaces all settings of its section.
    """
    base, settings = parted(name)
    section, _, key = path.partition(".")
    gone = f"{section}." if key == "policy" else f"{path}="
    return "+".join([base, *(text for text in settings if not text.startswith(gone)), f"{path}={value}"])


def parted(name: str) -> tuple[str, list[str]]:
    """A profile's name, or its file, and the settings that "NAME+SECTION.KEY=VALUE" changes, in that order."""
    folder, slash, last = name.rpartition("/")
    if last.endswith(".toml"):
        return name, []
    base, *settings = re.split(r"\+(?=[A-Za-z_])", last)  # a number may be 1e+3
    return folder + slash + base, settings


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
    base, settings = parted(name)
    profile = profile_of(base, profile_text(base))
    return profile.with_overrides(settings) if settings else profile


def profile_text(name: str) -> str:
    """What stands in a profile's file; raises UsageError, with the nearest name, where there is none to read."""
    path = profile_path(name)
    try:
        return read_text(path, PROFILE_LIMIT, "give a .toml file", streams=True)
    except FileNotFoundError:
        if name.endswith(".toml"):
            raise UsageError(f"{path}: no such file; check the path{hint_file(path)}") from None
        known = profile_names()
        listed = f"no profile {name!r}; known: {', '.join(known)}; or give the path of a .toml file"
        raise UsageError(listed + hint(name, known)) from None
    except ValueError:
        raise UsageError(f"{name[:40]!r} is no file's name: it holds a NUL or half a character") from None


def profile_of(name: str, text: str) -> Profile:
    """The profile that a file's text describes; `name` is what the user calls the file."""
    path = profile_path(name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    return parse_profile(path.stem, table, where=str(path) if name.endswith(".toml") else f"profile {name}")


def parse_profile(name: str, table: Mapping[str, Any], where: str) -> Profile:
    """A profile from its TOML table; every key is checked."""
    known = ["description", *SETTINGS]
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}; known: {', '.join(known)}{hint(key, known)}")
        if key != "description" and not isinstance(value, dict):
            raise UsageError(f"{where}: {key} must be a table, written [{key}]")
    description = table.get("description")
    if not isinstance(description, str) or not description:
        raise UsageError(f"{where}: description is missing; say in a line what the profile does")
    wrong = unknown_place(description)
    if wrong is not None:
        raise UsageError(f"{where}: the description names {{{wrong[0]}}}, which is no setting{hint(*wrong)}")
    options = {}
    for section in POLICIES:
        settings = checked_section(section, table.get(section, {}), where)
        options[section] = PolicyOptions(str(table[section]["policy"]), settings)
    retain = {"tier": "device", **checked_section("retain", table.get("retain", {}), where)}
    profile = Profile(name, description, options["prefill"], options["keep"], retain)
    check_tier(profile.name, profile.retain["tier"], profile.keep.policy)
    return profile


__all__ = [
    "DEFAULTS",
    "DEFAULT_PROFILE",
    "KEEP_DEFAULTS",
    "KEEP_POLICIES",
    "LONGEST",
    "POLICIES",
    "PREFILL_DEFAULTS",
    "PREFILL_POLICIES",
    "SETTINGS",
    "PolicyOptions",
    "Profile",
    "Setting",
    "brief",
    "load_profile",
    "parse_profile",
    "parted",
    "profile_names",
    "profile_of",
    "profile_path",
    "profile_text",
    "profiles_folder",
    "whole_name",
]
