"""An answer as token ids: those with which a model would say it."""

from __future__ import annotations

from collections.abc import Container, Sequence

from loopserve_cli.conversation.prefix import common_prefix
from loopserve_cli.messages import Message
from loopserve_cli.template import Template


def answer_ids(template: Template, asked: Sequence[Message], answer: Message, stop_ids: Container[int]) -> list[int]:
    """The ids with which the model would say `answer` to what was asked, up to the token that ends it.

    A partial answer ends without that token. Empty where the template writes what was said before otherwise once there
    is an answer.
    """
    prompt = template.ids(asked, generation_prompt=True)
    whole = template.ids([*asked, Message("assistant", answer.content, reasoning=answer.reasoning)], False)
    said = common_prefix(template.ids(asked, generation_prompt=False), prompt)
    begins = common_prefix(prompt, whole)
    if begins < said:
        return []
    ids = whole[begins:]
    end = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[: end if answer.partial else end + 1]
