"""How chat's words are read: --resume may stand without a value, and the user's defaults fill what is not given."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from typer.core import TyperCommand

from loopserve_cli.defaults import Defaults, read_defaults

RESUME = "--resume"
# What --resume says without a value; no shell can pass a NUL on.
NEWEST = "\0newest"


class ChatCommand(TyperCommand):
    """The command `chat`. Typer has no options whose value may be left out (click's `flag_value`)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as ever, once --resume has a value."""
        options = [p for p in self.params if p.param_type_name == "option" and not getattr(p, "is_flag", False)]
        return super().parse_args(ctx, with_newest(args, {name for p in options for name in p.opts}))

    def invoke(self, ctx: Any) -> Any:
        """Run with the user's defaults; here, and not before, since --help needs none. Raises UsageError."""
        fill(ctx, read_defaults())
        return super().invoke(ctx)


def with_newest(words: Sequence[str], takes_value: Container[str]) -> list[str]:
    """The words, with NEWEST behind a --resume that ends them or stands before another option."""
    read: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        read.append(word)
        if word == "--":
            return [*read, *rest]
        if word == RESUME and (not rest or (rest[0].startswith("-") and rest[0] != "-")):
            read.append(NEWEST)
        elif word in takes_value and rest:
            read.append(rest.pop(0))
    return read


def fill(ctx: Any, defaults: Defaults) -> None:
    """Put the defaults where the command line says nothing."""
    for name, value in defaults.flags.items():
        if not given(ctx, name):
            ctx.params[name] = value
    settings = list(ctx.params["settings"] or ())
    ctx.params["settings"] = defaults.with_tier(settings, ctx.params["profile"], asked=given(ctx, "profile"))


def given(ctx: Any, name: str) -> bool:
    """Whether the command line says it."""
    return ctx.get_parameter_source(name).name != "DEFAULT"
