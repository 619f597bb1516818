"""One turn's prefill: asks the policy layer by layer, executes what it chose, and keeps count of what that cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from loopserve_cli.heads import HeadFigures
from loopserve_cli.policies.prefill.base import BlockPolicy, LinePolicy
from loopserve_cli.policies.prefill.chosen import ChosenLines
from loopserve_cli.policies.prefill.costs import Costs
from loopserve_cli.policies.prefill.device_costs import costs_for
from loopserve_cli.policies.prefill.heads import head_figures
from loopserve_cli.policies.prefill.plans import AttentionPlan, LinePlan, plan_of
from loopserve_cli.policies.prefill.report import Call, PrefillReport, report_of
from loopserve_cli.timers import Spans
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.device import on_gpu
from loopserve_kernels.entries import causal_entries


class PrefillTurn:
    """The prefill of one turn under one policy; a new one for every turn. `layers` is how many the model has.

    What is chosen is kept in `chosen`, where that is given.
    """

    def __init__(
        self, policy: LinePolicy | BlockPolicy, layers: int | None = None, chosen: ChosenLines | None = None
    ) -> None:
        """Nothing done yet."""
        self.policy = policy
        self.chosen = chosen
        self.last_chunk = True
        self.at_layer: Callable[[], None] = lambda: None  # called before and after a layer attends, outside every span
        self._model_layers = layers
        self._calls: list[Call] = []
        self._choosing = Spans()
        self._attending = Spans()
        self._costs: dict[tuple[torch.device, torch.dtype], Costs] = {}

    @property
    def layers(self) -> int:
        """How many layers were asked so far."""
        return len({call.layer for call in self._calls})

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of one layer: query [1, H, n, D] over key and value [1, G, N, D]; returns [1, H, n, D]."""
        self.at_layer()
        out = self._attend(layer, query, key, value, scaling)
        self.at_layer()
        return out

    def _attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """As `attend`, with the groups that are asked sparse and the others dense."""
        groups, new, keys = key.shape[1], query.shape[2], key.shape[2]
        asked: list[int] = []
        if value.shape[-1] == query.shape[-1] and self._pays(query, keys):
            asked = self.policy.routes.asked(layer, groups, new, keys, self._model_layers)
        if self.chosen is not None:
            self.chosen.asks(asked, groups)
        if len(asked) == groups:
            return self._sparse(layer, asked, query, key, value, scaling)
        if not asked:
            return self._dense(layer, range(groups), query, key, value, scaling)
        rest = [group for group in range(groups) if group not in asked]
        own, others = ([_of_groups(part, some, groups) for part in (query, key, value)] for some in (asked, rest))
        out = self._sparse(layer, asked, own[0], own[1], own[2], scaling)
        other = self._dense(layer, rest, others[0], others[1], others[2], scaling)
        found = {group: _of_groups(out, [place], len(asked)) for place, group in enumerate(asked)}
        found |= {group: _of_groups(other, [place], len(rest)) for place, group in enumerate(rest)}
        return torch.cat([found[group] for group in range(groups)], 1)

    def attending(self, device: torch.device) -> AbstractContextManager[None]:
        """What is done inside counts as attention."""
        return self._attending.span(device)

    def count_dense(self, layer: int, query: Tensor, key: Tensor, groups: Sequence[int] | None = None) -> None:
        """Note that a layer ran dense over query [1, H, n, D] and key [1, G, N, D], those of the groups or of all."""
        new, keys = query.shape[2], key.shape[2]
        own = tuple(range(key.shape[1]) if groups is None else groups)
        self._calls.append(Call(layer, new, query.shape[1], causal_entries(new, keys), None, own))

    def report(self) -> PrefillReport:
        """The turn's figures; waits for the devices."""
        return report_of(self._calls, self._choosing.ms(), self._attending.ms())

    def heads(self) -> HeadFigures | None:
        """The turn's figures head by head, None where none left anything out; waits for the devices."""
        return head_figures(self._calls)

    def _dense(
        self, layer: int, groups: Sequence[int], query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attention of the groups, whose tensors these are, over all keys."""
        self.count_dense(layer, query, key, groups)
        with self.attending(query.device):
            return dense_attention(query, key, value, scaling)

    def _sparse(
        self, layer: int, asked: list[int], query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Attention of the asked groups, whose tensors these are, over what the policy chooses."""
        rows = self.policy.dense_rows if self.last_chunk else 0
        with self._choosing.span(query.device):
            plan = self._plan(layer, asked, query[0], key[0], scaling, rows)
        if plan is None:
            return self._dense(layer, asked, query, key, value, scaling)
        self.policy.routes.found(layer, asked, key.shape[2], plan.dense)
        with self.attending(query.device):
            # On a CPU it costs nothing to look whether any head is sparse; a GPU would have to be waited for.
            if not on_gpu(query) and bool(plan.dense.all()):
                return dense_attention(query, key, value, scaling)
            return plan.attend(query[0], key[0], value[0], scaling)[None]

    def _plan(
        self, layer: int, asked: Sequence[int], query: Tensor, key: Tensor, scaling: float, dense_rows: int
    ) -> AttentionPlan | None:
        """The plan to execute, heads flagged dense where that is cheaper; None when the policy wants all of it."""
        new, keys = query.shape[1], key.shape[1]
        causal = causal_entries(new, keys)
        plan = plan_of(self.policy, query, key, scaling, dense_rows, self._most_density(query) * causal)
        if plan is None:
            return None
        self._calls.append(Call(layer, new, query.shape[0], causal, plan.choice(), tuple(asked)))
        if self.chosen is not None and isinstance(plan, LinePlan):
            self.chosen.chose(layer, query, key, plan.lines, plan.index)
        return plan

    def _pays(self, query: Tensor, keys: int) -> bool:
        """Whether lines are worth choosing for query [1, H, n, D]."""
        _, heads, new, size = query.shape
        gate, sampled = self.policy.gate, self.policy.sampled(new)
        if not gate.opens(new, keys):
            return False
        return not (sampled and gate.asks_costs) or self._costs_of(query).pays(new, keys, heads, size, sampled)

    def _most_density(self, query: Tensor) -> float:
        """The share of its causal entries above which a head of query [H, n, D] runs dense."""
        gate = self.policy.gate
        if not (gate.asks_costs and self.policy.sampled(query.shape[1])):
            return gate.most_density
        return min(gate.most_density, self._costs_of(query).most_density(query.shape[2]))

    def _costs_of(self, query: Tensor) -> Costs:
        """The costs of the query's device and dtype, read once a turn."""
        kind = query.device, query.dtype
        if kind not in self._costs:
            self._costs[kind] = costs_for(*kind)
        return self._costs[kind]


def _of_groups(part: Tensor, own: list[int], groups: int) -> Tensor:
    """Of heads or key-value heads [1, X, n, D], those of some of the groups."""
    each = part.shape[1] // groups
    return torch.cat([part[:, group * each : (group + 1) * each] for group in own], 1)
