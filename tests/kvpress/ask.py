"""Asks the presses of the package `kvpress` which keys they keep, and writes `chosen.json` beside this file.

Not one of the ordinary tests, which need no kvpress: `tests/test_kvpress.py` compares our policies with what stands in
`chosen.json`. kvpress 0.5.5 wants transformers below 5.3, and so an environment of its own:

    python3.11 -m venv asking
    asking/bin/pip install torch==2.13.0 transformers==5.2.0 kvpress==0.5.5
    PYTHONPATH=tests asking/bin/python tests/kvpress/ask.py

How it asks. A LlamaAttention whose projections copy parts of its input runs over one prompt with the press's forward
hook, as `with press(model)` does. Its queries and keys are those of `kvpress_tensors`, checked to the bit after RoPE;
its values are the positions, so that the cache itself says which keys are left. AdaKVPress takes nothing out of the
cache: what it masks is left out.

How settings correspond.

- A ratio r keeps int(N (1 - r)) keys, at least one. Our budget B is r = 1 - (B + 1/2) / N, whatever the rounding.
- SnapKVPress: window_size is our window, kernel_size our pool_width. Both count the window's keys in the budget.
- AdaKVPress: alpha_safeguard is our floor, the press in it a SnapKVPress. Both take int(B floor) best keys of every
  head first, those of the window foremost. It takes at least one where we may take none; the window is kept anyway.
- StreamingLLMPress: n_sink is our sinks.
- ExpectedAttentionPress: n_future_positions is our future, n_sink our sinks, epsilon our epsilon; covariance and value
  norms are on, as by default. It turns queries by the positions after the prompt, worked out as the others are. Its
  scores are powers of e, which single precision sees less finely: their cuts are at least CLOSEST_POWERS.

Not asked, as there is nothing to agree on: budgets below the window (the press keeps any of the window's keys, all of
one score; we let a shorter window judge) or below the sinks (any of the sinks; we keep the first), even pool widths
(the press fails, profiles refuse them), and keys of equal score. A cut between scores that are closer than CLOSEST,
relative, is refused rather than written down: single precision may see it either way. Then take another seed.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from kvpress import AdaKVPress, ExpectedAttentionPress, SnapKVPress, StreamingLLMPress
from kvpress.presses.base_press import BasePress
from kvpress.utils import compute_n_kept, get_prerope_query_states
from kvpress_tensors import Shape, after_rope, before_rope, checksum, ranges, rope
from torch import Tensor
from transformers import DynamicCache, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb

CLOSEST, CLOSEST_POWERS = 1e-5, 1e-4
SHAPES = (
    Shape(1, heads=3, kv_heads=3, size=16, keys=97),
    Shape(2, heads=4, kv_heads=2, size=32, keys=97),
    Shape(3, heads=8, kv_heads=2, size=16, keys=97),
    Shape(4, heads=4, kv_heads=4, size=32, keys=333),
    Shape(25, heads=6, kv_heads=3, size=16, keys=333),
    Shape(16, heads=8, kv_heads=2, size=32, keys=333),
    Shape(7, heads=2, kv_heads=2, size=16, keys=1000),
    Shape(18, heads=8, kv_heads=4, size=32, keys=1000),
    Shape(9, heads=12, kv_heads=3, size=64, keys=1000),
)
# By number of keys: (budget, window, pool_width). Among them a window and one key, and everything but one key.
SNAPKV = {
    97: ((14, 13, 1), (40, 8, 5), (96, 64, 5)),
    333: ((33, 32, 5), (100, 16, 7), (250, 64, 5)),
    1000: ((65, 32, 3), (128, 32, 7), (512, 64, 5)),
}
FLOORS = (0.0, 0.01, 0.2, 0.6, 0.9, 1.0)
# (budget, sinks). Among them sinks alone, no sinks, and everything but one key.
# (budget, future, sinks, epsilon). Among them a single position to come, no sinks, and everything but one key.
EXPECTED = {
    97: ((14, 512, 4, 0.0), (40, 64, 0, 0.01), (96, 1, 2, 0.0)),
    333: ((33, 512, 4, 0.0), (100, 17, 1, 0.1), (250, 256, 8, 0.002)),
    1000: ((70, 512, 4, 0.0), (121, 100, 16, 0.01), (519, 2048, 4, 0.02)),
}
STREAMING = {97: ((4, 4), (40, 4), (96, 4)), 333: ((5, 4), (100, 0), (250, 16)), 1000: ((64, 4), (512, 4), (999, 1))}


class Attention:
    """One attention layer over one prompt, with known queries and keys, and positions for values."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        query, key = before_rope(shape)
        parts = [part.transpose(0, 1).flatten(1) for part in (query, key)]
        place = torch.arange(shape.keys, dtype=torch.float32)[:, None]
        # Padded, as a hidden size must be a multiple of the heads.
        width = parts[0].shape[1] + parts[1].shape[1] + 1
        spare = torch.zeros(shape.keys, -width % shape.heads)
        self.hidden = torch.cat([*parts, place, spare], 1)[None]
        self.rope = tuple(table[None] for table in rope(shape))
        self.layer = self._layer(self.hidden.shape[2], width - 1)
        self.query, self.key = after_rope(shape)
        self._check()

    def _layer(self, hidden_size: int, place: int) -> LlamaAttention:
        """Projections that copy: the first columns are queries, the next keys, column `place` the position."""
        shape = self.shape
        config = LlamaConfig(
            hidden_size=hidden_size,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.size,
            attn_implementation="sdpa",
        )
        layer = LlamaAttention(config, layer_idx=0).eval()
        copy = torch.eye(hidden_size)
        split = shape.heads * shape.size
        layer.q_proj.weight.data = copy[:split]
        layer.k_proj.weight.data = copy[split:place]
        layer.v_proj.weight.data = copy[place].expand(shape.kv_heads * shape.size, -1)
        layer.rotary_emb = lambda _, places: [table[None] for table in rope(shape, int(places[0, 0]), places.shape[1])]
        return layer

    def _check(self) -> None:
        """The layer's queries after RoPE are those that the ordinary test will make."""
        query, _ = apply_rotary_pos_emb(
            get_prerope_query_states(self.layer, self.hidden), self.key[None, :1], *self.rope
        )
        assert torch.equal(query[0], self.query), "the layer sees other queries"

    def kept(self, press: BasePress) -> list[list[int]]:
        """Ascending keys of every key-value head that are left after prefill under the press."""
        cache = DynamicCache()
        hook = self.layer.register_forward_hook(press.forward_hook, with_kwargs=True)
        self.layer(
            hidden_states=self.hidden,
            position_embeddings=self.rope,
            past_key_values=cache,
            cache_position=torch.arange(self.shape.keys),
        )
        hook.remove()
        left = cache.layers[0].values[0, :, :, 0].long()
        for group, keys in enumerate(left):
            assert torch.equal(cache.layers[0].keys[0, group], self.key[group, keys]), "the cache holds other keys"
        masked = set()
        if isinstance(press, AdaKVPress):
            _, heads, keys = self.layer.masked_key_indices
            masked = set(zip(heads.tolist(), keys.tolist(), strict=True))
        return [[key for key in sorted(row) if (group, key) not in masked] for group, row in enumerate(left.tolist())]

    def scores(self, press: SnapKVPress | ExpectedAttentionPress) -> Tensor:
        """The press's own scores, [G, N]."""
        cached, place = self.key[None], torch.arange(self.shape.keys, dtype=torch.float32)
        values = place[:, None].expand_as(cached)
        return press.score(self.layer, self.hidden, cached, values, None, {"position_embeddings": self.rope})[0]


