"""Records that are a list of messages, under whatever name."""

from __future__ import annotations

from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.beside import dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record
from loopserve_cli.transcript.formats.rows import SHAREGPT_ROLES, content_of, messages, thought_texts
from loopserve_cli.transcript.place import Place, as_list, as_object, as_text, need

NEEDED = "every record needs it"


def openai(record: Record, place: Place) -> Found:
    """OpenAI messages; vLLM's multi-turn files are the same with an id, requests to Ollama with options."""
    rows = as_list(need(record, "messages", place, NEEDED), "messages", place)
    return dialogue(record, messages(rows, place), place, lost=lost_in(rows))


def sharegpt(record: Record, place: Place) -> Found:
    """ShareGPT, from/value or role/content; LLaMA-Factory puts system and tools (as JSON text) beside."""
    rows = as_list(need(record, "conversations", place, NEEDED), "conversations", place)
    return dialogue(record, messages(rows, place, SHAREGPT_ROLES), place, lost=lost_in(rows))


def conversation(record: Record, place: Place) -> Found:
    """WildChat-1M and LMSYS-Chat-1M: role/content messages with further fields under `conversation`."""
    rows = as_list(need(record, "conversation", place, NEEDED), "conversation", place)
    ids = ("conversation_id", "conversation_hash", "id")
    return dialogue(record, messages(rows, place, SHAREGPT_ROLES), place, ids, lost_in(rows))


def multichallenge(record: Record, place: Place) -> Found:
    """MultiChallenge (arXiv 2501.17399): the last message is the user's, its rubric is passed over."""
    rows = as_list(need(record, "CONVERSATION", place, NEEDED), "CONVERSATION", place)
    return dialogue(record, messages(rows, place), place, ("QUESTION_ID",), lost_in(rows))


def responses(record: Record, place: Place) -> Found:
    """A request to OpenAI's Responses API: `input` is text, or messages and what the model thought before them."""
    given = need(record, "input", place, NEEDED)
    beside = {**record, "system": record.get("instructions")}
    if isinstance(given, str):
        return dialogue(beside, [Message("user", as_text(given, "input", place))], place)
    rows: list[Any] = []
    thoughts: list[str] = []
    for number, value in enumerate(as_list(given, "input", place), 1):
        where = place.within(f"input {number}")
        item = as_object(value, where, "every item of input is an object")
        if item.get("type") == "reasoning":
            thoughts += thought_texts(item.get("summary"), where)
        elif item.get("type", "message") != "message":
            raise where.error("is no message; only messages of text can be read, remove the tool calls")
        elif thoughts and item.get("role") == "assistant":
            rows.append({**item, "reasoning": "\n\n".join(thoughts)})
            thoughts = []
        else:
            rows.append(item)
    return dialogue(beside, messages(rows, place), place, lost=lost_in(rows))


def generate(record: Record, place: Place) -> Found:
    """A request to Ollama's generate, with its `response` where it was kept."""
    prompt = as_text(need(record, "prompt", place, NEEDED), "prompt", place)
    lost = {name for name in ("template", "suffix", "context") if record.get(name)}
    said = [Message("user", prompt)]
    answer = record.get("response")
    if isinstance(answer, str) and answer.strip():
        thinking = record.get("thinking")
        thought = content_of(thinking, "thinking", place)[0] if isinstance(thinking, str) and thinking.strip() else None
        said.append(Message("assistant", as_text(answer, "response", place), reasoning=thought))
    return dialogue(record, said, place, lost=lost)


def listed(record: Record, place: Place) -> Found:
    """A list of messages under a name of its own, such as `dialog` or `history`."""
    names = message_lists(record)
    if not names:
        raise place.error("no field is a list of messages; every message needs role and content")
    rows = record[names[0]]
    return dialogue(record, messages(rows, place, SHAREGPT_ROLES), place, lost=lost_in(rows))


def message_lists(record: Record) -> list[str]:
    """The fields that are lists of messages, of role and content or of from and value."""
    return [name for name, value in record.items() if isinstance(value, list) and value and _is_whole(value[0])]


def _is_whole(value: Any) -> bool:
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def is_responses(record: Record) -> bool:
    """Whether the record is a request with `input`: a list of objects, or text for a named model."""
    given = record.get("input")
    if isinstance(given, list):
        return bool(given) and isinstance(given[0], dict) and ("role" in given[0] or "type" in given[0])
    return isinstance(given, str) and ("model" in record or "instructions" in record) and "output" not in record
