"""A server, as a variant of a replay: the same dialogues, the same history, over HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loopserve_cli.config import ReplayOptions, SamplingOptions
from loopserve_cli.endpoint_options import EndpointOptions
from loopserve_cli.errors import EndpointError, LoopserveError
from loopserve_cli.measure.endpoint.answer import Answer, CountTokens
from loopserve_cli.measure.endpoint.client import Client
from loopserve_cli.measure.endpoint.refusal import listed
from loopserve_cli.measure.endpoint.request import request_of
from loopserve_cli.measure.measured import Measured
from loopserve_cli.messages import Message
from loopserve_cli.replay.script import Exchange, Script
from loopserve_cli.replay.variant import WARM_UP_TEXT, WARM_UP_TOKENS, Watcher, failed
from loopserve_cli.stats import ENDPOINT, TurnRecord, versions

# What here took part: what the server runs is unknown.
OURS = ("python", "loopserve")


class AtEndpoint:
    """One model of one server. `goes_first` is False: full attention here is what others are compared with."""

    goes_first = False

    def __init__(
        self,
        client: Client,
        endpoint: EndpointOptions,
        options: ReplayOptions,
        watcher: Watcher,
        count: CountTokens | None = None,
    ) -> None:
        """`endpoint` names the model; `count` counts the tokens of an answer where the server does not."""
        self.client = client
        self.endpoint = endpoint
        self.options = options
        self.watcher = watcher
        self._count = count
        self._versions = {name: version for name, version in versions().items() if name in OURS}
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        """The server's, as its turns are recorded."""
        return self.endpoint.called

    def warm_up(self) -> None:
        """One tiny turn; raises UsageError where the server knows neither model nor key.

        Of a server that fails otherwise the dialogues' records tell.
        """
        with contextlib.suppress(EndpointError):
            self._ask([Message("user", WARM_UP_TEXT)], (), WARM_UP_TOKENS)
            if self.client.names and self.endpoint.model not in self.client.names:
                has = listed(self.client.names)
                self._warn("model", f"the server has {has}, not {self.endpoint.model}: it may answer by another model")

    def dialogue(self, script: Script, repeat: int, first: int) -> Iterator[Measured]:
        """The dialogue's turns from the first to be measured on; one that fails is the last."""
        history = [Message("system", script.system)] if script.system and script.system.strip() else []
        self._connect(history, script, first)
        for number, exchange in enumerate(script.exchanges, start=1):
            history.append(Message("user", exchange.user))
            said = exchange.recorded or ""
            if number >= first:
                try:
                    record = self._turn(history, script, number, repeat)
                except LoopserveError as error:
                    left = len(script.exchanges) - number
                    self.watcher.advance(left)
                    yield Measured(self._complete(failed(script, number, error, left), number, script, repeat))
                    return
                yield Measured(record)
                said = said if script.history == "recorded" else record.output_text or ""
            history.append(Message("assistant", said))

    def _connect(self, system: Sequence[Message], script: Script, first: int) -> None:
        """Have a connection, and the history before a turn that is not the first where the server keeps it.

        What is wrong with the server is told by the turn that follows.
        """
        with contextlib.suppress(LoopserveError):
            self.client.models()
            if first > 1:
                self._ask([*system, *spoken(script.exchanges[: first - 1])], script.tools, 1)

    def _turn(self, history: Sequence[Message], script: Script, number: int, repeat: int) -> TurnRecord:
        """Ask, and read the answer. Nothing is drawn meanwhile: the server's clock goes on."""
        self.watcher.asked()
        answer = self._ask(history, script.tools, self.options.sampling.max_new_tokens)
        if answer.usage_is_wrong:
            wrong = f"the server counts {answer.usage.output} tokens in {answer.chunks} chunks of text"
            self._warn("usage", f"{wrong}, so they are counted here")
        record = answer.record(self.endpoint.model or "", self._count)
        if number == 1 and (record.tokens_cached or 0) > (record.tokens_new or 0):
            kept = f"the server still has {record.tokens_cached} tokens of {script.id}'s first turn"
            self._warn("cached", f"{kept}: its first tokens come sooner than those of a dialogue that is new to it")
        return self._complete(record, number, script, repeat)

    def _ask(self, history: Sequence[Message], tools: Sequence[Mapping[str, Any]], most_tokens: int) -> Answer:
        sampling: SamplingOptions = replace(self.options.sampling, max_new_tokens=most_tokens)
        body = request_of(self.endpoint.model or "", history, sampling, tools)
        with self.client.asked(body) as asked:
            answer = Answer(asked.submitted)
            for chunk in asked.chunks:
                answer.add(chunk)
        return answer

    def _complete(self, record: TurnRecord, number: int, script: Script, repeat: int) -> TurnRecord:
        """The record with what the replay knows."""
        return replace(
            record,
            conversation_id=script.id,
            turn=number,
            profile=self.name,
            repeat=repeat,
            model=self.endpoint.model,
            device=ENDPOINT,
            seed=self.options.sampling.seed,
            versions=self._versions,
        )

    def _warn(self, kind: str, line: str) -> None:
        """Say once what may hold for every turn."""
        if kind not in self._told:
            self._told.add(kind)
            self.watcher.warn(f"{self.name}: {line}")


def spoken(exchanges: Sequence[Exchange]) -> list[Message]:
    """The recorded messages up to the last question, which has no answer yet."""
    messages: list[Message] = []
    for exchange in exchanges:
        messages += [Message("user", exchange.user), Message("assistant", exchange.recorded or "")]
    return messages[:-1]
