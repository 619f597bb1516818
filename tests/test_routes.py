"""Routes: groups that were dense run dense unasked, until the dialogue has grown or what it held was taken back."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import relative_rms, tensors
from torch import Tensor

from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.policies.prefill.base import Gate
from loopserve_cli.policies.prefill.routes import Routes, bring
from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.dense import dense_attention

LAYERS = 9


class Slow:
    """Flags that a device has not sent yet; asking for them is a wait."""

    def __init__(self, flags: Tensor, waits: list[list[bool]]) -> None:
        self._flags, self._waits = flags.tolist(), waits

    def flags(self) -> list[bool]:
        self._waits.append(self._flags)
        return self._flags


def flags(*dense: int) -> Tensor:
    return torch.tensor(dense).bool()


def read(routes: Routes, new: int, keys: int, dense: dict[int, Tensor], groups: int = 2) -> dict[int, list[int]]:
    """One chunk through all layers, in which layers find what `dense` says, or nothing dense: the groups asked."""
    asked = {}
    for layer in range(LAYERS):
        asked[layer] = routes.asked(layer, groups, new, keys, LAYERS)
        if asked[layer]:
            found = dense.get(layer, flags(*[0] * 2 * groups))
            routes.found(layer, asked[layer], keys, found.view(groups, -1)[asked[layer]].flatten())
    return asked


def test_a_group_that_was_dense_is_asked_again_when_the_dialogue_has_grown_by_half() -> None:
    routes = Routes()
    dense = {4: flags(1, 1, 0, 1), 5: flags(1, 1, 1, 1)}
    assert all(asked == [0, 1] for asked in read(routes, 1000, 1000, dense).values())
    # One dense head of a group's two does not make the group dense.
    assert read(routes, 499, 1499, dense) == {layer: {4: [1], 5: []}.get(layer, [0, 1]) for layer in range(LAYERS)}
    assert all(asked == [0, 1] for asked in read(routes, 1, 1500, {}).values())
    # What is no longer dense is asked every time.
    assert all(asked == [0, 1] for asked in read(routes, 1, 1501, {}).values())


def test_a_turn_that_was_taken_back_leaves_no_trace() -> None:
    routes = Routes()
    read(routes, 1000, 1000, {4: flags(1, 1, 1, 1)})
    read(routes, 200, 1200, {6: flags(1, 1, 1, 1)})
    again = read(routes, 150, 1150, {})
    assert (again[4], again[6]) == ([], [0, 1])


def test_where_a_third_of_the_layers_gains_nothing_the_others_are_not_asked() -> None:
    everything = {layer: flags(1, 1, 1, 1) for layer in range(LAYERS)}
    routes = Routes()
    first = read(routes, 1000, 1000, everything)
    assert [layer for layer, asked in first.items() if asked] == [0, 1, 2]
    assert not any(read(routes, 400, 1400, everything).values())
    assert [layer for layer, asked in read(routes, 200, 1600, everything).items() if asked] == [0, 1, 2]
    some = everything | {1: flags(0, 0, 0, 1)}
    assert all(read(Routes(), 1000, 1000, some).values()), "three heads of twelve gain something"


def test_a_device_is_waited_for_once_a_chunk_and_when_does_not_change_the_route() -> None:
    waits: list[list[bool]] = []
    routes = Routes(lambda found: Slow(found, waits))
    dense = {0: flags(1, 1, 0, 0), 7: flags(1, 1, 1, 1)}
    for layer in range(LAYERS):
        before = len(waits)
        routes.found(layer, routes.asked(layer, 2, 1000, 1000, LAYERS), 1000, dense.get(layer, flags(0, 0, 0, 0)))
        assert len(waits) - before == (3 if layer == 3 else 0), "the look at layer 3 takes what three layers found"
    assert len(waits) == 3
    second = read(routes, 100, 1100, dense)
    assert (second[0], second[7]) == ([1], []), "by then the chunk before is known whole"
    assert len(waits) == 3 + 6 + 3


def test_nothing_is_sent_from_the_meta_device() -> None:
    assert bring(torch.empty(4, dtype=torch.bool, device="meta")) is None


class HalfDense:
    """A band for every head; those of the first key-value head are flagged dense."""

    alpha = None
    dense_rows = 0

    def __init__(self) -> None:
        self.gate = Gate()
        self.routes = Routes()
        self.groups: list[int] = []

    def sampled(self, new: int) -> int:
        return 0

    def lines(self, query: Tensor, key: Tensor, scaling: float, rows_per_block: int) -> Lines:
        heads, keys = query.shape[0], key.shape[1]
        self.groups.append(key.shape[0])
        lines = fixed_lines(torch.zeros(heads, 1).long(), torch.arange(5).expand(heads, -1), keys)
        lines.dense[: heads - 2] = True
        return lines


def test_a_layer_runs_some_groups_dense_and_the_others_sparse() -> None:
    policy = HalfDense()
    query, key, value = (part[None] for part in tensors(4, 2, 60, 300, 16))
    turn = PrefillTurn(policy, LAYERS)
    first = turn.attend(5, query, key[:, :, :240], value[:, :, :240], 0.3)
    second = turn.attend(5, query, key, value, 0.3)
    assert policy.groups == [2, 1]
    for out, keys in ((first, 240), (second, 300)):
        exact = dense_attention(query, key[:, :, :keys], value[:, :, :keys], 0.3)
        assert relative_rms(out[:, :2], exact[:, :2]) < 1e-6
        assert relative_rms(out[:, 2:], exact[:, 2:]) > 1e-2
    # The sparse half computes the same in either way.
    alone = PrefillTurn(HalfDense()).attend(5, query, key, value, 0.3)
    assert relative_rms(second, alone) < 1e-6
    report = turn.report()
    assert report.density is not None and 0.5 < report.density < 0.7
    assert (report.lines_vertical, report.lines_slash, report.dense_layers) == (1.0, 5.0, 0)


@pytest.mark.parametrize("groups", [1, 3])
def test_a_layer_all_of_whose_groups_were_dense_chooses_nothing(groups: int) -> None:
    policy = HalfDense()
    query, key, value = (part[None] for part in tensors(2 * groups, groups, 60, 300, 16))
    policy.routes.asked(5, groups, 40, 240, LAYERS)
    policy.routes.found(5, list(range(groups)), 240, torch.ones(2 * groups).bool())
    turn = PrefillTurn(policy, LAYERS)
    out = turn.attend(5, query, key, value, 0.3)
    assert policy.groups == [] and relative_rms(out, dense_attention(query, key, value, 0.3)) == 0
    assert (turn.report().density, turn.report().dense_layers) == (1.0, 1)
