"""Commands that change how answers are made."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from loopserve_cli.chat.session import Session
from loopserve_cli.chat.setting_facts import OFF, readers
from loopserve_cli.config import THINKING, SamplingOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.nearest import hint
from loopserve_cli.policy_settings import short_names
from loopserve_cli.profile import POLICIES, SETTINGS, Profile, load_profile, profile_names, whole_name

SWITCH = ("on", "off")


def _stop_strings(text: str) -> tuple[str, ...]:
    if text == OFF:
        return ()
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""  # \n is read below, quoted or not
    try:
        words = list(lexer)
    except ValueError:
        raise UsageError('stop: a quote is not closed; write /set stop "END OF ANSWER"') from None
    return tuple(word.encode("raw_unicode_escape").decode("unicode_escape") if "\\" in word else word for word in words)


def _seed(text: str) -> int | None:
    return None if text == OFF else int(text)


SAMPLING: dict[str, tuple[Callable[[str], Any], str]] = {
    "temperature": (float, "a number"),
    "top_p": (float, "a number"),
    "top_k": (int, "a whole number"),
    "min_p": (float, "a number"),
    "repetition_penalty": (float, "a number"),
    "max_new_tokens": (int, "a whole number"),
    "seed": (_seed, f"a whole number, or {OFF}"),
    "stop": (_stop_strings, f"one or more strings, or {OFF}"),
}


def change(session: Session, name: str, value: str) -> None:
    """Change a setting; `name` may lack its section."""
    key = whole_name(name)
    check_known(session, name, key)
    if key == "thinking":
        show_thinking(session, value)
    elif key == "turn_line":
        show_turn_line(session, value)
    elif key in SAMPLING:
        session.sampling = sampling_with(session.sampling, key, value)
        session.note(f"{key} = {written(current(session, key))}")
    else:
        change_profile(session, session.conversation.engine.profile.with_overrides([f"{key}={value}"]))


def check_known(session: Session, name: str, key: str) -> None:
    """Raise UsageError, with the nearest name, for a setting that nothing reads now."""
    known = keys(session)
    if key in known:
        return
    belongs = readers(key)
    if belongs:
        section = key.partition(".")[0]
        policy = getattr(session.conversation.engine.profile, section).policy
        raise UsageError(f"{section} policy {policy} has no {key}; it belongs to {', '.join(belongs)}")
    raise UsageError(f"no setting {name!r}; known: {', '.join(known)}{hint(name, [*known, *short_names()])}")


def profile(session: Session, argument: str) -> None:
    """Show the profile, or change it."""
    if argument:
        change_profile(session, load_profile(argument))
        return
    now = session.conversation.engine.profile
    session.data(f"{now.name}: {now.description}\nknown: {', '.join(profile_names())}")


def change_profile(session: Session, wanted: Profile) -> None:
    """Give the engine another profile; what is in the cache stays."""
    session.conversation.engine.set_profile(wanted)
    session.note(f"profile {wanted.name}: {wanted.description}")


def show_thinking(session: Session, value: str) -> None:
    """Show what a model thinks before it answers, or fold it to one line."""
    if value not in THINKING:
        raise UsageError(f"thinking is {value!r}, but must be {' or '.join(THINKING)}")
    session.view.shows_thinking = value == "show"
    session.note(f"thinking = {value}")


def show_turn_line(session: Session, value: str) -> None:
    """Show what a turn measured in a line after it, or do not."""
    if value not in SWITCH:
        raise UsageError(f"turn_line is {value!r}, but must be {' or '.join(SWITCH)}")
    session.turn_line = value == "on"
    session.note(f"turn_line = {value}")


def sampling_with(sampling: SamplingOptions, key: str, value: str) -> SamplingOptions:
    """`sampling` with one value changed; raises UsageError with the key's name."""
    convert, kind = SAMPLING[key]
    try:
        converted = convert(value)
    except ValueError:
        raise UsageError(f"{key} is {value!r}, but must be {kind}") from None
    return replace(sampling, **{key: converted})


def keys(session: Session) -> list[str]:
    """What /set can change: sampling, what is shown, and what the profile's policies read."""
    now = session.conversation.engine.profile
    inside = [f"prefill.{key}" for key in now.prefill.settings] + [f"keep.{key}" for key in now.keep.settings]
    return [*SAMPLING, "thinking", "turn_line", *profile_keys(now, inside)]


def profile_keys(now: Profile, inside: Sequence[str]) -> list[str]:
    """Every key that the profile's policies read, whether it is set or not, and the sections' own."""
    readable = [
        f"{section}.{key}"
        for section, policies in POLICIES.items()
        for key in ("policy", *policies[getattr(now, section).policy])
    ]
    return list(dict.fromkeys([*readable, *inside, *(f"retain.{key}" for key in SETTINGS["retain"])]))


def current(session: Session, key: str) -> Any:
    """A setting's value; None where it is not set."""
    if key in SAMPLING:
        return getattr(session.sampling, key)
    if key == "thinking":
        return "show" if session.view.shows_thinking else "hide"
    if key == "turn_line":
        return "on" if session.turn_line else "off"
    return value_in(session.conversation.engine.profile, key)


def value_in(profile: Profile, key: str) -> Any:
    """A profile's setting; None where its policy reads no such one."""
    section, _, name = key.partition(".")
    if section == "retain":
        return profile.retain.get(name)
    options = getattr(profile, section)
    return options.policy if name == "policy" else options.settings.get(name)


def set_choices(session: Session, before: list[str]) -> Sequence[str]:
    """Completions: a key, then values where they can be listed."""
    if not before:
        return keys(session)
    if len(before) > 1:
        return ()
    if before[0] == "thinking":
        return THINKING
    if before[0] == "turn_line":
        return SWITCH
    section, _, name = before[0].partition(".")
    if name == "policy" and section in POLICIES:
        return list(POLICIES[section])
    setting = SETTINGS.get(section, {}).get(name)
    if setting is not None:
        return setting.choices
    return (OFF,) if before[0] in ("seed", "stop") else ()


def profile_choices(_session: Session, before: list[str]) -> Sequence[str]:
    """Completions: a shipped profile's name."""
    return () if before else profile_names()


def written(value: Any) -> str:
    """A value as `/set` takes it."""
    if value is None or value == ():
        return OFF
    return " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)
