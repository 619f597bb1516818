"""`loopserve profiles`: the acceleration profiles as text."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.printable import shown
from loopserve_cli.profile import Profile, load_profile, profile_names, profile_path


def list_profiles() -> int:
    """One line per shipped profile: its name and what it does."""
    found = [load_profile(name) for name in profile_names()]
    width = max(len(profile.name) for profile in found)
    for profile in found:
        _print(f"{profile.name:<{width}}  {profile.description}")
    return 0


def show_profile(name: str, settings: list[str]) -> int:
    """The profile as TOML, to read or to copy, with the file that it came from on the first line."""
    profile = load_profile(name).with_overrides(settings)
    _print(f"# {profile.name}, read from {profile_path(name).resolve()}")
    _print(to_toml(profile))
    return 0


def check_profile(file: Path) -> int:
    """Say that a profile's file is right; raises UsageError when it is not."""
    if file.suffix != ".toml":
        raise UsageError(f"{file}: a profile is a .toml file; `loopserve profiles show full` prints one to start from")
    profile = load_profile(str(file))
    _print(f"{file}: ok ({profile.prefill.policy} prefill, {profile.keep.policy} keep)")
    return 0


def _print(text: str) -> None:
    print(shown(text, sys.stdout))


def to_toml(profile: Profile) -> str:
    """A profile as it could stand in a file."""
    sections: dict[str, Mapping[str, Any]] = {
        "prefill": {"policy": profile.prefill.policy, **profile.prefill.settings},
        "keep": {"policy": profile.keep.policy, **profile.keep.settings},
        "retain": profile.retain,
    }
    # JSON's strings and numbers are TOML's as well.
    lines = [f"description = {json.dumps(profile.description, ensure_ascii=False)}"]
    for title, values in sections.items():
        lines += ["", f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines)
