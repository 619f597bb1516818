"""What a turn's prefill did: figures of every layer and chunk, kept on their devices and summed once at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PrefillReport:
    """What a turn's prefill did, over all layers, heads and chunks. None: not known, or nothing to know.

    `density` is entries computed / causal entries. `coverage` is the mean share of the sampled rows' attention on
    what was chosen (1 for a dense head), None where nobody measured it (fixed patterns). The lines are means over the
    heads that ran sparse, None where blocks were chosen. `dense_layers` counts layers in which no head did.
    """

    select_ms: float
    attention_ms: float
    density: float | None
    coverage: float | None
    lines_vertical: float | None
    lines_slash: float | None
    dense_layers: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for P line heads, each [P]: small tensors that stay on their device until the turn ends.

    NaN is what nobody measured, and the lines of a plan of blocks.
    """

    dense: Tensor
    entries: Tensor
    coverage: Tensor
    verticals: Tensor
    slashes: Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """Some heads of one layer over one chunk; `choice` is None when all of it was dense without asking.

    `groups` are the key-value heads whose query heads these are.
    """

    layer: int
    new: int
    heads: int
    causal: int
    choice: Choice | None
    groups: tuple[int, ...]

    @property
    def query_heads(self) -> list[int]:
        """The numbers of the query heads, in the order in which they were computed."""
        each = self.heads // len(self.groups)
        return [group * each + head for group in self.groups for head in range(each)]


def report_of(calls: Sequence[Call], select_ms: float, attention_ms: float) -> PrefillReport:
    """The figures of a turn's calls; waits for the devices."""
    found = choices_on_host(calls)
    executed = causal = covered = weight = vertical = slash = sparse_heads = 0.0
    sparse_layers = set()
    for call in calls:
        all_entries, rows = call.causal * call.heads, call.new * call.heads
        causal, weight = causal + all_entries, weight + rows
        if call not in found:
            executed, covered = executed + all_entries, covered + rows
            continue
        dense, entries, coverage, verticals, slashes = found[call]
        plans, sparse = len(dense), 1 - dense
        executed += float(entries.sum()) * call.heads / plans
        covered += float(coverage.where(dense == 0, 1.0).sum()) / plans * rows
        vertical, slash = vertical + float(verticals @ sparse), slash + float(slashes @ sparse)
        sparse_heads += float(sparse.sum())
        if sparse.any():
            sparse_layers.add(call.layer)
    return PrefillReport(
        select_ms=select_ms,
        attention_ms=attention_ms,
        density=executed / causal if causal else None,
        coverage=_known_mean(covered, weight),
        lines_vertical=_known_mean(vertical, sparse_heads),
        lines_slash=_known_mean(slash, sparse_heads),
        dense_layers=len({call.layer for call in calls}) - len(sparse_layers),
    )


def _known_mean(total: float, count: float) -> float | None:
    """The mean; None of nothing, and where some part is not known (NaN)."""
    return total / count if count and total == total else None


def choices_on_host(calls: Sequence[Call]) -> dict[Call, Tensor]:
    """What was chosen in every call that was asked, [5, P] float64 in the order of `Choice`; waits for the devices."""
    return dict(zip((call for call in calls if call.choice is not None), _on_host(calls), strict=True))


def _on_host(calls: Sequence[Call]) -> list[Tensor]:
    """Every choice as [5, P] float64 in the order of its fields, in one copy from each device."""
    choices = [call.choice for call in calls if call.choice is not None]
    found: dict[int, Tensor] = {}
    for device in {choice.dense.device for choice in choices}:
        own = [place for place, choice in enumerate(choices) if choice.dense.device == device]
        columns = [
            torch.cat([getattr(choices[place], field.name) for place in own]).double() for field in fields(Choice)
        ]
        parts = torch.stack(columns).cpu().split([len(choices[place].dense) for place in own], 1)
        found |= dict(zip(own, parts, strict=True))
    return [found[place] for place in range(len(choices))]
