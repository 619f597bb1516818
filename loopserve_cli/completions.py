"""What a shell completes the flags' values to: names only, so that nothing heavy is imported for a Tab.

Typer asks each with the word so far, and drops nothing itself. A name may come with a line that some shells show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from loopserve_cli.errors import LoopserveError
from loopserve_cli.profile import DEFAULTS, SETTINGS, load_profile, profile_names

Completions = list[str] | list[tuple[str, str]]

# Files whose head is read for one Tab.
MOST_DIALOGUES = 50


def profiles(incomplete: str) -> Completions:
    """The shipped profiles, each with what it does."""
    return [(name, load_profile(name).description) for name in begun(profile_names(), incomplete)]


def settings(incomplete: str) -> Completions:
    """The keys of --set with their "="; of a key that is the only one, or typed to its "=", the values."""
    keys = [f"{section}.{key}" for section in SETTINGS for key in _keys(section)]
    name, equals, _ = incomplete.partition("=")
    if equals:
        return begun(_values(name), incomplete) if name in keys else []
    found = begun(keys, name)
    return _values(found[0]) if len(found) == 1 else [f"{key}=" for key in found]


def models(incomplete: str) -> Completions:
    """The models at hand, as --model takes them; the shapes of random ones once "random:" is begun."""
    from loopserve_cli.engine.names import known_models

    wanted = ":" if incomplete[:1] == "r" else ""
    return begun(sorted(set(known_models(wanted).values())), incomplete)


def dialogues(incomplete: str) -> Completions:
    """The newest saved dialogues by name, each with how it begins."""
    from loopserve_cli.chats.listing import look, saved_files

    found: list[tuple[str, str]] = []
    for path in saved_files():
        if len(found) < MOST_DIALOGUES and path.stem.startswith(incomplete):
            try:
                found.append((path.stem, look(path).opening[:60]))
            except LoopserveError:
                continue
    return found


def one_of(*choices: str) -> Callable[[str], Completions]:
    """The words that a flag takes."""
    return lambda incomplete: begun(choices, incomplete)


def begun(names: Iterable[str], incomplete: str) -> list[str]:
    """The names that begin with what is typed."""
    return [name for name in names if name.startswith(incomplete)]


def _keys(section: str) -> list[str]:
    return [*(["policy"] if section in DEFAULTS else []), *SETTINGS[section]]


def _values(name: str) -> list[str]:
    """What may stand there, where it can be listed; else nothing yet, so that a shell stays there, and a usual one."""
    section, _, key = name.partition(".")
    policies = DEFAULTS.get(section, {})
    if key == "policy":
        return [f"{name}={policy}" for policy in policies]
    usual = [own[key] for own in policies.values() if key in own]
    choices = SETTINGS[section][key].choices
    return [f"{name}={value}" for value in choices or ("", *usual[:1])]
