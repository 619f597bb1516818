"""Which model of a server is meant, and what its turns are called: found out before anything is measured."""

from __future__ import annotations

from dataclasses import replace

from loopserve_cli.endpoint_options import EndpointOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.endpoint.client import Client
from loopserve_cli.measure.endpoint.refusal import listed
from loopserve_cli.nearest import hint


def found(client: Client, otherwise: str | None = None) -> EndpointOptions:
    """The options with the model's name: the one given, else the server's only one, else `otherwise`.

    Raises UsageError where none is meant, and what asking raises: a server that is not there is told before a model is
    loaded.
    """
    options, names = client.options, client.models()
    if options.model is not None:
        return options
    if len(names) == 1:
        return replace(options, model=names[0])
    if otherwise is not None and (otherwise in names or not names):
        return replace(options, model=otherwise)
    if not names:
        raise UsageError(f"{options.url} does not tell what models it has; give --endpoint-model NAME")
    near = hint(otherwise, names) if otherwise is not None else ""
    raise UsageError(f"{options.url} has {listed(names)}; give one as --endpoint-model{near}")
