"""A dialogue as a model's template writes it, as text and as token ids."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from loopserve_cli.errors import ContextLimitError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.template.control import control_tokens
from loopserve_cli.template.least import Least, least_of
from loopserve_cli.template.marks import Marks, Span, strings, text_of
from loopserve_cli.template.pieces import Pieces
from loopserve_cli.template.reach import check_reach, tools_left_out
from loopserve_cli.template.reasoning import reasoning_field, with_reasoning
from loopserve_cli.template.renderer import Renderer
from loopserve_cli.template.rows import Row, row_of
from loopserve_cli.template.shape import USER, shape_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# So many characters for each token of the context are tokenised without asking whether they may fit.
UNASKED = 8
# Nor are so many characters: that takes less than a second, and then the number of tokens can be told.
SHORT = 50_000


class Template:
    """A tokenizer's chat template for one dialogue: its tools, its date, and the pieces that were tokenised.

    The ids are those of transformers' `apply_chat_template` on that date, of the messages that are not forgotten. Only
    control tokens in what was said differ: they are spelled as text, unless `special_tokens` lets them stand.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tools: Sequence[Mapping[str, Any]] = (),
        date: datetime | None = None,
        special_tokens: bool = False,
    ) -> None:
        """Without a date, now. Raises UsageError when the tokenizer has no chat template, or several and no default."""
        self.tokenizer = tokenizer
        self.date = (date or datetime.now()).replace(microsecond=0)
        self._render = Renderer(tokenizer, tools, self.date)
        # Without tools, for what the template writes of them is no turn's: answers hold such tokens.
        plain = shape_of(functools.partial(self._render, tools=()))
        self._shape = plain if plain.written else shape_of(self._render)
        self._control = control_tokens(tokenizer, self._render.source, plain.written)
        control = {} if special_tokens else self._control.ids
        self._pieces = Pieces(tokenizer, control, self._render.source, self._shape.written)
        self._reasoning = reasoning_field(self._render.source)
        self._special_tokens = special_tokens
        within = () if special_tokens else strings(self._render.tools)
        self._in_tools = {token for text in within for token in self._control.found(text, "system")}
        self._found: dict[tuple[str, str], tuple[str, ...]] = {}

    @property
    def about(self) -> str:
        """The template in a line: how long it is, and what it does with what is not a plain message."""
        source, field = self._render.source, self._reasoning
        thoughts = "drops earlier thoughts" if field is None else f"reads earlier thoughts as {field}"
        control = "may stand in messages" if self._special_tokens else "in messages are fed as text"
        return f"the tokenizer's, {len(source):,} characters of Jinja; {thoughts}; control tokens {control}"

    @property
    def tools_left_out(self) -> list[str]:
        """The names of the tools that the template does not write; none when it refuses to write at all."""
        try:
            written = self._render([self._shape.of({"role": "user", "content": USER})], True)
        except UsageError:
            return []
        return tools_left_out(self._render.tools, written)

    def text(self, messages: Sequence[Message], generation_prompt: bool) -> str:
        """The dialogue as the template writes it.

        Raises UsageError when the template refuses it or fails, and when it leaves out what was said.
        """
        return text_of(self._spans(messages, generation_prompt))

    def ids(self, messages: Sequence[Message], generation_prompt: bool, limit: int | None = None) -> list[int]:
        """The token ids of the whole dialogue; raises as `text` does.

        With a `limit`, in tokens, raises ContextLimitError before anything is tokenised if its length tells that it
        is exceeded: first by what the users said, before it is written, then by what the template wrote.
        """
        self.check_length(messages, limit)
        spans = self._spans(messages, generation_prompt)
        self._check(self.least([span.text for span in spans], limit), limit)
        return self._pieces.ids(spans)

    def check_length(self, messages: Iterable[Message], limit: int | None) -> None:
        """Raise ContextLimitError where what the users said alone is longer than `limit` tokens."""
        self._check(self.least_said(messages, limit), limit)

    def least(self, texts: Iterable[str], limit: int | None) -> int:
        """The fewest tokens that texts can be; 0 where they are so short, or the tokenizer such, that it is unknown."""
        texts = list(texts)
        if limit is None or sum(map(len, texts)) <= max(UNASKED * limit, SHORT) or self._least is None:
            return 0
        return self._least.of("".join(texts))

    def least_said(self, messages: Iterable[Message], limit: int | None) -> int:
        """As `least`, of what the users said: answers may lose what was thought, these words are written always."""
        return self.least((m.content.strip() for m in messages if m.role == "user" and not m.forgotten), limit)

    @functools.cached_property
    def _least(self) -> Least | None:
        """Read from the whole vocabulary, and only when a text is long."""
        return least_of(self.tokenizer)

    def _check(self, least: int, limit: int | None) -> None:
        if limit is not None and least > limit:
            raise ContextLimitError(
                f"the dialogue would be too long: at least {least:,} tokens, but the model reads at most {limit:,}; "
                "shorten the message, or begin anew (in a chat: /undo or /clear)"
            )

    def count(self, role: str, text: str) -> int:
        """How many tokens a message's text is, on its own."""
        found = () if self._special_tokens else self._control.found(text, role)
        marks = Marks.of(found, [text])
        return self._pieces.count(marks.spans(marks.put(text, found)))

    def _spans(self, messages: Sequence[Message], generation_prompt: bool) -> list[Span]:
        """What the template writes, with the control tokens that somebody said told from its own."""
        read = [message for message in messages if not message.forgotten]
        rows = [with_reasoning(row_of(message), message.reasoning, self._reasoning) for message in read]
        found = self._said(rows)
        marks = Marks.of({*self._in_tools, *itertools.chain(*found)}, strings([rows, self._render.tools]))
        rows = [_marked(row, marks, tokens) for row, tokens in zip(rows, found, strict=True)]
        tools = marks.put(self._render.tools, self._in_tools)
        written = self._render([self._shape.of(row) for row in rows], generation_prompt, tools)
        # A system prompt that goes with the last question is written only while that is asked.
        if generation_prompt:
            check_reach(rows, written)
        return marks.spans(written)

    def _said(self, rows: Sequence[Row]) -> list[set[str]]:
        """The control tokens that stand in each row; a text that was searched before is not searched again."""
        if self._special_tokens:
            return [set() for _ in rows]
        fresh: dict[tuple[str, str], tuple[str, ...]] = {}
        said: list[set[str]] = []
        for row in rows:
            role = row["role"]
            texts = list(strings(_said(row)))
            for text in texts:
                known = self._found.get((role, text))
                fresh[role, text] = self._control.found(text, role) if known is None else known
            said.append({token for text in texts for token in fresh[role, text]})
        self._found = fresh
        return said


def _said(row: Row) -> list[Any]:
    """What a row holds beside its role."""
    return [value for key, value in row.items() if key != "role"]


def _marked(row: Row, marks: Marks, tokens: Iterable[str]) -> Row:
    """The row with its control tokens marked; who said it stays as it is."""
    return {key: value if key == "role" else marks.put(value, tokens) for key, value in row.items()}
