"""Markdown while it is still being written: what is finished, and what may still change.

The text is cut at top-level blocks, and lists at their items. A block is finished once a complete line
after it has begun another one; code is finished line by line. Every finished piece is handed out
once, in order, so the pieces together are the whole text whatever the chunks were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

CODE_THEME = "ansi_dark"
LIVE_CODE_LINES = 4


def markdown_parser() -> MarkdownIt:
    """A parser that loses nothing: HTML and link definitions stay text.

    Underlined headings are off, for they would change lines that stand already; `#` headings do the same.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    return parser.disable(["reference", "lheading", "html_block", "html_inline"])


class Blocks(Markdown):
    """Rich's Markdown from our parser's tokens, with the writer's line breaks and without empty lines around it."""

    def __init__(self, source: str, parser: MarkdownIt) -> None:
        """Parse `source` anew."""
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        self.markup = source
        self.parsed = parser.parse(source)
        for token in self.parsed:
            if token.children is not None:
                token.children = [shown_as(child) for child in token.children if not is_repeated(child)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines from the first to the last that shows something."""
        rendered = cast("Iterable[Segment]", super().__rich_console__(console, options))
        lines = [strip_end(line) for line in Segment.split_lines(rendered)]
        shown = [number for number, line in enumerate(lines) if line]
        for line in lines[shown[0] : shown[-1] + 1] if shown else []:
            yield from line
            yield Segment.line()


def shown_as(token: Token) -> Token:
    """A line's break as the writer's, and an image as its source, for Rich would leave out where it is; else itself."""
    if token.type == "softbreak":
        token.type = "hardbreak"
    if token.type == "image":
        return Token("text", "", 0, content=f"![{token.content}]({token.attrs['src']})")
    return token


def is_repeated(token: Token) -> bool:
    """Whether it begins or ends a link whose text is its target, which Rich would write again behind it."""
    return token.type in ("link_open", "link_close") and token.markup == "autolink"


@dataclass(frozen=True, slots=True)
class Block:
    """A top-level block or list item: lines [start, end) of its source."""

    token: Token
    start: int
    end: int


def strip_end(line: list[Segment]) -> list[Segment]:
    """A line without the spaces that pad it."""
    kept = list(line)
    while kept and not kept[-1].text.rstrip(" "):
        kept.pop()
    if kept:
        text, style, control = kept[-1]
        kept[-1] = Segment(text.rstrip(" "), style, control)
    return kept


def cut(tokens: list[Token]) -> list[Block]:
    """The blocks of a parsed text in order; a list is cut into its items."""
    blocks = []
    for token in tokens:
        is_list = token.type in ("bullet_list_open", "ordered_list_open")
        is_block = token.level == 0 and not is_list
        is_item = token.level == 1 and token.type == "list_item_open"
        if token.map and token.nesting >= 0 and (is_block or is_item):
            blocks.append(Block(token, *token.map))
    return blocks


def source_lines(source: str) -> list[str]:
    """Lines as Markdown counts them, each with its end: only a newline ends one."""
    return [line for line in re.split(r"(?<=\n)", source) if line]


class MarkdownStream:
    """Text comes in by `feed`; finished pieces go out by `settled`, the rest is `tail`."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._parser = markdown_parser()
        self._pending = ""
        self._code_lines_out = 0
        self._before: str | None = None
        self._gap = False

    def feed(self, text: str) -> None:
        """Add text, of any length, cut anywhere."""
        self._pending += text

    def settled(self) -> list[RenderableType]:
        """The pieces finished since the last call; only complete lines count."""
        complete = self._pending[: self._pending.rfind("\n") + 1]
        blocks = cut(self._parser.parse(complete))
        if not blocks:
            return []
        pieces = self._take(complete, blocks[:-1])
        if blocks[-1].token.type == "fence":
            pieces += self._code_so_far(blocks[-1])
        return pieces

    def finish(self) -> list[RenderableType]:
        """Everything that is left, as finished."""
        pieces = self._take(self._pending, cut(self._parser.parse(self._pending)))
        self._pending = ""
        return pieces

    def tail(self) -> RenderableType:
        """What may still change."""
        blocks = cut(self._parser.parse(self._pending))
        return Group(*self._render(self._pending, blocks))

    def _take(self, source: str, blocks: list[Block]) -> list[RenderableType]:
        """Render `blocks` and let go of their source."""
        if not blocks:
            return []
        pieces = list(self._render(source, blocks))
        lines = source_lines(source)
        end = blocks[-1].end
        self._before = blocks[-1].token.type
        self._gap = not lines[end - 1].strip() or (end < len(lines) and not lines[end].strip())
        self._code_lines_out = 0
        self._pending = self._pending[sum(map(len, lines[:end])) :]
        return pieces

    def _render(self, source: str, blocks: list[Block]) -> Iterator[RenderableType]:
        """The blocks as they are shown, each after the empty line that sets it apart."""
        lines = source_lines(source)
        before, gap, out = self._before, self._gap, self._code_lines_out
        for block in blocks:
            kind = block.token.type
            same_list = before == kind == "list_item_open"
            gap = gap or (block.start > 0 and not lines[block.start - 1].strip())
            if before is not None and not out and (gap or not same_list):
                yield Text()
            if kind == "fence":
                yield from code(block.token, first=out, last=None)
            else:
                yield Blocks("".join(lines[block.start : block.end]), self._parser)
            before, gap, out = kind, False, 0

    def _code_so_far(self, block: Block) -> list[RenderableType]:
        """The code lines that are far enough up not to be live any more."""
        last = block.token.content.count("\n") - LIVE_CODE_LINES
        if last <= self._code_lines_out:
            return []
        pieces = list(code(block.token, first=self._code_lines_out, last=last))
        if self._before is not None and not self._code_lines_out:
            pieces.insert(0, Text())
        self._code_lines_out = last
        return pieces


def code(token: Token, first: int, last: int | None) -> Iterator[RenderableType]:
    """Lines (first, last] of a fenced block, coloured as part of the whole; fences are shown, as they are copied."""
    end = len(source_lines(token.content)) if last is None else last
    if first == 0:
        yield Text(f"{token.markup}{token.info}", style="dim")
    if end > first:
        lexer = token.info.split()[0] if token.info.split() else "text"
        syntax = Syntax(token.content, lexer, theme=CODE_THEME, background_color="default", word_wrap=True)
        highlighted = syntax.highlight(token.content)
        yield Text("\n").join(highlighted.split("\n", allow_blank=True)[first:end])
    if last is None:
        yield Text(token.markup, style="dim")
