"""What is known of a setting beside its value: its range, its default, and how its profile explains it."""

from __future__ import annotations

from collections.abc import Iterator

from loopserve_cli.config import SAMPLING_RANGES, THINKING, SamplingOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.phrases import phrase
from loopserve_cli.profile import DEFAULTS, POLICIES, SETTINGS, Profile, parted, profile_names, profile_of, profile_text
from loopserve_cli.profile_file import explanations

OFF = "none"
# From here on an upper bound says no more than that there is one.
ENDLESS = 1e6
OTHERS = {
    "seed": f"a whole number, or {OFF}",
    "stop": f"texts, or {OFF}",
    "thinking": ", ".join(THINKING),
    "turn_line": "on, off",
}


def range_of(key: str, short: bool = False) -> str:
    """What the setting may be; empty where that is not known. In `short` an upper bound of millions is left out."""
    if key in SAMPLING_RANGES:
        return _between(*SAMPLING_RANGES[key], short)
    section, _, name = key.partition(".")
    if name == "policy" and section in POLICIES:
        return ", ".join(POLICIES[section])
    setting = SETTINGS.get(section, {}).get(name)
    if setting is None:
        return OTHERS.get(key, "")
    between = _between(setting.low, setting.high, short)
    return ", ".join(setting.choices) or (f"{between}, a power of two" if setting.doubles else between)


def _between(low: float, high: float, short: bool) -> str:
    return f"{low:g} or more" if short and high >= ENDLESS else f"{low:g} to {high:,.10g}"


def default_of(key: str, profile: Profile) -> tuple[object, str] | None:
    """What the setting is when nobody says so, and whose default that is; None where there is none."""
    section, _, name = key.partition(".")
    if section == "retain":
        return "device", "of every profile"
    if section in POLICIES:
        policy = getattr(profile, section).policy
        settings = DEFAULTS[section].get(policy, {})
        return (settings[name], f"of policy {policy}") if name in settings else None
    if key == "temperature":
        return 0.0, "of demo; a chat with another model varies more"
    return (getattr(SamplingOptions(), key), "") if hasattr(SamplingOptions(), key) else None


def readers(key: str) -> list[str]:
    """The policies that read the setting."""
    section, _, name = key.partition(".")
    return [policy for policy, settings in POLICIES.get(section, {}).items() if name in settings]


def policies_told(key: str) -> list[tuple[str, str]]:
    """For a section's policy: every one that there is, with what it does; empty for other settings."""
    section, _, name = key.partition(".")
    if name != "policy" or section not in POLICIES:
        return []
    return [(policy, phrase(section, policy, {})) for policy in POLICIES[section]]


def explanation(key: str, profile: Profile) -> str | None:
    """What the comment above the setting says in a shipped profile: of this policy, this profile's own if it can be."""
    section = key.partition(".")[0]
    if section not in SETTINGS:
        return None
    for name, text in _shipped(parted(profile.name)[0]):
        told = explanations(text).get(key)
        if told and (section == "retain" or _policy(name, text, section) == getattr(profile, section).policy):
            return told
    return None


def _shipped(first: str) -> Iterator[tuple[str, str]]:
    """The shipped profiles' files, `first` before the others; those that cannot be read are left out."""
    for name in sorted(profile_names(), key=lambda name: name != first):
        try:
            yield name, profile_text(name)
        except UsageError:
            continue


def _policy(name: str, text: str, section: str) -> str:
    return str(getattr(profile_of(name, text), section).policy)
