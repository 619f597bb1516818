"""Whom the others are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from loopserve_cli.profile import Profile, parted

FULL = "full"


def reference_of(profiles: Sequence[str]) -> str | None:
    """Full attention where it is among them, else `full` with settings changed, else the first; None without any."""
    changed = (name for name in profiles if parted(name)[0] == FULL)
    return FULL if FULL in profiles else next(changed, next(iter(profiles), None))


def full_of(profiles: Sequence[Profile]) -> Profile | None:
    """The reference where it reads everything, so that it can be said what another one lost; else None."""
    name = reference_of([profile.name for profile in profiles])
    full = next((p for p in profiles if p.name == name and parted(p.name)[0] == FULL), None)
    return full if full is not None and full.attends_to_everything else None
