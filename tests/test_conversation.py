"""Conversation: what is fed is exactly what the template says, and every edit returns to that."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation, common_prefix
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.errors import ContextLimitError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord
from loopserve_cli.template import Template

SHORT = SamplingOptions(max_new_tokens=6)
# Like Qwen3's: what the assistant thought is dropped from all turns but the last.
FORGETFUL = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('a')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# Like Qwen3.5's: there is no rendering a dialogue in which nobody asked anything.
WANTS_A_USER = (
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}"
    "{{ raise_exception('No user query found') }}{% endif %}"
)


def conversation(system: str | None = None, **more: Any) -> Conversation:
    return Conversation(Engine(tiny.loaded("llama"), load_profile("full")), system, **more)


def ask(talk: Conversation, text: str, sampling: SamplingOptions = SHORT) -> TurnRecord:
    done = list(talk.ask(text, sampling))[-1]
    assert isinstance(done, TurnDone)
    return done.record


def whole(talk: Conversation, generation_prompt: bool = False) -> list[int]:
    """The dialogue tokenised in one piece, without the conversation's own table."""
    rows = [{"role": m.role, "content": m.content} for m in talk.messages]
    tokenizer = talk.engine.tokenizer
    text = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=generation_prompt)
    return tokenizer(text, add_special_tokens=False).input_ids


def test_only_new_tokens_are_fed() -> None:
    talk = conversation("Be brief.")
    first = ask(talk, "The room of Miro is 417.")
    assert first.tokens_cached == 0 and first.turn == 1 and first.conversation_id == talk.id
    before = len(talk.engine.tokens)
    second = ask(talk, "What is the room of Miro?")
    assert second.turn == 2
    assert second.tokens_cached == before - second.tokens_rolled_back
    assert second.tokens_new + second.tokens_cached == len(whole_before_answer(talk))


def whole_before_answer(talk: Conversation) -> list[int]:
    answered = talk.messages
    talk.messages = answered[:-1]
    try:
        return whole(talk, generation_prompt=True)
    finally:
        talk.messages = answered


def test_fed_ids_are_the_template_s_ids_every_turn() -> None:
    talk = conversation(special_tokens=True)
    fed: list[list[int]] = []
    original = talk.engine.turn

    def spy(ids: list[int], *rest: Any) -> Any:
        fed.append(talk.engine.tokens + ids)
        return original(ids, *rest)

    talk.engine.turn = spy  # type: ignore[method-assign]
    for text in ("One.", "Two two.", "Three 3 three.", "<|user|> four", "5"):
        ask(talk, text)
        assert fed[-1] == whole_before_answer(talk)


def test_resuming_feeds_what_going_on_would_have_fed() -> None:
    straight = conversation("Be brief.")
    for text in ("Hello.", "The desk of Zuvi is 881.", "And now?"):
        ask(straight, text)
    resumed = conversation()
    resumed.load(straight.messages)
    resumed.prefill()
    assert ask(resumed, "Go on.").output_text == ask(straight, "Go on.").output_text
    assert resumed.engine.tokens == straight.engine.tokens


def test_undo_returns_to_the_turn_before() -> None:
    talk = conversation()
    ask(talk, "First.")
    ask(talk, "Second.")
    assert talk.undo() == "Second."
    assert [m.content for m in talk.messages if m.role == "user"] == ["First."]
    assert len(talk.engine.tokens) <= len(whole(talk))
    fresh = conversation()
    fresh.load(talk.messages)
    assert ask(talk, "Third.").output_text == ask(fresh, "Third.").output_text
    assert talk.undo() == "Third." and talk.undo() == "First." and talk.undo() is None
    assert talk.messages == [] and talk.engine.tokens == []


def test_undo_of_the_first_turn_does_not_ask_a_template_that_wants_a_user() -> None:
    talk = conversation("Be brief.")
    talk.engine.tokenizer = tiny.fresh_tokenizer(WANTS_A_USER + talk.engine.tokenizer.chat_template)
    talk.template = Template(talk.engine.tokenizer)
    talk.prefill()
    assert list(talk.prefill_progress()) == []
    ask(talk, "First.")
    assert talk.undo() == "First."
    assert [m.role for m in talk.messages] == ["system"]
    assert ask(talk, "Second.").tokens_cached == 0


def test_a_blank_system_prompt_is_none() -> None:
    talk = conversation(" ")
    assert talk.messages == []
    talk.set_system("\n")
    assert talk.messages == []


def test_a_recorded_answer_takes_the_place_of_the_generated_one() -> None:
    talk = conversation()
    ask(talk, "The pet of Bazo is fox.")
    talk.replace_answer("Noted.")
    assert talk.messages[-1].content == "Noted."
    assert talk.engine.tokens == whole(talk)
    record = ask(talk, "Thanks.")
    assert record.tokens_rolled_back == 0
    assert record.tokens_new == len(whole_before_answer(talk)) - record.tokens_cached


def test_a_template_that_rewrites_history_is_rolled_back_and_counted() -> None:
    talk = conversation()
    talk.engine.tokenizer = tiny.fresh_tokenizer(FORGETFUL)
    talk.template = Template(talk.engine.tokenizer)
    ask(talk, "One.")
    talk.replace_answer("think about it and say yes")
    held = len(talk.engine.tokens)
    record = ask(talk, "Two.")
    assert record.tokens_rolled_back > 0
    assert record.tokens_cached == held - record.tokens_rolled_back
    assert record.tokens_cached + record.tokens_new == len(whole_before_answer(talk))


