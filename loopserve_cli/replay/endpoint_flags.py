"""The flags of `replay` for servers that are measured beside the engine here, or alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import typer

from loopserve_cli.config import ModelOptions, ReplayOptions
from loopserve_cli.endpoint_options import EXAMPLE, KEY_VARIABLE, PATIENCE_S, endpoints
from loopserve_cli.errors import UsageError

Beside = Callable[[ReplayOptions], ReplayOptions]
# What asks for the engine here.
OF_PROFILES = ("profile", "settings")


def endpoint_flags(
    invocation: typer.Context,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]URL",
            help=f"Measure a server that speaks OpenAI's chat completions, e.g. {EXAMPLE}; repeatable. Without "
            "--profile it alone: then no model is loaded here, and --model is the server's.",
        ),
    ] = None,
    endpoint_model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What the server calls its model; once, or once for each --endpoint. Default: its only one, else "
            "--model's name.",
        ),
    ] = None,
    endpoint_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a server may send no token.")
    ] = PATIENCE_S,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="The environment variable that holds the server's key; once, or once for each --endpoint. "
            f"Default: {KEY_VARIABLE}, where it is set.",
        ),
    ] = None,
) -> Beside:
    """Which servers; what this returns puts them into the options."""
    models = list(endpoint_model or ())
    if endpoint and not models and not _given(invocation, *OF_PROFILES) and _given(invocation, "model"):
        models = [invocation.params["model"]]
    servers = endpoints(endpoint or (), models, api_key_env or (), endpoint_timeout)

    def beside(options: ReplayOptions) -> ReplayOptions:
        if not servers or _given(invocation, *OF_PROFILES):
            return replace(options, endpoints=servers)
        if replace(options.model, model=ModelOptions().model) != ModelOptions():
            raise UsageError("no --profile is given, so no model is loaded here: drop --dtype, --device and the like")
        return replace(options, endpoints=servers, profiles=())

    return beside


def _given(invocation: typer.Context, *flags: str) -> bool:
    """Whether the command line has one of them."""
    sources = (invocation.get_parameter_source(flag) for flag in flags)
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)
