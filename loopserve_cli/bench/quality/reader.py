"""Plain transformers as one who reads a dialogue once and answers many questions, each from the same state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedTokenizerBase,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from loopserve_cli.bench.quality.density import HeadDensity, head_density
from loopserve_cli.engine.model_call import next_logits, positions

RECORDING_ATTENTION = "loopserve_recording"


@dataclass(slots=True)
class QueryRows:
    """The rows whose queries are wanted, and what was found: one [H, m, D] per layer."""

    rows: torch.Tensor
    found: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    scaling: float = 1.0

    def take(self, layer: int, query: torch.Tensor, seen: int, scaling: float) -> None:
        """Keep the wanted rows of one chunk: query [1, H, n, D] at positions seen - n to seen - 1."""
        start = seen - query.shape[2]
        inside = self.rows[(self.rows >= start) & (self.rows < seen)]
        self.found.setdefault(layer, []).append(query[0][:, inside - start].float())
        self.scaling = scaling


def recording_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    query_rows: QueryRows | None = None,
    **kwargs: Any,
) -> Any:
    """The library's own sdpa attention that first hands its queries, after RoPE, to `query_rows`."""
    if query_rows is not None:
        query_rows.take(module.layer_idx, query, key.shape[2], kwargs["scaling"])
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)


class Reader:
    """Full attention in plain transformers: prefill in chunks, greedy answers, rollback."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, chunk: int = 2048) -> None:
        """`chunk` bounds the memory of the prefill, in tokens."""
        AttentionInterface.register(RECORDING_ATTENTION, recording_attention)
        AttentionMaskInterface.register(RECORDING_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        model.set_attn_implementation(RECORDING_ATTENTION)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.chunk = chunk
        self.cache = DynamicCache(config=model.config)

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """The text's ids; special tokens may be written out."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def read(self, ids: list[int], query_rows: QueryRows | None = None) -> None:
        """Forget the last dialogue and prefill this one."""
        self.cache = DynamicCache(config=self.model.config)
        for start in range(0, len(ids), self.chunk):
            self._forward(ids[start : start + self.chunk], query_rows)

    def answer(self, question: str, most: int) -> str | None:
        """The greedy answer to `question` without its end token, or None when it has no end within `most` tokens.

        Afterwards the reader is where it was: the next question sees nothing of this one.
        """
        held = self.cache.get_seq_length()
        next_ids = self.encode(f"<|user|>{question}<|end|><|assistant|>")
        answer: list[int] = []
        try:
            while len(answer) < most:
                token = int(self._forward(next_ids).argmax())
                if token == self.tokenizer.eos_token_id:
                    return str(self.tokenizer.decode(answer))
                answer.append(token)
                next_ids = [token]
            return None
        finally:
            self.cache.crop(held - self.cache.get_seq_length())

    @torch.inference_mode()
    def densities(self, ids: list[int], rows: tuple[torch.Tensor, torch.Tensor], alpha: float) -> list[HeadDensity]:
        """Read the dialogue and measure every head of every layer on the sampled rows."""
        device = self.model.device
        rows = (rows[0].to(device), rows[1].to(device))
        order = torch.cat(rows).sort()
        wanted = QueryRows(order.values)
        self.read(ids, wanted)
        result = []
        layers: Any = self.cache.layers
        for layer, pieces in sorted(wanted.found.items()):
            query = torch.cat(pieces, 1)[:, order.indices.argsort()]
            keys = layers[layer].keys[0]
            group = query.shape[0] // keys.shape[0]
            for head in range(query.shape[0]):
                found = head_density(layer, head, query[head], keys[head // group], rows, wanted.scaling, alpha)
                result.append(found)
        return result

    @torch.inference_mode()
    def _forward(self, ids: list[int], query_rows: QueryRows | None = None) -> torch.Tensor:
        """Feed ids after what is held; the last logits, [V]."""
        device = self.model.device
        places = positions(self.cache.get_seq_length(), len(ids), device)
        return next_logits(self.model, torch.tensor([ids], device=device), places, self.cache, query_rows=query_rows)[0]