def ratio(budget: int, keys: int) -> float:
    found = 1 - (budget + 0.5) / keys
    assert compute_n_kept(keys, found) == budget
    return found


def cut(scores: Tensor, kept: Tensor) -> float:
    """How far the lowest kept score stands above the highest that is not, relative; infinite where nothing is cut."""
    if not kept.any() or kept.all():
        return float("inf")
    low = scores[kept].min()
    return float((low - scores[~kept].max()) / low)


def closest_cut(scores: Tensor, kept: list[list[int]], safe: int | None) -> float:
    """The closest of the cuts that the choice depends on; `safe` best keys of every head do not compete (AdaKV)."""
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for group, row in enumerate(kept):
        chosen[group, row] = True
    if safe is None:
        return min(cut(*pair) for pair in zip(scores, chosen, strict=True))
    first = torch.zeros_like(chosen).scatter_(1, scores.topk(safe, 1).indices, True)
    # Which of the window's keys are safe is a draw, and does not matter: all of them are kept.
    window = scores == scores.max()
    by_head = [cut(row[~own], is_safe[~own]) for row, own, is_safe in zip(scores, window, first, strict=True)]
    compete = ~first & ~window
    return min(*by_head, cut(scores[compete], chosen[compete]))


def asked_of(attention: Attention) -> list[dict[str, Any]]:
    """Every press with every setting for this length."""
    keys = attention.shape.keys
    asked: list[dict[str, Any]] = []

    def write(
        policy: str, settings: dict[str, Any], kept: list[list[int]], gap: float | None, closest: float = CLOSEST
    ) -> None:
        assert gap is None or gap >= closest, f"{attention.shape}, {policy} {settings}: a cut of {gap:.1e}"
        entry = {"policy": policy, "settings": settings, "gap": gap and float(f"{gap:.1e}")}
        asked.append({**entry, "kept": [ranges(row) for row in kept]})

    for budget, sinks in STREAMING[keys]:
        kept = attention.kept(StreamingLLMPress(ratio(budget, keys), n_sink=sinks))
        write("streaming", {"budget": budget, "sinks": sinks}, kept, None)
    for budget, window, width in SNAPKV[keys]:
        snapkv = SnapKVPress(ratio(budget, keys), window_size=window, kernel_size=width)
        settings = {"budget": budget, "window": window, "pool_width": width}
        scores, kept = attention.scores(snapkv), attention.kept(snapkv)
        write("snapkv", settings, kept, closest_cut(scores, kept, None))
        for floor in FLOORS:
            kept = attention.kept(AdaKVPress(snapkv, alpha_safeguard=floor))
            write("adakv", {**settings, "floor": floor}, kept, closest_cut(scores, kept, int(budget * floor)))
    for budget, future, sinks, epsilon in EXPECTED[keys]:
        expected = ExpectedAttentionPress(ratio(budget, keys), n_future_positions=future, n_sink=sinks, epsilon=epsilon)
        settings = {"budget": budget, "future": future, "sinks": sinks, "epsilon": epsilon}
        scores, kept = attention.scores(expected), attention.kept(expected)
        write("expected_attention", settings, kept, closest_cut(scores, kept, None), CLOSEST_POWERS)
    return asked


def main() -> None:
    """Write the choices, one line each."""
    versions = {name: version(name) for name in ("kvpress", "transformers", "torch")}
    lines = []
    for shape in SHAPES:
        attention = Attention(shape)
        with torch.inference_mode():
            choices = ",\n".join("  " + json.dumps(entry) for entry in asked_of(attention))
        head = json.dumps({**asdict(shape), "sha256": checksum(attention.query, attention.key)})
        lines.append(f'{{"tensors": {head}, "asked": [\n{choices}\n]}}')
    text = f'{{"versions": {json.dumps(versions)}, "choices": [\n{",".join(lines)}\n]}}\n'
    Path(__file__).with_name("chosen.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
