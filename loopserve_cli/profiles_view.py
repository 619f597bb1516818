"""`loopserve profiles`: the acceleration profiles as text."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from loopserve_cli.errors import UsageError
from loopserve_cli.printable import shown
from loopserve_cli.profile import load_profile, parted, profile_names, profile_path, profile_text
from loopserve_cli.profile_file import to_toml, with_values

# What `show` puts before a file, and takes from one that it wrote.
OURS = re.compile(r"\A# [^\n]*, read from [^\n]*\n(?:# With these values: [^\n]*\n)?")


def list_profiles() -> int:
    """One line per shipped profile: its name and what it does."""
    found = [load_profile(name) for name in profile_names()]
    width = max(len(profile.name) for profile in found)
    for profile in found:
        _print(f"{profile.name:<{width}}  {profile.description}")
    return 0


def show_profile(name: str, settings: list[str]) -> int:
    """The profile as TOML, to read or to copy: its file, comments and all, with the values that take effect.

    The file that it came from stands on the first line, and on the second what it does with its settings.
    """
    profile = load_profile(name).with_overrides(settings)
    base = parted(name)[0]
    _print(f"# {profile.name}, read from {profile_path(base).resolve()}")
    if profile.description != profile.about:
        _print(f"# With these values: {profile.description}")
    text = with_values(OURS.sub("", profile_text(base)), profile)
    if text is None:
        _print("# Its file could not be changed line by line, so its comments are left out.")
    _print(to_toml(profile) if text is None else text)
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
