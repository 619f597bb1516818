"""How a model marks its thoughts, found in its tokenizer and chat template, whatever its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loopserve_cli.engine.detokenizer import MARK
from loopserve_cli.engine.harmony import CHANNEL, HARMONY, MESSAGE, START, TO_ITSELF, HarmonySplitter
from loopserve_cli.engine.splitter import Splitter
from loopserve_cli.engine.tags import Tags, TagSplitter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pair = tuple[str, str]

THOUGHT = r"((?i:[\w:]*(?:think|thinking|thoughts?|reasoning)(?::\w+)?))"
# The closing tag names its opening. Templates often mention the closing one alone, to cut history at it.
FORMS = (
    ("<{}>", "</{}>"),
    ("<|{}|>", "<|/{}|>"),
    ("[{}]", "[/{}]"),
    ("◁{}▷", "◁/{}▷"),
    ("<|START_{}|>", "<|END_{}|>"),
    ("<|start_{}|>", "<|end_{}|>"),
    ("<|begin_{}|>", "<|end_{}|>"),
    ("<|begin_of_{}|>", "<|end_of_{}|>"),
    ("<|{}_start|>", "<|{}_end|>"),
    ("<|{}_begin|>", "<|{}_end|>"),
    ("[BEGIN_{}]", "[END_{}]"),
)
# Templates that open the thoughts may mention this one alone (Olmo 3).
OPENING = FORMS[0]
# Tags that are unlike each other: Gemma 4, Apertus, Solar, Apriel, Granite 3.2, Kimi K3.
ODD_TAGS = (
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ("Here is my thought process:", "Here is my response:"),
    ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
)
# What an answer may stand between: Hunyuan, Granite 3.3, Reflection, OpenThinker, Apriel, Kimi K3.
WRAPPERS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<output>", "</output>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
    ("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
)
WORD = re.compile(r"<[^<>]+>|\[[^\[\]]+\]|[^<\[]+")
# Special tokens that structure the call of a tool: their names stay in the text, lest it run together.
TOOLS = re.compile(r"tool|call|args|function|action|python_tag", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Markup:
    """How a model marks its thoughts. `marked` are the special tokens that the text must keep: their names by id.

    `splitter` makes, from the end of the prompt, what tells thoughts from answer; None for a model that does not
    think aloud.
    """

    marked: Mapping[int, str] = field(default_factory=dict)
    splitter: Callable[[str], Splitter] | None = None


def find_markup(tokenizer: PreTrainedTokenizerBase) -> Markup:
    """The markup that the tokenizer's added tokens or its chat template mention."""
    vocabulary = Vocabulary.of(tokenizer)
    marked = {name for name in vocabulary.special if TOOLS.search(name)}
    if MESSAGE in vocabulary and START in vocabulary and (CHANNEL in vocabulary or TO_ITSELF in vocabulary.template):
        marked |= vocabulary.special.keys() & set(HARMONY)
        word = vocabulary.written
        return Markup(vocabulary.ids(marked), lambda prompt: HarmonySplitter(word, prompt))
    thoughts = [*vocabulary.closing(ODD_TAGS), *named_tags(vocabulary)]
    if not thoughts:
        return Markup(vocabulary.ids(marked))
    wrappers = vocabulary.closing(WRAPPERS)
    tags = {tag for pair in (*thoughts, *wrappers) for tag in pair}
    marked |= {word for tag in tags for word in WORD.findall(tag)} & vocabulary.special.keys()
    parts = [vocabulary.written(word) for word in sorted(marked - tags) if not TOOLS.search(word)]
    pairs, around = vocabulary.tags(thoughts), vocabulary.tags(wrappers)
    return Markup(vocabulary.ids(marked), lambda prompt: TagSplitter(pairs, around, parts, prompt))


def named_tags(vocabulary: Vocabulary) -> list[Pair]:
    """The pairs of tags of which at least the closing one is an added token or stands in the template."""
    names: list[tuple[Pair, str]] = []
    for form in FORMS:
        for text in (*sorted(vocabulary.added), vocabulary.template):
            names += [(form, name) for name in _names(form[1], text)]
    names += [(OPENING, name) for name in _names(OPENING[0], vocabulary.template)]
    return list(dict.fromkeys((opening.format(name), closing.format(name)) for (opening, closing), name in names))


def _names(form: str, text: str) -> list[str]:
    """What stands in tags of a form."""
    return re.findall(re.escape(form).replace(r"\{\}", THOUGHT), text)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a tokenizer knows beyond plain text: its added tokens, the special ones of them by id, its template."""

    added: frozenset[str]
    special: Mapping[str, int]
    template: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """A tokenizer's own."""
        tokens = tokenizer.added_tokens_decoder
        special = {t.content: i for i, t in tokens.items() if t.special or t.content in tokenizer.all_special_tokens}
        return cls(frozenset(t.content for t in tokens.values()), special, template_text(tokenizer))

    def __contains__(self, word: str) -> bool:
        return word in self.added or word in self.template

    def ids(self, names: set[str]) -> dict[int, str]:
        """Special tokens by id."""
        return {self.special[name]: name for name in sorted(names)}

    def closing(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs whose closing tag is known."""
        return [pair for pair in pairs if all(word in self for word in WORD.findall(pair[1]))]

    def tags(self, pairs: Sequence[Pair]) -> list[Tags]:
        """The pairs as the detokenizer writes them."""
        return [Tags(self.written(opening), self.written(closing)) for opening, closing in pairs]

    def written(self, tag: str) -> str:
        """A tag as the detokenizer writes it: its special tokens behind a MARK."""
        return "".join(MARK + word if word in self.special else word for word in WORD.findall(tag))


def template_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template as it was written, all of them where there are several."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        return "\n".join(map(str, template.values()))
    return str(template or "")
