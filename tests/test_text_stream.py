"""Thoughts are told from the answer in every markup, however the tokens cut the text."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marked_tokenizer import MarkedTokenizer

from loopserve_cli.engine.detokenizer import MARK, Detokenizer
from loopserve_cli.engine.markup import find_markup
from loopserve_cli.engine.text_stream import TextStream

HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>")
THINK_TEMPLATE = "{{ m.content.split('</think>')[-1] }}"
TOOLS = ("[TOOL_CALLS]", "[ARGS]", "<|turn|>")


class Case(NamedTuple):
    """What a model says after the end of a prompt, and what of it is thought and answered."""

    tokenizer: MarkedTokenizer
    prompt: str
    said: str
    thoughts: str
    answer: str


def plain(template: str = "") -> MarkedTokenizer:
    return MarkedTokenizer(special=("<|turn|>",), template=template)


THINK = MarkedTokenizer(added=("<think>", "</think>"))
MAGISTRAL = MarkedTokenizer(special=("[THINK]", "[/THINK]"))
COMMAND = MarkedTokenizer(special=("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"))
GEMMA = MarkedTokenizer(special=("<|channel>", "<channel|>", "<turn|>"))
SOLAR = MarkedTokenizer(special=("<|begin|>", "<|think|>", "<|end|>", "<|content|>"), template="assistant")
GPT_OSS = MarkedTokenizer(special=HARMONY)
SELF = MarkedTokenizer(special=("<|start|>", "<|message|>", "<|eom|>"), template="{{ '<|start|>assistant to=self' }}")
APRIEL = plain("Here are my reasoning steps:\n … [BEGIN FINAL RESPONSE] … [END FINAL RESPONSE]")
HUNYUAN = plain("{{ c.split('</think>')[1].split('<answer>')[1].split('</answer>')[0] }}")
KIMI = MarkedTokenizer(special=("<|open|>", "<|close|>", "<|sep|>"), template="think response")

ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
PYTHON = "<|channel|>analysis to=python code<|message|>"
WEATHER = "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"

CASES = {
    "tags as tokens": Case(
        THINK, "", "<think>\nOne, two.\n\nThree.\n</think>\n\nIt is 3.\n", "One, two.\n\nThree.", "It is 3.\n"
    ),
    "tags as text": Case(plain(THINK_TEMPLATE), "", "<think>a < b</think>Less.", "a < b", "Less."),
    "opened by the prompt": Case(THINK, "<|bot|><think>\n", "plan\n</think>\n\nyes", "plan", "yes"),
    "opened by both": Case(plain(THINK_TEMPLATE), "Bot: <think>\n", "<think>\nplan\n</think>\nyes", "plan", "yes"),
    "closed by the prompt": Case(THINK, "<think>\n\n</think>\n\n", "yes", "", "yes"),
    "never closed": Case(THINK, "<think>\n", "on and on\n", "on and on", ""),
    "empty": Case(THINK, "", "<think>\n\n</think>\n\nyes", "", "yes"),
    "two thoughts": Case(THINK, "", "\n<think>a</think>\n<think>b</think>c", "a\n\nb", "c"),
    "none": Case(THINK, "", "\n Just so.", "", "\n Just so."),
    "tags in the answer": Case(
        THINK, "", "<think>x</think>Use <think> and </think>.", "x", "Use <think> and </think>."
    ),
    "closed without opening": Case(THINK, "", "</think>\nyes", "", "yes"),
    "another's tags": Case(plain(), "", "<think>\nnot mine\n</think>", "", "<think>\nnot mine\n</think>"),
    "almost a tag": Case(plain(THINK_TEMPLATE), "", "<thin ice>", "", "<thin ice>"),
    "special": Case(MAGISTRAL, "[/INST]", "[THINK]plan[/THINK]answer", "plan", "answer"),
    "special, later": Case(MAGISTRAL, "", "First. [THINK]plan[/THINK]Then.", "plan", "First. Then."),
    "special, glued": Case(MAGISTRAL, "", "First.[THINK]plan[/THINK]Then.", "plan", "First.\n\nThen."),
    "special, unopened": Case(MAGISTRAL, "", "First.[/THINK]Then.", "", "First.[/THINK]Then."),
    "command": Case(COMMAND, "", "<|START_THINKING|>p<|END_THINKING|><|START_RESPONSE|>a<|END_RESPONSE|>", "p", "a"),
    "gemma": Case(GEMMA, "<turn|>", "<|channel>thought\nplan\n<channel|>answer<turn|>", "plan", "answer"),
    "gemma, prompt": Case(GEMMA, "<|channel>thought\n<channel|>", "answer", "", "answer"),
    "solar": Case(SOLAR, "<|begin|>assistant", "<|think|>p<|end|><|begin|>assistant<|content|>a<|end|>", "p", "a"),
    "apriel": Case(
        APRIEL,
        "Here are my reasoning steps:\n",
        "1. Add.\n[BEGIN FINAL RESPONSE]\n4\n[END FINAL RESPONSE]\n",
        "1. Add.",
        "4",
    ),
    "wrapped": Case(HUNYUAN, "", "<think>\np\n</think>\n<answer>\na < b\n</answer>", "p", "a < b"),
    "not wrapped": Case(HUNYUAN, "", "<answer> is a tag", "", "<answer> is a tag"),
    "kimi": Case(
        KIMI,
        "<|open|>think<|sep|>",
        "p<|close|>think<|sep|><|open|>response<|sep|>a<|close|>response<|sep|>",
        "p",
        "a",
    ),
    "harmony": Case(GPT_OSS, "<|start|>assistant", f"{ANALYSIS}We add.<|end|>{FINAL}It is 4.", "We add.", "It is 4."),
    "harmony, answer only": Case(GPT_OSS, "<|start|>assistant", "<|channel|>final<|message|>Hi.", "", "Hi."),
    "harmony, in prompt": Case(GPT_OSS, f"<|start|>assistant{ANALYSIS}", f"p<|end|>{FINAL}a", "p", "a"),
    "harmony, channel in prompt": Case(
        GPT_OSS, "<|start|>assistant<|channel|>", f"analysis<|message|>p<|end|>{FINAL}a", "p", "a"
    ),
    "harmony, answer in prompt": Case(GPT_OSS, FINAL, "a", "", "a"),
    "harmony, two thoughts": Case(
        GPT_OSS, "<|start|>assistant", f"{ANALYSIS}p<|end|><|start|>assistant{ANALYSIS}q<|end|>{FINAL}a", "p\n\nq", "a"
    ),
    "harmony, preamble and call": Case(
        GPT_OSS,
        "<|start|>assistant",
        f'<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{WEATHER}{{"city": "Rome"}}',
        "",
        'I look.\n\n[call functions.weather] {"city": "Rome"}',
    ),
    "harmony, call first": Case(
        GPT_OSS, "<|start|>assistant", f" to=functions.f{ANALYSIS}x", "", "[call functions.f] x"
    ),
    "harmony, builtin": Case(GPT_OSS, "<|start|>assistant", f"{PYTHON}1 + 1", "", "[call python] 1 + 1"),
    "harmony, stopped in a header": Case(GPT_OSS, "<|start|>assistant", f"{ANALYSIS}p<|end|><|start|>assis", "p", ""),
    "harmony, not spoken": Case(GPT_OSS, "<|start|>assistant", "Hello you.", "", "Hello you."),
    "to itself": Case(
        SELF, "<|start|>assistant", " to=self<|message|>p<|eom|><|start|>assistant to=user<|message|>a", "p", "a"
    ),
    "tool tokens": Case(
        MarkedTokenizer(special=TOOLS), "", "Hm.[TOOL_CALLS]f[ARGS]{}<|turn|>", "", "Hm.[TOOL_CALLS]f[ARGS]{}"
    ),
}


def stream_of(case: Case, stop: tuple[str, ...] = ()) -> TextStream:
    tokenizer: Any = case.tokenizer
    return TextStream(tokenizer, stop, find_markup(tokenizer), case.tokenizer.ids(case.prompt))


def told(stream: TextStream, ids: list[int]) -> tuple[str, str]:
    """Thoughts and answer as they are shown, token by token."""
    shown = {True: "", False: ""}
    for token in ids:
        text = stream.push(token)
        shown[stream.reasoning] += text
    text = stream.flush()
    shown[stream.reasoning] += text
    return shown[True], shown[False]


@pytest.mark.parametrize("name", CASES)
def test_thoughts_and_answer_are_told_apart(name: str) -> None:
    case = CASES[name]
    stream = stream_of(case)
    shown = told(stream, case.tokenizer.ids(case.said))
    assert shown == (stream.thoughts, stream.text) == (case.thoughts, case.answer)


def in_pieces(tokenizer: MarkedTokenizer, text: str, data: st.DataObject) -> list[str]:
    """What the tokens of `text` come out as, several of them at a time."""
    detokenizer = Detokenizer(tokenizer, find_markup(tokenizer).marked)  # type: ignore[arg-type]
    words = [detokenizer.push(token) for token in tokenizer.ids(text)]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(words)))))
    return ["".join(words[first:last]) for first, last in zip([0, *cuts], [*cuts, len(words)], strict=True)]


@settings(deadline=None)
@given(st.sampled_from(sorted(CASES)), st.data())
def test_how_the_text_is_cut_changes_nothing(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    pieces = in_pieces(case.tokenizer, case.said, data)
    assert told_by(case.tokenizer, case.prompt, pieces) == (case.thoughts, case.answer)


WORDS = st.sampled_from(["<think>", "</think>", "<", "think", ">", "</", "\n", " ", "a", "b c", "[THINK]", "[/THINK]"])
HARMONY_WORDS = st.sampled_from([*HARMONY, "assistant", "analysis", "final", " to=", "f", "\n", "x y", "<|"])


@settings(deadline=None)
@given(
    st.sampled_from([THINK, MAGISTRAL, plain(THINK_TEMPLATE), HUNYUAN, GPT_OSS, plain(" ".join(HARMONY))]),
    st.sampled_from(["", "<think>\n", "<|start|>assistant"]),
    st.lists(WORDS | HARMONY_WORDS, max_size=14).map("".join),
    st.data(),
)
def test_any_text_is_read_alike_however_it_is_cut(
    tokenizer: MarkedTokenizer, prompt: str, text: str, data: st.DataObject
) -> None:
    """Also text that no model should write."""
    pieces = in_pieces(tokenizer, text, data)
    whole = told_by(tokenizer, prompt, ["".join(pieces)])
    assert told_by(tokenizer, prompt, pieces) == whole
    assert MARK not in "".join(whole)
    assert told(stream_of(Case(tokenizer, prompt, text, "", "")), tokenizer.ids(text))[1] == whole[1]


def told_by(tokenizer: MarkedTokenizer, prompt: str, pieces: list[str]) -> tuple[str, str]:
    """What the splitter alone makes of the pieces."""
    markup = find_markup(tokenizer)  # type: ignore[arg-type]
    if markup.splitter is None:
        return "", "".join(pieces).replace(MARK, "")
    detokenizer = Detokenizer(tokenizer, markup.marked)  # type: ignore[arg-type]
    splitter = markup.splitter("".join(map(detokenizer.push, tokenizer.ids(prompt))))
    said = [piece for text in pieces for piece in splitter.feed(text)] + splitter.finish()
    return "".join(p.text for p in said if p.reasoning), "".join(p.text for p in said if not p.reasoning)


def test_tokens_are_counted_and_the_first_of_the_answer_is_known() -> None:
    def counted(case: Case, said: str) -> tuple[int | None, int | None]:
        stream = stream_of(case)
        told(stream, case.tokenizer.ids(said))
        return stream.tokens_reasoning, stream.first_answer

    assert counted(CASES["special"], "[THINK]plan[/THINK]yes") == (4, 6)
    assert counted(CASES["harmony"], f"{ANALYSIS}plan<|end|>{FINAL}yes") == (4, 32)
    assert counted(CASES["tags as tokens"], "<think>\np\n</think>\n\nyes") == (3, 7)
    assert counted(CASES["tags as tokens"], "<think>\n\n</think>\n\nyes") == (0, 6)
    assert counted(CASES["tags as text"], "<think>pq</think>yes") == (2, 17)
    assert counted(CASES["tags as text"], "<b>") == (0, 0)
    assert counted(CASES["opened by the prompt"], "on and on") == (9, None)
    assert counted(CASES["another's tags"], "yes") == (None, 0)
    assert counted(CASES["another's tags"], "") == (None, None)


def test_stop_strings_end_the_answer_and_not_the_thoughts() -> None:
    case = CASES["special"]
    stream = stream_of(case, stop=("STOP",))
    for token in case.tokenizer.ids("[THINK]STOP it[/THINK]Go. ST"):
        stream.push(token)
    assert not stream.stopped
    for token in case.tokenizer.ids("OP on"):
        stream.push(token)
    assert stream.stopped
    stream.flush()
    assert (stream.thoughts, stream.text) == ("STOP it", "Go. ")


def test_a_token_that_ends_thoughts_and_begins_the_answer_says_one_and_then_the_other() -> None:
    class Words:
        added_tokens_decoder: dict[int, object] = {}
        all_special_tokens: list[str] = []
        chat_template = THINK_TEMPLATE
        words = ("<think>", "plan", "</think>yes", " sir")

        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(self.words[i] for i in ids)

    tokenizer: Any = Words()
    stream = TextStream(tokenizer, (), find_markup(tokenizer))
    said = []
    for token in range(4):
        text = stream.push(token)
        said.append((text, stream.reasoning))
    assert said == [("", False), ("plan", True), ("yes", False), (" sir", False)]
    assert stream.first_answer == 2 and stream.tokens_reasoning == 1


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<seed:think>", "</seed:think>"),
        ("<think:free>", "</think:free>"),
        ("<inner_thoughts>", "</inner_thoughts>"),
        ("<Reasoning>", "</Reasoning>"),
        ("<|think|>", "<|/think|>"),
        ("◁think▷", "◁/think▷"),
        ("<|start_thinking|>", "<|end_thinking|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|begin_think|>", "<|end_think|>"),
        ("<|thinking_start|>", "<|thinking_end|>"),
        ("[BEGIN_THINK]", "[END_THINK]"),
        ("<|inner_prefix|>", "<|inner_suffix|>"),
    ],
)
def test_tags_are_known_by_their_form(opening: str, closing: str) -> None:
    tokens = MarkedTokenizer(special=(opening, closing))
    mentions = MarkedTokenizer(template="{{ '" + opening + closing + "' }}")
    for tokenizer in (tokens, mentions):
        said = f"{opening}\nplan\n{closing}\n\nanswer"
        assert told(stream_of(Case(tokenizer, "", said, "", "")), tokenizer.ids(said)) == ("plan", "answer")
    assert find_markup(MarkedTokenizer(added=("<thinker>", "</article>", "</rethinking_of>"))).splitter is None  # type: ignore[arg-type]


def test_a_template_that_only_opens_thoughts_tells_their_tags() -> None:
    tokenizer = MarkedTokenizer(template="<|assistant|><think>")
    said = "plan</think>\n\nanswer"
    assert told(stream_of(Case(tokenizer, "<|assistant|><think>", said, "", "")), tokenizer.ids(said)) == (
        "plan",
        "answer",
    )


def test_several_templates_are_read_for_tags() -> None:
    tokenizer: Any = MarkedTokenizer(template={"default": "x", "tool_use": THINK_TEMPLATE})
    assert find_markup(tokenizer).splitter is not None
    assert find_markup(MarkedTokenizer()).splitter is None  # type: ignore[arg-type]
