"""`/reset`: the settings as the chat began with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loopserve_cli.chat.commands.settings import (
    SAMPLING,
    change,
    change_profile,
    check_known,
    current,
    keys,
    value_in,
    written,
)
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import Profile, parted, whole_name


def reset(session: Session, argument: str) -> None:
    """Put all settings back to what the chat began with, or one."""
    name = argument.strip()
    if not name:
        _reset_all(session)
        return
    key = whole_name(name)
    check_known(session, name, key)
    initial = session.initial
    if key in initial.others:
        change(session, key, initial.others[key])
    elif key in SAMPLING:
        session.sampling = replace(session.sampling, **{key: getattr(initial.sampling, key)})
        session.note(f"{key} = {written(current(session, key))}")
    else:
        change_profile(session, put_back(session.conversation.engine.profile, initial.profile, key))


def _reset_all(session: Session) -> None:
    """The profile first, which may be refused; then nothing was changed yet."""
    initial, told = session.initial, []
    if session.conversation.engine.profile != initial.profile:
        change_profile(session, initial.profile)
        told.append("profile")
    for key in SAMPLING:
        if getattr(session.sampling, key) != getattr(initial.sampling, key):
            told.append(f"{key} = {written(getattr(initial.sampling, key))}")
    session.sampling = initial.sampling
    for key, value in initial.others.items():
        if current(session, key) != value:
            change(session, key, value)
            told.append(f"{key} = {value}")
    session.note(f"as the chat began: {', '.join(told)}" if told else "all is as the chat began")


def put_back(now: Profile, began: Profile, key: str) -> Profile:
    """The profile with one setting as it was in the one that the chat began with; raises UsageError if it had none.

    Where only settings were changed since, the name loses that setting, and the others stay changed.
    """
    section, _, name = key.partition(".")
    base, changes = parted(now.name)
    began_base, before = parted(began.name)
    if base != began_base:
        value = value_in(began, key)
        if value is None:
            raise UsageError(f"the chat began with profile {began.name}, which has no {key}; /reset alone goes back")
        return now.with_overrides([f"{key}={value}"])
    gone = f"{section}." if name == "policy" else f"{key}="
    return began.with_overrides(text for text in changes if text not in before and not text.startswith(gone))


def reset_choices(session: Session, before: list[str]) -> Sequence[str]:
    """Completions: a setting that is not as the chat began."""
    return [] if before else [key for key in keys(session) if changed(session, key)]


def changed(session: Session, key: str) -> bool:
    """Whether a setting is not as the chat began with it."""
    return bool(began_with(session, key) != current(session, key))


def began_with(session: Session, key: str) -> object:
    """What a setting was when the chat began; None where its profile had none."""
    initial = session.initial
    if key in SAMPLING:
        return getattr(initial.sampling, key)
    if key in initial.others:
        return initial.others[key]
    return value_in(initial.profile, key)
