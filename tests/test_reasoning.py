"""What a model thinks, from its tokens to the record, the transcript and the next prompt."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.replay.script import script_of
from loopserve_cli.stats import TurnRecord
from loopserve_cli.template.reasoning import AS_PARTS, reasoning_field, with_reasoning
from loopserve_cli.transcript import Header, TranscriptWriter, read_dialogues, resume

HARMONY_TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|return|>")
# As gpt-oss's own: thoughts are written only where the dialogue ends with them.
HARMONY = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last and not add_generation_prompt %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# As Magistral's: thoughts are a part of the content, and stay in the history.
PARTS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{% if p['type'] == 'thinking' %}{{ '[THINK]' + p['thinking'] + '[/THINK]' }}"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GREEDY = SamplingOptions(max_new_tokens=60)


def talk_in(template: str, special: tuple[str, ...], end: str) -> Conversation:
    """A dialogue on a tiny model that has the tokens, and stops at `end`."""
    made = tiny.loaded("llama")
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    made.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    stop = tokenizer.convert_tokens_to_ids(end)
    return Conversation(Engine(replace(made, tokenizer=tokenizer, stop_ids=frozenset({stop})), load_profile("full")))


class Said:
    """In the sampler's place: draws the ids it is given, whatever the logits."""

    ids: Iterator[int] = iter(())

    def __init__(self, *_: Any) -> None: ...

    plain = False

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.full((len(logits), 1), next(self.ids))

    def read(self, token: torch.Tensor) -> int:
        return int(token)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopserve_cli.engine.turn.Sampler", Said)


def ask(
    talk: Conversation, text: str, answer: str, sampling: SamplingOptions = GREEDY
) -> tuple[TurnRecord, list[Token]]:
    """A turn in which the model says `answer`, special tokens and all."""
    Said.ids = iter(talk.engine.tokenizer(answer, add_special_tokens=False).input_ids)
    *events, done = talk.ask(text, sampling)
    assert isinstance(done, TurnDone)
    return done.record, [event for event in events if isinstance(event, Token)]


def fed_before_the_answer(talk: Conversation, **of_answer: Any) -> list[int]:
    """What the template writes up to the last question, given the rows that it is said to read."""
    rows = [{"role": m.role, "content": m.content} for m in talk.messages[:-1]]
    for row, message in zip(rows, talk.messages, strict=False):
        if message.role == "assistant":
            row.update(of_answer)
    tokenizer = talk.engine.tokenizer
    return list(tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False))


FOUR = (
    "<|channel|>analysis<|message|>We add two and two.<|end|><|start|>assistant<|channel|>final<|message|>It is four."
)


def test_channels_are_told_apart_recorded_and_not_fed_again() -> None:
    talk = talk_in(HARMONY, HARMONY_TOKENS, "<|return|>")
    record, tokens = ask(talk, "What is 2+2?", FOUR + "<|return|>")
    assert talk.messages[-1] == Message("assistant", "It is four.", False, record, "We add two and two.")
    assert (record.output_text, record.reasoning_text) == ("It is four.", "We add two and two.")
    assert "".join(t.text for t in tokens if t.reasoning) == "We add two and two."
    assert "".join(t.text for t in tokens if not t.reasoning) == "It is four."
    tokenizer = talk.engine.tokenizer
    assert record.tokens_reasoning == len(tokenizer("We add two and two.").input_ids)
    assert record.tokens_output == len(tokens) == len(tokenizer(FOUR).input_ids) + 1
    assert record.ttft_ms is not None and record.first_answer_ms is not None
    first = next(n for n, t in enumerate(tokens) if t.text and not t.reasoning)
    assert record.first_answer_ms == pytest.approx(record.ttft_ms + sum(record.itl_ms[:first]))

    held = list(talk.engine.tokens)
    again, _ = ask(talk, "Sure?", "<|channel|>final<|message|>Yes.<|return|>")
    expected = fed_before_the_answer(talk, thinking="We add two and two.")
    assert again.tokens_new + again.tokens_cached == len(expected)
    agreed = next(n for n, (old, new) in enumerate(zip(held, expected, strict=False)) if old != new)
    assert (again.tokens_cached, again.tokens_rolled_back) == (agreed, len(held) - agreed)
    assert again.tokens_reasoning == 0 and again.first_answer_ms is not None


def test_thoughts_that_the_template_keeps_are_not_fed_again() -> None:
    talk = talk_in(PARTS, ("[THINK]", "[/THINK]"), "<|end|>")
    ask(talk, "What is 2+2?", "[THINK]two and two[/THINK]Four.<|end|>")
    record, _ = ask(talk, "Sure?", "Yes.<|end|>")
    assert record.tokens_rolled_back == 0
    parts = [{"type": "thinking", "thinking": "two and two"}, {"type": "text", "text": "Four."}]
    assert talk.engine.tokens[: record.tokens_cached + record.tokens_new] == fed_before_the_answer(talk, content=parts)


