"""The commands that list, show and check profiles: parse and delegate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loopserve_cli import completions
from loopserve_cli.command_group import command_group
from loopserve_cli.examples import epilog
from loopserve_cli.flags import Settings

profiles = command_group("profiles", "Acceleration profiles: list, show or check them.")


@profiles.command("list", epilog=epilog("profiles list"))
def profiles_list() -> int:
    """The profiles by name."""
    from loopserve_cli.profiles_view import list_profiles

    return list_profiles()


@profiles.command("show", epilog=epilog("profiles show"))
def profiles_show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A profile's name, a .toml file, or NAME+SECTION.KEY=VALUE.",
            autocompletion=completions.profiles,
        ),
    ],
    settings: Settings = None,
) -> int:
    """A profile's settings as they take effect, and where they were read."""
    from loopserve_cli.profiles_view import show_profile

    return show_profile(name, settings or [])


@profiles.command("check", epilog=epilog("profiles check"))
def profiles_check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A .toml file.")]) -> int:
    """Whether a profile's file is right, or the first thing that is wrong in it."""
    from loopserve_cli.profiles_view import check_profile

    return check_profile(file)