def test_a_changed_system_prompt_feeds_everything_again() -> None:
    talk = conversation("Be brief.")
    ask(talk, "Hello.")
    talk.set_system("Be long.")
    assert talk.system == "Be long." and len(talk.messages) == 3
    record = ask(talk, "Again.")
    assert record.tokens_cached < 6
    assert record.tokens_cached + record.tokens_new == len(whole_before_answer(talk))
    talk.set_system(None)
    assert talk.system is None and talk.messages[0].role == "user"


def test_a_cancelled_answer_is_kept_and_marked() -> None:
    talk, seen = conversation(), []
    for event in talk.ask("Tell me.", SamplingOptions(max_new_tokens=40), cancelled=lambda: len(seen) >= 3):
        if isinstance(event, Token):
            seen.append(event.text)
    assert talk.messages[-1].partial and talk.messages[-1].content == "".join(seen)
    assert talk.messages[-1].record is not None and talk.messages[-1].record.finish_reason == "cancelled"


def test_a_failed_or_abandoned_turn_changes_nothing() -> None:
    talk = conversation()
    ask(talk, "Hello.")
    before = list(talk.messages)
    with pytest.raises(ContextLimitError):
        ask(talk, "word " * 5000)
    assert talk.messages == before
    events = talk.ask("Never mind.", SHORT)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert talk.messages == before
    fresh = conversation()
    fresh.load(before)
    assert ask(talk, "Go on.").output_text == ask(fresh, "Go on.").output_text


def test_a_tokenizer_without_a_template_is_refused() -> None:
    with pytest.raises(UsageError, match="no chat template"):
        Template(tiny.fresh_tokenizer(None))


def test_a_template_that_refuses_the_dialogue_is_one_line() -> None:
    template = Template(tiny.fresh_tokenizer("{{ raise_exception('roles must alternate') }}"))
    with pytest.raises(UsageError, match="refuses this dialogue: roles must alternate"):
        template.ids([Message("user", "x")], True)


WORDS = st.text(alphabet=st.sampled_from(list("ab 1é🙂\n<|>userndai")), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(WORDS, min_size=1, max_size=8))
def test_pieces_give_the_ids_of_the_whole(texts: list[str]) -> None:
    """Cutting at special tokens and tokenising piece by piece is tokenising the whole."""
    template = Template(tiny.tokenizer(), special_tokens=True)
    roles = itertools.cycle(("user", "assistant"))
    messages: list[Message] = []
    for text in texts:
        messages.append(Message(next(roles), text))  # type: ignore[arg-type]
        rendered = template.text(messages, True)
        assert template.ids(messages, True) == template.tokenizer(rendered, add_special_tokens=False).input_ids


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.sampled_from(["ask", "undo", "retry", "replace", "cancel", "system"]), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_any_history_of_edits_equals_a_fresh_dialogue(actions: list[str], seed: int) -> None:
    talk, rng = conversation(), Random(seed)
    for action in actions:
        if action == "undo":
            talk.undo()
        elif action == "replace" and talk.messages and talk.messages[-1].role == "assistant":
            talk.replace_answer(f"answer {rng.randrange(99)}")
        elif action == "system":
            talk.set_system(f"system {rng.randrange(9)}")
        elif action == "cancel":
            seen: list[int] = []
            for _ in talk.ask("stop soon", SHORT, cancelled=lambda seen=seen: len(seen) > 1):  # type: ignore[misc]
                seen.append(1)
        else:
            text = (talk.undo() if action == "retry" else None) or f"hello {rng.randrange(99)}"
            ask(talk, text)
    fresh = conversation()
    fresh.load(talk.messages)
    assert ask(talk, "and?").output_text == ask(fresh, "and?").output_text


def test_common_prefix() -> None:
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2, 3], [1, 2]) == 2
    assert common_prefix([1, 2, 3], [1, 9, 3]) == 1
    assert common_prefix([1, 2], [1, 2]) == 2


def evicting(budget: int) -> Conversation:
    profile = load_profile("snapkv").with_overrides([f"keep.budget={budget}", "keep.window=8", "retain.tier=evict"])
    return Conversation(Engine(tiny.loaded("llama"), profile))


def held_rows(talk: Conversation) -> int:
    return talk.engine._store.length


def test_turns_that_are_frozen_are_fed_again_turn_by_turn_after_two_were_undone() -> None:
    straight, astray = evicting(12), evicting(12)
    texts = ["The room of Miro is 417.", "The key of Lena is 80.", "Where is Miro?", "And Lena?"]
    for text in texts[:2]:
        ask(straight, text), ask(astray, text)
    for text in ("Something else.", "And more."):
        ask(astray, text)
    for _ in range(3):
        astray.undo()
    ask(astray, texts[1])
    assert astray.messages == [
        replace(m, record=astray.messages[i].record) if m.record else m for i, m in enumerate(straight.messages)
    ]
    for text in texts[2:]:
        ask(straight, text), ask(astray, text)
    assert [m.content for m in astray.messages] == [m.content for m in straight.messages]
    assert held_rows(astray) == held_rows(straight)


def test_a_resumed_dialogue_is_frozen_turn_by_turn() -> None:
    talk, again = evicting(12), evicting(12)
    for text in ("The room of Miro is 417.", "The key of Lena is 80.", "Where is Miro?"):
        ask(talk, text)
    again.load(talk.messages)
    again.prefill()
    layer = again.engine._store.layers[0]
    last = len(whole(again)) - len(again.template.ids(again.messages[:4], generation_prompt=False))
    assert (layer.length, layer.length + layer.dropped) == (2 * 12 + last, len(whole(again)))
    before = [(layer.length, layer.dropped)]
    assert list(again.prefill_progress())[-1:] == [] and before == [(layer.length, layer.dropped)]
