"""The chat template: what transformers makes of a dialogue, token for token, or one line that says why not."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_kinds import CONTROL, KINDS, TEMPLATE, of_kind

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.template import Template

ASKED = [Message("user", "The room of Miro is 417.")]
TALK = [*ASKED, Message("assistant", "Noted."), Message("user", "Where is Miro?")]
SYSTEM = [Message("system", "Be brief."), *TALK]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
EACH = "{% for m in messages %}<|{{ m.role }}|>"
PARTS = (
    EACH + "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)
DATED = TEMPLATE + "{{ strftime_now('%d %b %Y') }}"


def rows(messages: list[Message]) -> list[dict[str, Any]]:
    return [{"role": m.role, "content": m.content} for m in messages]


def wanted(tokenizer: Any, given: list[dict[str, Any]], **more: Any) -> list[int]:
    return list(
        tokenizer.apply_chat_template(given, tokenize=True, add_generation_prompt=True, return_dict=False, **more)
    )


def of(source: Any, **more: Any) -> Template:
    return Template(tiny.fresh_tokenizer(source), **more)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ messages | length // 0 }}", "ZeroDivisionError: integer division or modulo by zero"),
        ("{% for m in nothing() %}{% endfor %}", "'nothing' is undefined"),
        ("{{ 1 + messages[0].content }}", "TypeError: unsupported operand"),
        ("{{ 'x'.index('y') }}", "ValueError: substring not found"),
        ("{{ {}.pop('key') }}", "access to attribute 'pop'"),
        ("{{ '%(a)s' % {} }}", "KeyError: 'a'"),
        ("{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}", "RecursionError: "),
        ("{{ 'a' * 10 ** 14 }}", "fails: MemoryError; mend it"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages | no_such_filter }}", "No filter named 'no_such_filter'"),
    ],
)
def test_whatever_a_template_raises_is_one_line(source: str, reason: str) -> None:
    with pytest.raises(UsageError, match="the model's chat template fails: ") as caught:
        of(source).ids(ASKED, True)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_template_refuses_is_in_its_own_words_on_one_line() -> None:
    with pytest.raises(UsageError, match="refuses this dialogue: no, not so$"):
        of("{{ raise_exception('no,\n  not so') }}").ids(ASKED, True)
    with pytest.raises(UsageError, match="refuses this dialogue: it says not why$"):
        of("{{ raise_exception('') }}").ids(ASKED, True)


def test_a_template_that_writes_nothing_is_not_said_to_lack_a_place_for_a_system_prompt() -> None:
    with pytest.raises(UsageError, match="leaves out or changes what was said"):
        of("hello").ids(SYSTEM, True)


def test_of_several_templates_the_default_is_taken_and_the_one_for_tools_with_tools() -> None:
    named = {"default": TEMPLATE, "tool_use": "{{ tools | length }} tools" + TEMPLATE, "rag": "{{ documents }}"}
    assert of(named).text(ASKED, False) == of(TEMPLATE).text(ASKED, False)
    assert of(named, tools=[TOOL]).text(ASKED, False) == "1 tools" + of(TEMPLATE).text(ASKED, False)
    listed = [{"name": name, "template": text} for name, text in named.items()]
    assert of(listed).ids(ASKED, True) == of(TEMPLATE).ids(ASKED, True)
    with pytest.raises(UsageError, match="several chat templates, and none is the default: rag, tool_use;"):
        of({"tool_use": TEMPLATE, "rag": TEMPLATE})


def test_a_template_that_needs_tools_says_so() -> None:
    source = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}" + TEMPLATE
    with pytest.raises(UsageError, match="fails in a dialogue without tools: 'NoneType' object is not iterable; give"):
        of(source).ids(ASKED, True)
    assert of(source, tools=[TOOL]).text(ASKED, False).startswith("look_up<|user|>")


def test_tools_that_a_template_leaves_out_are_named() -> None:
    writes = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}" + TEMPLATE
    assert of(writes, tools=[TOOL]).tools_left_out == []
    assert of(TEMPLATE, tools=[TOOL]).tools_left_out == ["look_up"]
    told: list[str] = []
    engine = Engine(tiny.loaded("llama"), load_profile("full"))
    Conversation(engine, tools=[TOOL], warn=told.append)
    assert told == ["the model's chat template leaves out the dialogue's tools: look_up"]


@pytest.mark.parametrize("roles", [("user",), ("user", "assistant"), ("user", "assistant", "system")])
def test_content_is_given_as_parts_to_the_roles_whose_template_wants_them(roles: tuple[str, ...]) -> None:
    wants = " or ".join(f"m.role == '{role}'" for role in roles)
    source = (
        EACH + f"{{% if {wants} %}}{{% for part in m.content %}}{{{{ part.text }}}}{{% endfor %}}"
        "{% else %}{{ m.content.strip() }}{% endif %}<|end|>{% endfor %}"
    )
    template = of(source)
    given = [
        {**r, "content": [{"type": "text", "text": r["content"]}]} if r["role"] in roles else r for r in rows(SYSTEM)
    ]
    assert template.ids(SYSTEM, True) == wanted(template.tokenizer, given)
    for message in SYSTEM:
        assert message.content in template.text(SYSTEM, True)


@pytest.mark.parametrize("written", ["m.content", "m.content | tojson"])
def test_a_list_of_parts_written_as_a_list_is_no_message(written: str) -> None:
    source = (
        EACH + "{% if m.role == 'user' %}{% for part in m.content %}{{ part.text }}{% endfor %}"
        f"{{% else %}}{{{{ {written} }}}}{{% endif %}}<|end|>{{% endfor %}}"
    )
    text = of(source).text(SYSTEM, True)
    assert "type" not in text and all(message.content in text for message in SYSTEM)


def test_a_template_that_writes_no_message_is_refused() -> None:
    with pytest.raises(UsageError, match=r"leaves out or changes what was said \('The room of Miro is 417.'\)"):
        of("<|user|>{{ messages[0].text }}").ids(ASKED, True)
    with pytest.raises(UsageError, match=r"what was said \('Where is Miro\?'\)"):
        of("{{ messages[0].content }}<|end|>").ids(TALK, True)
    with pytest.raises(UsageError, match="leaves out or changes"):
        of(EACH + "{{ m.content | upper }}{% endfor %}").ids(ASKED, True)


def test_words_that_are_said_twice_must_be_written_twice() -> None:
    twice = [Message("user", "Again."), Message("assistant", "Again?"), Message("user", "Again.")]
    last = EACH + "{% if loop.last or m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    with pytest.raises(UsageError, match="what was said"):
        of(last).ids(twice, True)
    assert of(EACH + "{{ m.content }}{% endfor %}").text(twice, True).count("Again.") == 2


def test_a_template_may_trim_what_is_said_and_forget_what_was_thought() -> None:
    source = EACH + "{{ m.content.split('</think>')[-1] | trim }}<|end|>{% endfor %}"
    talk = [Message("user", " \n What? \n"), Message("assistant", "<think>hm</think>\n\nThis."), Message("user", "Ah.")]
    assert of(source).text(talk, True) == "<|user|>What?<|end|><|assistant|>This.<|end|><|user|>Ah.<|end|>"


def test_a_system_prompt_without_a_place_is_refused_when_something_is_asked() -> None:
    source = EACH.replace("messages", "messages if m.role != 'system'") + "{{ m.content }}<|end|>{% endfor %}"
    with pytest.raises(UsageError, match="has no place for a system prompt, and leaves it out"):
        of(source).ids(SYSTEM, True)
    assert of(source).ids(TALK, True) == wanted(tiny.fresh_tokenizer(source), rows(TALK))


def test_a_system_prompt_that_goes_with_the_last_question_may_be_absent_between_the_turns() -> None:
    source = (
        "{% set system = messages[0] %}{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>"
        "{% if loop.last and m.role == 'user' and system.role == 'system' %}{{ system.content }}\n\n{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}"
    )
    assert "Be brief." not in of(source).text(SYSTEM[:3], False)
    assert "Be brief.\n\nWhere is Miro?" in of(source).text(SYSTEM, True)


@pytest.mark.parametrize("name", ["unk_token", "pad_token", "bos_token"])
def test_a_special_token_that_is_empty_cuts_nothing(name: str) -> None:
    tokenizer = tiny.fresh_tokenizer(TEMPLATE)
    setattr(tokenizer, name, "")
    assert "" in tokenizer.all_special_tokens
    assert Template(tokenizer).ids(TALK, True) == wanted(tokenizer, rows(TALK))


SAID = st.lists(
    st.sampled_from(
        ["a", "ab", " ", "  ", "\n", "\n\n", "é", "e\u0301", "\u0301", "1", "<", "|", "<|", "us", "er", "<|en", "d|>"]
    ),
    min_size=1,
    max_size=9,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SAID, min_size=1, max_size=5))
def test_the_ids_of_ordinary_text_are_those_of_transformers_at_every_turn(kind: str, texts: list[str]) -> None:
    tokenizer = of_kind(kind)
    template, messages = Template(tokenizer), []
    for role, text in zip(itertools.cycle(("user", "assistant")), texts, strict=False):
        messages.append(Message(role, text))  # type: ignore[arg-type]
        if any(token in text for token in CONTROL):
            return
        assert template.ids(messages, True) == wanted(tokenizer, rows(messages))


@pytest.mark.parametrize(
    ("kind", "cuts"), [("bytes", True), ("metaspace first", True), ("llama 2", True), ("takes spaces before", False)]
)
def test_old_turns_are_tokenised_once_where_the_tokenizer_allows_it(
    kind: str, cuts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = Template(KINDS[kind]())
    template.ids(TALK[:2], False)
    said: list[str] = []
    original = type(template.tokenizer).__call__

    def spy(self: Any, text: str, **rest: Any) -> Any:
        said.append(text)
        return original(self, text, **rest)

    monkeypatch.setattr(type(template.tokenizer), "__call__", spy)
    template.ids(TALK, True)
    assert any("Where is Miro?" in text for text in said)
    assert any("417" in text for text in said) == (not cuts)


def test_a_tokenizer_that_begins_whatever_it_is_given_gets_the_whole_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny.fresh_tokenizer(TEMPLATE)
    original = type(tokenizer).__call__

    def begins(self: Any, text: str, **rest: Any) -> Any:
        made = original(self, text, **rest)
        made["input_ids"] = [1, *made["input_ids"]]
        return made

    monkeypatch.setattr(type(tokenizer), "__call__", begins)
    assert Template(tokenizer).ids(TALK, True) == wanted(tokenizer, rows(TALK))


DAY = datetime.datetime(2026, 1, 9, 7, 5, 3)


@pytest.mark.parametrize(
    "format", ["%d %b %Y", "%B %-d, %Y", "%Y-%m-%d", "%A %j %H:%M:%S %p", "100%% of %y", "%%d", "no date", "%D%n%F %T"]
)
def test_a_date_is_written_as_strftime_writes_it(format: str) -> None:
    source = f"{{{{ strftime_now('{format}') }}}}|{{{{ strftime_now('%Y') | int + 1 }}}}|" + TEMPLATE
    assert of(source, date=DAY).text(ASKED, False).split("|<")[0] == f"{DAY.strftime(format)}|2027"


class Clock(datetime.datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return DAY


@pytest.mark.parametrize(
    "start", ["", "\n", "\n\n", "  ", "  {% set x = 1 %}\n y", "{#- a -#}\n", "{%- set x = 1 %}\n"]
)
def test_a_template_with_a_date_is_otherwise_what_transformers_makes_of_it(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    macro = "{% macro today() %}{% if strftime_now is defined %}{{ strftime_now('%d %b') }}{% endif %}{% endmacro %}"
    template = of(start + macro + "{{ today() }} " + DATED, date=DAY)
    assert "09 Jan" in template.text(TALK, True)
    assert template.ids(TALK, True) == wanted(template.tokenizer, rows(TALK))


def dated() -> Conversation:
    tokenizer = tiny.fresh_tokenizer("{{ strftime_now('%d %b %Y') }}" + TEMPLATE)
    loaded = replace(tiny.loaded("llama"), tokenizer=tokenizer)
    return Conversation(Engine(loaded, load_profile("full")), date="2026-01-09")


def test_a_dialogue_keeps_its_date_until_it_is_cleared() -> None:
    talk = dated()
    assert talk.date == "2026-01-09T00:00:00"
    for _ in range(2):
        list(talk.ask("Hello.", SamplingOptions(max_new_tokens=3)))
    assert talk.engine.tokenizer.decode(talk.engine.tokens).startswith("09 Jan 2026")
    talk.clear()
    assert talk.date[:10] == datetime.datetime.now().isoformat()[:10]
    list(talk.ask("Hello.", SamplingOptions(max_new_tokens=3)))
    assert not talk.engine.tokenizer.decode(talk.engine.tokens).startswith("09 Jan 2026")


def test_a_cache_that_was_saved_another_day_fits_the_dialogue_of_that_day(tmp_path: Path) -> None:
    talk, again, other = dated(), dated(), dated()
    list(talk.ask("The room of Miro is 417, and the desk of Zuvi is 881.", SamplingOptions(max_new_tokens=3)))
    talk.engine.save(tmp_path / "kv")
    other.begin("2026-01-10")
    for next_day in (again, other):
        next_day.load(talk.messages)
    assert again.take_up(tmp_path / "kv") >= len(talk.engine.tokens) - 1
    with pytest.raises(Exception, match="tokens are of this dialogue"):
        other.take_up(tmp_path / "kv")


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", ""])
def test_a_date_that_is_none_is_refused(text: str) -> None:
    engine = Engine(tiny.loaded("llama"), load_profile("full"))
    with pytest.raises(UsageError, match="is no ISO 8601 date"):
        Conversation(engine, date=text)