def test_a_recorded_answer_comes_with_its_thoughts() -> None:
    talk = talk_in(PARTS, ("[THINK]", "[/THINK]"), "<|end|>")
    ask(talk, "What is 2+2?", "Hm.<|end|>")
    talk.replace_answer("Four.", "two and two")
    text = talk.engine.tokenizer.decode(talk.engine.tokens)
    assert text.endswith("<|assistant|>[THINK]two and two[/THINK]Four.<|end|>")
    talk.replace_answer("Five.")
    assert talk.engine.tokenizer.decode(talk.engine.tokens).endswith("<|assistant|>Five.<|end|>")
    assert talk.messages[-1].reasoning is None


def test_an_answer_cut_while_it_thinks_has_no_text() -> None:
    talk = talk_in(PARTS, ("[THINK]", "[/THINK]"), "<|end|>")
    record, tokens = ask(talk, "What is 2+2?", "[THINK]two and two and two", SamplingOptions(max_new_tokens=4))
    assert record.finish_reason == "length" and record.tokens_reasoning == 3
    assert (record.output_text, record.first_answer_ms) == ("", None)
    assert record.reasoning_text == talk.messages[-1].reasoning == "".join(t.text for t in tokens) != ""


def test_a_model_that_does_not_think_aloud_has_nothing_to_count() -> None:
    talk = Conversation(Engine(tiny.loaded("llama"), load_profile("full")))
    record, _ = ask(talk, "Hello.", "<think>Hello</think> you<|end|>")
    assert record.output_text == "<think>Hello</think> you"
    assert (record.tokens_reasoning, record.reasoning_text) == (None, None)
    assert record.first_answer_ms == record.ttft_ms
    assert talk.messages[-1].reasoning is None


def test_transcripts_keep_thoughts_apart(tmp_path: Path) -> None:
    said = [Message("user", "a"), Message("assistant", "b", reasoning="c\n\nd"), Message("user", "e")]
    TranscriptWriter(tmp_path / "t.jsonl", Header("m", "full", id="x")).rewrite(said)
    assert resume(tmp_path / "t.jsonl")[1] == said
    [dialogue] = read_dialogues(tmp_path / "t.jsonl")
    script = script_of(dialogue, "t", "recorded", None)
    assert (script.exchanges[0].recorded, script.exchanges[0].reasoning) == ("b", "c\n\nd")


def test_stopped_while_it_thinks_the_answer_is_partial_and_empty() -> None:
    talk = talk_in(PARTS, ("[THINK]", "[/THINK]"), "<|end|>")
    Said.ids = iter(talk.engine.tokenizer("[THINK]two and two", add_special_tokens=False).input_ids)
    thought: list[str] = []
    for event in talk.ask("What is 2+2?", GREEDY, cancelled=lambda: len(thought) == 2):
        if isinstance(event, Token) and event.reasoning:
            thought.append(event.text)
    last = talk.messages[-1]
    assert (last.partial, last.content, last.reasoning) == (True, "", "".join(thought))


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ("{% if message.reasoning_content is string %}{{ m.thinking }}", "reasoning_content"),
        ("{% set rc = message.get('reasoning_content') or message.get('reasoning') %}", "reasoning_content"),
        ("{% if message.reasoning %}", "reasoning"),
        ('{% if "thinking" in message %}{{ message.thinking }}', "thinking"),
        ("{{ message['thought'] }}", "thought"),
        ("{% elif block['type'] == 'thinking' %}{{ block['thinking'] }}", AS_PARTS),
        ("{% if part.type == 'thinking' %}{{ part.thinking }}", AS_PARTS),
        ("{% if not thinking is defined %}{% set thinking = false %}", None),
        ("{{ content.split('</think>')[-1] }}", None),
    ],
)
def test_the_template_says_under_which_name_it_reads_thoughts(template: str, field: str | None) -> None:
    assert reasoning_field(template) == field


def test_thoughts_go_where_the_template_reads_them_and_never_into_the_answer() -> None:
    row = {"role": "assistant", "content": "four"}
    assert with_reasoning(row, "hm", "thinking") == {**row, "thinking": "hm"}
    assert with_reasoning(row, "hm", None) == with_reasoning(row, None, "thinking") == row
    thought = {"type": "thinking", "thinking": "hm"}
    parts = [{"type": "text", "text": "four"}]
    assert with_reasoning(row, "hm", AS_PARTS)["content"] == [thought, *parts]
    assert with_reasoning({**row, "content": parts}, "hm", AS_PARTS)["content"] == [thought, *parts]
