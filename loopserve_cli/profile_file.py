"""A profile's file as text: its values changed in place, and the comments that explain them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.meanings import MEANINGS
from loopserve_cli.profile import SETTINGS, Profile, parse_profile

HEADING = re.compile(r"\s*\[\s*([a-z_]+)\s*\]\s*(?:#.*)?")
ENTRY = re.compile(
    r"""(?P<key>\s*(?P<name>[A-Za-z_]+)\s*=\s*)(?P<value>"(?:[^"\\]|\\.)*"|'[^']*'|[^\s#"']+)(?P<rest>\s*(?:#.*)?)"""
)


def tables(profile: Profile) -> dict[str, Mapping[str, Any]]:
    """Every section with its settings as they take effect."""
    return {
        "prefill": {"policy": profile.prefill.policy, **profile.prefill.settings},
        "keep": {"policy": profile.keep.policy, **profile.keep.settings},
        "retain": profile.retain,
    }


def to_toml(profile: Profile) -> str:
    """A profile as it could stand in a file, without a word of explanation."""
    # JSON's strings and numbers are TOML's as well.
    lines = [f"description = {json.dumps(profile.about, ensure_ascii=False)}"]
    for title, values in tables(profile).items():
        lines += ["", f"[{title}]", *(entry(key, value) for key, value in values.items())]
    return "\n".join(lines)


def entry(key: str, value: Any) -> str:
    """One setting."""
    return f"{key} = {json.dumps(value)}"


def with_values(text: str, profile: Profile) -> str | None:
    """A file's text with the profile's values in place of its own: comments, order and blanks stay.

    What the file leaves out is added with what it means; another policy's section is written anew. None where that
    cannot be done line by line, as with inline tables.
    """
    before = tomllib.loads(text)
    lines: list[str] = []
    left = dict(tables(profile))
    for title, block in blocks(text):
        wanted = left.pop(title, None) if title else None
        lines += block if wanted is None else _section(block, before.get(title, {}), wanted, title)
    for title, wanted in left.items():
        lines += ["", f"[{title}]", *_added(title, wanted)]
    changed = "\n".join(lines).rstrip("\n")
    try:
        same = parse_profile(profile.name, tomllib.loads(changed), "") == profile
    except (UsageError, tomllib.TOMLDecodeError):
        return None
    return changed if same else None


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of each section, its heading first; what stands before the first one has no title."""
    title, block = "", list[str]()
    for line in text.replace("\r\n", "\n").rstrip("\n").split("\n"):
        heading = HEADING.fullmatch(line)
        if heading:
            yield title, block
            title, block = heading[1], []
        block.append(line)
    yield title, block


def _section(block: list[str], before: Mapping[str, Any], wanted: Mapping[str, Any], title: str) -> list[str]:
    """A section's lines with the wanted values."""
    ending = next((number for number, line in enumerate(reversed(block)) if line.strip()), 0)
    body, blanks = block[: len(block) - ending], block[len(block) - ending :]
    if wanted.get("policy") != before.get("policy"):
        return [body[0], *_added(title, wanted), *blanks]
    left = {key: value for key, value in wanted.items() if before.get(key) != value}
    lines = [_replaced(line, left) for line in body]
    return [*lines, *_added(title, left), *blanks]


def _replaced(line: str, left: dict[str, Any]) -> str:
    """The line, with the value that it should have taken out of `left`."""
    found = ENTRY.fullmatch(line)
    if found is None or found["name"] not in left:
        return line
    return f"{found['key']}{json.dumps(left.pop(found['name']))}{found['rest']}"


def _added(title: str, values: Mapping[str, Any]) -> list[str]:
    """Settings with what they mean in a comment."""
    lines = []
    for key, value in values.items():
        meaning = MEANINGS.get(f"{title}.{key}")
        lines += [f"# {meaning[0].upper()}{meaning[1:]}."] if meaning else []
        lines.append(entry(key, value))
    return lines


def explanations(text: str) -> dict[str, str]:
    """By "section.key", the comment above a setting, or above the settings that it follows at once."""
    found: dict[str, str] = {}
    for title, block in blocks(text):
        said: list[str] = []
        open_comment = False
        for line in block[1:] if title in SETTINGS else ():
            if line.lstrip().startswith("#"):
                said = [*said, line.strip("# ")] if open_comment else [line.strip("# ")]
                open_comment = True
                continue
            open_comment = False
            entry_found = ENTRY.fullmatch(line)
            if entry_found is None:
                said = []
            elif said:
                found[f"{title}.{entry_found['name']}"] = " ".join(said)
    return found
