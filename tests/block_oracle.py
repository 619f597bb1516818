"""FlexPrefill and XAttention written out from their papers in float64, a head, a row block and a block at a time."""

from __future__ import annotations

import math

import torch
from attention_oracle import exact_weights
from torch import Tensor


def block_of(position: int, size: int) -> int:
    return position // size


def fewest(scores: dict[tuple[int, ...], float], share: float, least: int, taken: set[tuple[int, ...]]) -> set[tuple]:
    """Beginning with what is taken, add the largest until the share of all is reached."""
    total, chosen = sum(scores.values()), set(taken)
    reached = sum(scores[place] for place in chosen)
    for place in sorted(scores, key=lambda place: (-scores[place], place)):
        if place in chosen:
            continue
        if reached >= share * total and len(chosen) >= least:
            break
        chosen.add(place)
        reached += scores[place]
    return chosen


def divergence(p: list[float], q: list[float]) -> float:
    def kl(a: list[float], b: list[float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)

    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return math.sqrt(kl(p, middle) / 2 + kl(q, middle) / 2)


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    parts = [math.exp(score - top) for score in scores]
    return [part / sum(parts) for part in parts]


def flexprefill_blocks(
    query: Tensor, key: Tensor, scaling: float, size: int, gamma: float, tau: float, min_budget: int
) -> tuple[list[set[tuple]], list[bool]]:
    """Of every head the (row block, key block) pairs by absolute block, and whether it is query-aware."""
    heads, new, keys = query.shape[0], query.shape[1], key.shape[1]
    history, last_block, least = keys - new, (keys - 1) // size, math.ceil(min_budget / size)
    first_block = history // size
    count = min(size, new)
    sets, kinds = [], []
    for head in range(heads):
        own = key[head * key.shape[0] // heads].double()
        rows = query[head].double()
        last = exact_weights(rows[None, new - count :], torch.arange(keys - count, keys), own[None], scaling)[0]
        true, diagonal = [0.0] * (last_block + 1), [0.0] * (last_block + 1)
        for i in range(count):
            position = keys - count + i
            for k in range(position + 1):
                true[k // size] += float(last[i, k]) / count
                diagonal[(position - k) // size] += float(last[i, k]) / count
        means = [own[c * size : (c + 1) * size].mean(0) for c in range(last_block + 1)]
        pooled = rows[new - count :].mean(0)
        estimate = softmax([float(pooled @ mean) * scaling for mean in means])
        aware = divergence(estimate, true) < tau
        kinds.append(aware)
        pairs: set[tuple] = {(r, r) for r in range(first_block, last_block + 1)}
        if aware:
            scores = {}
            for r in range(first_block, last_block + 1):
                low, high = max(r * size, history) - history, min((r + 1) * size, keys) - history
                mean = rows[low:high].mean(0)
                weights = softmax([float(mean @ means[c]) * scaling for c in range(r + 1)])
                scores |= {(r, c): weight for c, weight in enumerate(weights)}
            pairs |= fewest(scores, gamma, least * (last_block + 1 - first_block), set())
        else:
            columns = fewest({(c,): mass for c, mass in enumerate(true)}, gamma, least, set())
            offsets = fewest({(d,): mass for d, mass in enumerate(diagonal)}, gamma, least, set())
            for r in range(first_block, last_block + 1):
                pairs |= {(r, c) for (c,) in columns if c <= r}
                pairs |= {(r, r - d) for (d,) in offsets if d <= r}
        sets.append(pairs)
    return sets, kinds


def xattention_blocks(
    query: Tensor, key: Tensor, scaling: float, size: int, threshold: float, stride: int
) -> list[set[tuple]]:
    """Of every head the (row block, key block) pairs by absolute block."""
    heads, new, keys = query.shape[0], query.shape[1], key.shape[1]
    history, last_block = keys - new, (keys - 1) // size
    tiles = math.ceil(keys / stride)
    sets = []
    for head in range(heads):
        own, rows = key[head * key.shape[0] // heads].double(), query[head].double()
        scores: dict[int, dict[tuple, float]] = {}
        for t in range(history // stride, tiles):
            sums = []
            for u in range(t + 1):
                total = 0.0
                for i in range(stride):
                    row, column = t * stride + stride - 1 - i, u * stride + i
                    if history <= row < keys and column < keys:
                        total += float(rows[row - history] @ own[column])
                sums.append(total * scaling / stride)
            of_block = scores.setdefault(t * stride // size, {})
            for u, weight in enumerate(softmax(sums)):
                place = (u * stride // size,)
                of_block[place] = of_block.get(place, 0.0) + weight
        pairs: set[tuple] = set()
        for r in range(history // size, last_block + 1):
            pairs |= {(r, c) for (c,) in fewest(scores[r], threshold, 0, {(0,), (r,)})}
        sets.append(pairs)
    return sets
