"""Output tokens to text as they come: what is thought apart from what is answered, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopserve_cli.engine.detokenizer import Detokenizer
from loopserve_cli.engine.markup import Markup
from loopserve_cli.engine.splitter import Everything, Piece
from loopserve_cli.engine.stop_strings import StopStrings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# So many tokens of the prompt tell whether it ends inside thoughts: more than any template writes after a question.
PROMPT_END = 64
NO_MARKUP = Markup()


class TextStream:
    """Tokens in, text out; `text` is the whole answer so far, `thoughts` what was thought before it.

    Stop strings end the answer; in thoughts they are text like any other.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: tuple[str, ...],
        markup: Markup = NO_MARKUP,
        prompt: Sequence[int] = (),
    ) -> None:
        """A stream at the start of an answer to `prompt`, of which the last tokens are enough."""
        self._detokenizer = Detokenizer(tokenizer, markup.marked)
        self._thinks = markup.splitter is not None
        end = Detokenizer(tokenizer, markup.marked)
        self._splitter = (
            Everything() if markup.splitter is None else markup.splitter("".join(map(end.push, prompt[-PROMPT_END:])))
        )
        self._stop = StopStrings(stop)
        self._waiting: list[Piece] = []
        self._tokens = self._undecided = self._thought = 0
        self.first_answer: int | None = None
        self.text = self.thoughts = ""
        self.reasoning = self._splitter.thinking

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._stop.met

    @property
    def tokens_reasoning(self) -> int | None:
        """How many tokens were thought, tags and headers left out; None for a model that does not think aloud."""
        return (self._thought if self.thoughts else 0) if self._thinks else None

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly empty; `reasoning` then tells whether it is thought.

        All of it is of one kind: an answer that begins in the token that ends the thoughts comes with the next one.
        """
        thinking = self._splitter.thinking
        pieces = self._splitter.feed(self._detokenizer.push(token))
        self._count(pieces, thinking)
        self._take(pieces)
        return self._next(thinking)

    def end(self, text: str) -> str:
        """The text of the last token: `text`, as `push` returned it, and what was held back; of one kind again.

        Where the two are thought and answer, the answer is returned; `thoughts` has the rest.
        """
        thought = self.reasoning
        rest = self.flush()
        return text + rest if not rest or not text or thought == self.reasoning else rest

    def flush(self) -> str:
        """What was held back, at the end of an answer; of two kinds, only the answer's is returned."""
        rest = self._detokenizer.flush()
        self._take([*(self._splitter.feed(rest) if rest else []), *self._splitter.finish()])
        if tail := self._stop.flush():
            self._answer(tail)
        kinds = {piece.reasoning for piece in self._waiting}
        waiting, self._waiting = self._waiting, []
        if not kinds:
            return ""
        self.reasoning = kinds == {True}
        return "".join(piece.text for piece in waiting if piece.reasoning == self.reasoning)

    def _take(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.reasoning:
                self.thoughts += piece.text
                self._waiting.append(piece)
            elif text := self._stop.feed(piece.text):
                self._answer(text)

    def _answer(self, text: str) -> None:
        self.text += text
        self._waiting.append(Piece(text))

    def _next(self, thinking: bool) -> str:
        """The waiting pieces up to the next change of kind."""
        still = thinking and self._splitter.thinking and not self._splitter.undecided
        self.reasoning = self._waiting[0].reasoning if self._waiting else still
        said = []
        while self._waiting and self._waiting[0].reasoning == self.reasoning:
            said.append(self._waiting.pop(0).text)
        return "".join(said)

    def _count(self, pieces: list[Piece], thinking: bool) -> None:
        """Count a token as thought, as answered or as markup, once it is known to be that."""
        self._tokens += 1
        if not pieces and (self._splitter.undecided or self._detokenizer.unfinished):
            self._undecided += 1
            return
        if any(piece.reasoning for piece in pieces) or (not pieces and thinking and self._splitter.thinking):
            self._thought += 1 + self._undecided
        elif (pieces or self._splitter.answering) and self.first_answer is None:
            self.first_answer = self._tokens - 1 - self._undecided
        self._undecided = 0
