"""What a model can take: which tokens, and how many of them."""

from __future__ import annotations

from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.errors import ContextLimitError, ModelError


class Limits:
    """The limits of one model. `context` is how many tokens it reads at most; None where that is not known."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Those of a loaded model."""
        self.context = loaded.context_limit
        self._loaded = loaded

    def check_known(self, ids: list[int]) -> None:
        """Refuse, with a ModelError, a token without an embedding: a tokenizer may have been given more of them."""
        name, rows = self._loaded.name, self._loaded.vocabulary
        if ids and max(ids) >= rows:
            token = self._loaded.tokenizer.convert_ids_to_tokens(max(ids))
            raise ModelError(
                f"{name}: its tokenizer has the token {token!r}, but the model has embeddings for only the "
                f"first {rows:,} tokens; use the tokenizer that the model was made with"
            )

    def check_length(self, tokens: int) -> None:
        """Refuse, with a ContextLimitError, a dialogue of so many tokens if the model's context cannot hold it."""
        if not self.has_room(tokens):
            raise ContextLimitError(
                f"the dialogue would be {tokens} tokens long, but {self._loaded.name} reads at most "
                f"{self.context}; shorten the message, or begin anew (in a chat: /undo or /clear)"
            )

    def has_room(self, tokens: int) -> bool:
        """Whether the model reads so many tokens."""
        return self.context is None or tokens <= self.context

    def within(self, tokens: int) -> int:
        """So many tokens, or as many as the model reads."""
        return tokens if self.context is None else min(tokens, self.context)
