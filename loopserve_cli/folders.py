"""Where loopserve keeps files of its own in the user's home, by the rules of each system."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "loopserve"


def config_folder() -> Path:
    """What a user sets or measures once; not created here."""
    try:
        from platformdirs import user_config_path
    except ImportError:  # a bare Linux machine, where these are platformdirs' rules
        return _xdg("XDG_CONFIG_HOME", ".config")
    return user_config_path(NAME, appauthor=False)


def cache_folder() -> Path:
    """What can be found out again; not created here."""
    try:
        from platformdirs import user_cache_path
    except ImportError:
        return _xdg("XDG_CACHE_HOME", ".cache")
    return user_cache_path(NAME, appauthor=False)


def state_folder() -> Path:
    """What grows with use, dialogues among it; not created here."""
    try:
        from platformdirs import user_state_path
    except ImportError:
        return _xdg("XDG_STATE_HOME", ".local/state")
    return user_state_path(NAME, appauthor=False)


def transcripts_folder() -> Path:
    """Where the dialogues are that were given no name; not created here."""
    return state_folder() / "transcripts"


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, "").strip() or Path.home() / default) / NAME
