"""The sections of a profile: which settings stand in them, and which go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.nearest import hint
from loopserve_cli.policy_settings import DEFAULTS, KEEP_DEFAULTS, NOT_EVICTING, POLICIES, SETTINGS


def checked_section(section: str, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All settings of one section without its policy name, the given ones known, in range and read by the policy."""
    allowed = SETTINGS[section]
    policy = table.get("policy")
    if section in POLICIES:
        if policy is None:
            raise UsageError(f"{where}: [{section}] names no policy; known: {', '.join(POLICIES[section])}")
        if not isinstance(policy, str) or policy not in POLICIES[section]:
            raise UsageError(
                f"{where}: unknown {section} policy {policy!r}; known: {', '.join(POLICIES[section])}"
                f"{hint(str(policy), POLICIES[section])}"
            )
    settings = dict(DEFAULTS.get(section, {}).get(str(policy), {}))
    for key, value in table.items():
        if key == "policy" and section in POLICIES:
            continue
        if key not in allowed:
            known = ", ".join(allowed)
            raise UsageError(f"{where}: unknown key {section}.{key}; known: {known}{hint(key, allowed)}")
        try:
            settings[key] = allowed[key].check(f"{section}.{key}", value)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        if section in POLICIES and key not in POLICIES[section][str(policy)]:
            readers = [name for name, keys in POLICIES[section].items() if key in keys]
            belongs = f"; it belongs to {', '.join(readers)}" if readers else ""
            raise UsageError(f"{where}: {section} policy {policy!r} has no setting {key!r}{belongs}")
    return settings


def check_tier(profile: str, tier: str, keep: str) -> None:
    """Refuse to evict by a policy that does not choose, or not evenly."""
    if tier == "evict" and keep in NOT_EVICTING:
        fitting = ", ".join(name for name in KEEP_DEFAULTS if name not in NOT_EVICTING)
        raise UsageError(
            f"profile {profile}: retain.tier evict needs a keep policy that chooses once a turn, as many keys in "
            f"every head, not {keep}; choose one of {fitting}"
        )
