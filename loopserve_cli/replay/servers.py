"""The servers of a replay: connected to before anything else, since their models name what is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loopserve_cli.config import ModelOptions, ReplayOptions
from loopserve_cli.endpoint_options import EndpointOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.endpoint.answer import CountTokens
from loopserve_cli.measure.endpoint.client import Client
from loopserve_cli.measure.endpoint.found import found
from loopserve_cli.measure.endpoint.key import Key
from loopserve_cli.profile import profile_names
from loopserve_cli.replay.remote import AtEndpoint
from loopserve_cli.replay.variant import Watcher

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine


class Servers(contextlib.ExitStack):
    """The connections of a run, closed when it is left."""

    def __init__(self) -> None:
        """None yet."""
        super().__init__()
        self._clients: list[Client] = []

    def found(self, options: ReplayOptions) -> ReplayOptions:
        """The options with every server's model; raises what `found` does, and UsageError for a profile's name."""
        known = {*profile_names(), *(profile.name for profile in options.profiles)}
        otherwise = options.model.model
        endpoints = []
        for endpoint in options.endpoints:
            if endpoint.name in known:
                raise UsageError(f"--endpoint {endpoint.name}=...: that is a profile's name; give the server another")
            self._clients.append(self.enter_context(Client(endpoint, Key.of(endpoint))))
            endpoints.append(found(self._clients[-1], None if otherwise == ModelOptions().model else otherwise))
        return replace(options, endpoints=tuple(endpoints))

    def variants(self, options: ReplayOptions, watcher: Watcher, engine: Engine | None) -> Sequence[AtEndpoint]:
        """One for each server; the engine's tokenizer, where there is one, counts what a server does not."""
        count = counting(engine) if engine is not None else None
        made = zip(self._clients, options.endpoints, strict=True)
        return [_at(client, endpoint, options, watcher, count) for client, endpoint in made]


def _at(
    client: Client, endpoint: EndpointOptions, options: ReplayOptions, watcher: Watcher, count: CountTokens | None
) -> AtEndpoint:
    client.warn = watcher.warn
    return AtEndpoint(client, endpoint, options, watcher, count)


def counting(engine: Engine) -> CountTokens:
    """How many tokens a text is to the engine's model."""
    return lambda text: len(engine.tokenizer(text, add_special_tokens=False).input_ids)
