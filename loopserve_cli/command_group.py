"""A group of commands under one name, which shows its help when none of them is given."""

from __future__ import annotations

import typer

from loopserve_cli.examples import epilog


def command_group(name: str, help: str) -> typer.Typer:
    """The group that `loopserve NAME` is, with the examples of its name, and no command yet."""
    group = typer.Typer(help=help, epilog=epilog(name))
    group.callback(invoke_without_command=True)(help_if_bare)
    return group


def help_if_bare(context: typer.Context) -> None:
    """With no command: the help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
