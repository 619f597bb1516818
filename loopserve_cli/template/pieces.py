"""Text to ids, piece by piece: what was tokenised once is not tokenised again.

A tokenizer first cuts a text at its added tokens, and what stands between them it tokenises on its own. So a text may
be cut before such a token: each piece has the same ids wherever it stands, and the pieces of old turns come from a
table. Some added tokens allow no cut: one that takes the spaces before it, one that is looked for after a normaliser
has changed the text, one that may be part of a longer one. A tokenizer that does it otherwise gets the whole each time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loopserve_cli.template.marks import Span
from loopserve_cli.template.plain import spell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts around which tokenizers have their ways, for trying whether pieces give the ids of the whole.
AWKWARD = ("a", " a ", "\n", "\u0301e ", "  \n\n a", "")


class Pieces:
    """A tokenizer and the pieces of the last text."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        control: Mapping[str, int],
        source: str,
        written: Sequence[str],
    ) -> None:
        """Cut at the added tokens that the template mentions in `source` or wrote in `written`."""
        self.tokenizer = tokenizer
        self.control = control
        self._rstrip = {token.content for token in tokenizer.added_tokens_decoder.values() if token.rstrip}
        self._ids: dict[tuple[str, str], list[int]] = {}
        # An added token may be looked for after normalising: then other letters can become one.
        unknown = getattr(tokenizer, "unk_token", None)  # comes of letters that the vocabulary lacks
        guarded = {token: number for token, number in control.items() if token != unknown}
        self._guarded = frozenset(guarded.values())
        self._forged = _forged(tokenizer, list(guarded))
        cuts = cut_tokens(tokenizer, (source, *written))
        self._cut = re.compile("(?=" + "|".join(map(re.escape, cuts)) + ")") if cuts else None
        if not all(map(self._cuts_well, [*written, *_awkward(cuts)])):
            self._cut = None

    def ids(self, spans: Sequence[Span]) -> list[int]:
        """The ids of the whole; control tokens that somebody said are spelled."""
        fresh: dict[tuple[str, str], list[int]] = {}
        ids: list[int] = []
        for said, piece in self._pieces(spans):
            known = self._ids.get((said, piece))
            if known is None:
                known = self.tokenise(said, piece)
            fresh[said, piece] = known
            ids += known
        self._ids = fresh
        return ids

    def count(self, spans: Sequence[Span]) -> int:
        """How many ids they have, wherever they stand."""
        return sum(len(self.tokenise(said, piece)) for said, piece in self._pieces(spans))

    def tokenise(self, said: str, piece: str) -> list[int]:
        """The ids of a piece, after a control token's text that somebody said."""
        if not said:
            return self._text(piece)
        spaces = ""
        if said in self._rstrip:  # the token takes the spaces after it, the text does not
            spaces = piece[: len(piece) - len(piece.lstrip())]
            piece = piece[len(spaces) :]
        spelled = spell(self.tokenizer, said + spaces, self.control.values())
        if not piece:
            return spelled
        # What follows has the ids that it has after the token, so no tokenizer takes it for the beginning of a text.
        after = list(self.tokenizer(said + piece, add_special_tokens=False).input_ids)
        if after[:1] == [self.control[said]]:
            return spelled + after[1:]
        return spelled + self._text(piece)

    def _text(self, piece: str) -> list[int]:
        """The ids of what the template wrote; only where it wrote a control token there is one."""
        ids = list(self.tokenizer(piece, add_special_tokens=False).input_ids)
        if self._forged is None:
            return ids
        first, *rest = self._forged.split(piece)
        if [number for number in ids if number in self._guarded] == [self.control[token] for token in rest[::2]]:
            return ids
        ids = spell(self.tokenizer, first, self._guarded)
        for token, text in zip(rest[::2], rest[1::2], strict=True):
            ids += [self.control[token], *spell(self.tokenizer, text, self._guarded)]
        return ids

    def _pieces(self, spans: Sequence[Span]) -> list[tuple[str, str]]:
        pieces: list[tuple[str, str]] = []
        for span in spans:
            first, *rest = self._cut.split(span.text) if self._cut else [span.text]
            if span.said or first:
                pieces.append((span.said, first))
            pieces += [("", piece) for piece in rest]
        return pieces

    def _cuts_well(self, text: str) -> bool:
        """Whether the pieces of `text` have the ids of the whole."""
        if self._cut is None:
            return True
        pieces = [self.tokenise("", piece) for piece in self._cut.split(text) if piece]
        return sum(pieces, []) == self.tokenise("", text)


def cut_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """The tokens before which a text may be cut, of those in `texts` and those that begin and end a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or getattr(tokenizer, "split_special_tokens", False):
        return []
    normalises = backend.normalizer is not None
    named = {tokenizer.bos_token, tokenizer.eos_token}
    added: list[Any] = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
    candidates = [
        token.content
        for token in added
        if token.special
        and not (token.lstrip or token.single_word or (token.normalized and normalises))
        and (token.content in named or any(token.content in text for text in texts))
    ]
    others = [token.content for token in added]
    return [token for token in candidates if not any(_may_hold(other, token) for other in others)]


def _forged(tokenizer: PreTrainedTokenizerBase, control: Sequence[str]) -> re.Pattern[str] | None:
    """Finds control tokens, if the tokenizer may also find some where none is written."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not control or backend is None or backend.normalizer is None:
        return None
    if not any(token.normalized for token in tokenizer.added_tokens_decoder.values() if token.content in control):
        return None
    return re.compile("(" + "|".join(map(re.escape, sorted(control, key=len, reverse=True))) + ")")


def _may_hold(other: str, token: str) -> bool:
    """Whether `other` may be found where `token` begins: it holds it, or ends as it begins."""
    if other == token or not (other.startswith(token) or token[0] in other[1:]):
        return False
    return token in other or any(token.startswith(other[-length:]) for length in range(1, min(len(other), len(token))))


def _awkward(cuts: Sequence[str]) -> list[str]:
    """For every token a text that has it between awkward texts."""
    return [cut.join(AWKWARD) for cut in cuts]
