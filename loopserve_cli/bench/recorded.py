"""A bundled dialogue as token ids: what every turn says, and how much of it was said before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopserve_cli.conversation import common_prefix
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.replay.script import read_scripts
from loopserve_cli.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """The whole dialogue up to where an answer begins; its first `history` ids are held before the clock starts."""

    ids: list[int]
    history: int


def recorded_turns(tokenizer: PreTrainedTokenizerBase, name: str, most: int | None) -> list[RecordedTurn]:
    """The turns of a bundled dialogue that `most` tokens have room for (None: all), its recorded answers as history.

    Raises UsageError when there is no room for the first.
    """
    [script] = read_scripts([name], "recorded", None)
    template = Template(tokenizer)
    messages = [] if script.system is None else [Message("system", script.system)]
    turns: list[RecordedTurn] = []
    past: list[int] = []
    for exchange in script.exchanges:
        messages.append(Message("user", exchange.user))
        ids = template.ids(messages, generation_prompt=True)
        if most is not None and len(ids) > most:
            break
        # A template may write old turns anew; of the rest at least one token is left to be answered.
        turns.append(RecordedTurn(ids, min(common_prefix(past, ids), len(ids) - 1)))
        messages.append(Message("assistant", exchange.recorded or "", reasoning=exchange.reasoning))
        past = template.ids(messages, generation_prompt=False)
    if not turns:
        raise UsageError(f"--tokens {most} is under the first turn of {name}, which is {len(ids)} tokens; give more")
    return turns
