"""Benchmarks of several turns, most of them questions with or without answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from loopserve_cli.messages import Message
from loopserve_cli.transcript.formats.beside import dialogue, lost_in
from loopserve_cli.transcript.formats.found import Found, Record, Rows
from loopserve_cli.transcript.place import Place, as_id, as_list, as_object, as_text, need, shown


def aiperf(rows: Rows) -> list[Found]:
    """aiperf: user turns whose answers nobody knows, in one record or several of a session; delays are passed over."""
    said = []
    lost: set[str] = set()
    for place, record in rows:
        if "turns" in record:
            turns = as_list(record["turns"], "turns", place)
            places = [place.within(f"turn {number}") for number in range(1, len(turns) + 1)]
        else:
            turns, places = [record], [place]
        lost |= lost_in(turns)
        for where, value in zip(places, turns, strict=True):
            turn = as_object(value, where, "every turn needs text")
            if turn.get("role", "user") not in ("user", None):
                raise where.error(f"role {shown(str(turn['role']))} is unknown here; only user turns can be read")
            text = need(turn, "text", where, "only turns of text can be read")
            said.append(Message("user", as_text(text, "text", where)))
    return [dialogue(rows[0][1], said, rows[0][0], ("session_id",), lost)]


def session_of(record: Record) -> str | None:
    """The session that an aiperf record belongs to."""
    return as_id(record.get("session_id"))


def mt_bench(record: Record, place: Place) -> Found:
    """MT-Bench's question.jsonl (arXiv 2306.05685): questions without answers; a `reference` is none that was given.

    The copy that Hugging Face keeps names the turns `prompt`.
    """
    name = "turns" if "turns" in record else "prompt"
    turns = as_list(need(record, name, place, "every record needs turns"), name, place)
    said = [Message("user", as_text(text, f"turn {number}", place)) for number, text in enumerate(turns, 1)]
    return dialogue(record, said, place, ("question_id", "prompt_id", "session_id", "id"))


def mt_bench_101(record: Record, place: Place) -> Found:
    """MT-Bench-101 (arXiv 2402.14762): turns of user and bot; its ids count through all tasks."""
    said: list[Message] = []
    turns = as_list(need(record, "history", place, "every record needs it"), "history", place)
    for number, value in enumerate(turns, 1):
        where = place.within(f"turn {number}")
        turn = as_object(value, where, "every turn needs user and bot")
        said.append(Message("user", as_text(need(turn, "user", where, "every turn needs it"), "user", where)))
        said += answer_of(turn, "bot", where)
    check_answers(said, place)
    return dialogue(record, said, place)


def is_mt_bench(record: Record) -> bool:
    """Whether turns are text, or the record is an MT-Bench question."""
    turns = record.get("turns", record.get("prompt"))
    return isinstance(turns, list) and ("question_id" in record or (bool(turns) and isinstance(turns[0], str)))


def is_mt_bench_101(record: Record) -> bool:
    """Whether the history is of user and bot."""
    history = record.get("history")
    return isinstance(history, list) and bool(history) and isinstance(history[0], dict) and "user" in history[0]


def loopserve_benchmark(rows: Rows) -> list[Found]:
    """LoopServe's benchmark: a dialogue for every question position, which the names of the prompts tell.

    `prompt_back` is a turn's whole text with the question at its back; where a prompt lacks its
    `question_at_back` or `question_at_front`, the question is put at that end.
    """
    place, record = rows[0]
    needs = "every record needs a list of turns"
    turns = as_list(need(record, "multi_turn", place, needs), "multi_turn", place)
    first = as_object(turns[0], place.within("turn 1"), "a turn needs prompt_front or prompt_back")
    positions = [n.removeprefix("prompt_") for n, v in first.items() if n.startswith("prompt_") and v is not None]
    if not positions:
        raise place.within("turn 1").error("prompt_back is missing; a turn needs a prompt_POSITION field")
    found = []
    for position in positions:
        said = []
        for number, value in enumerate(turns, 1):
            where = place.within(f"turn {number}")
            turn = as_object(value, where, f"every turn needs prompt_{position}")
            said.append(Message("user", _positioned(turn, position, where)))
            said += answer_of(turn, "answer" if "answer" in turn else "answers", where)
        check_answers(said, place)
        found.append(replace(dialogue(record, said, place), label=position))
    return found


def scbench(record: Record, place: Place) -> Found:
    """SCBench: the shared context goes before the first question; of several accepted answers the first is taken."""
    needs = "a record needs context and multi_turns"
    context = need(record, "context", place, needs)
    if isinstance(context, list):  # the "find the number" task gives its context as a list of numbers
        context = json.dumps(context, ensure_ascii=False)
    context = as_text(context, "context", place)
    said: list[Message] = []
    for number, value in enumerate(as_list(need(record, "multi_turns", place, needs), "multi_turns", place), 1):
        where = place.within(f"turn {number}")
        turn = as_object(value, where, "every turn needs input")
        question = as_text(need(turn, "input", where, "every turn needs input"), "input", where)
        said.append(Message("user", f"{context}\n\n{question}" if number == 1 else question))
        said += answer_of(turn, "answer", where)
    check_answers(said, place)
    return dialogue(record, said, place)


def _positioned(turn: dict[str, Any], position: str, place: Place) -> str:
    """The prompt of one question position, with the question in it."""
    name = f"prompt_{position}"
    prompt = as_text(need(turn, name, place, "every turn needs what the first has"), name, place)
    if turn.get(f"question_at_{position}") is None:
        return prompt
    question = as_text(turn[f"question_at_{position}"], f"question_at_{position}", place)
    if question.strip() in prompt:
        return prompt
    if position == "front":
        return f"{question}\n\n{prompt}"
    if position == "back":
        return f"{prompt}\n\n{question}"
    raise place.error(f"question_at_{position} is not part of {name}; write the question where it is asked")


def answer_of(turn: dict[str, Any], name: str, place: Place) -> list[Message]:
    """The turn's answer as a message, or nothing where there is none; of a list the first, a number as text."""
    value = turn.get(name)
    if isinstance(value, list):
        value = as_list(value, name, place)[0]
    if value is None:
        return []
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return [Message("assistant", as_text(value, name, place))]


def check_answers(said: list[Message], place: Place) -> None:
    """Every turn but the last has an answer, or none has."""
    questions = sum(m.role == "user" for m in said)
    answers = len(said) - questions
    if answers and (answers < questions - 1 or (answers == questions - 1 and said[-1].role != "user")):
        raise place.error(f"answer is missing in {questions - answers} of {questions} turns; give all of them or none")
