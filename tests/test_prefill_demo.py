"""Choosing lines on the demo model's own attention, against brute force in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from attention_oracle import exact_weights
from torch import Tensor

from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import load
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.profile import load_profile
from loopserve_kernels.choice import choose_lines
from loopserve_kernels.lines import line_mass
from loopserve_kernels.rows import sample_rows
from loopserve_kernels.rules import Rules

TOKENS = 1500


class Layer(NamedTuple):
    """What one layer's attention was given: query [H, n, D] and key [G, N, D] after RoPE."""

    query: Tensor
    key: Tensor
    scaling: float


class Recording(PrefillTurn):
    """Dense attention that keeps what it was given."""

    layers_seen: list[Layer]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        self.layers_seen.append(Layer(query[0].clone(), key[0].clone(), scaling))
        return super().attend(layer, query, key, value, scaling)


@pytest.fixture(scope="module")
def layers() -> list[Layer]:
    """Every layer of the demo model over a made-up dialogue, read as one chunk."""
    loaded = load(ModelOptions("demo", device="cpu", dtype="float32"))
    seen: list[Layer] = []

    class Recorder(Engine):
        def new_prefill(self) -> PrefillTurn:
            turn = Recording(self.policy)
            turn.layers_seen = seen
            return turn

    Recorder(loaded, load_profile("full")).feed(prompt_ids(loaded.tokenizer, TOKENS))
    return seen


@pytest.mark.parametrize("objective", ["lines", "optimal", "latency"])
def test_coverage_of_the_demo_model_is_what_brute_force_finds(layers: list[Layer], objective: str) -> None:
    assert len(layers) == 4
    rules = Rules(0.9, sinks=4, local=16, objective=objective)
    rows = sample_rows(TOKENS, 48)
    for query, key, scaling in layers:
        sampled = query[:, rows]
        mass = line_mass(sampled, rows, key, scaling)
        lines = choose_lines(mass, sampled, rows, key, scaling, rules)
        weights = exact_weights(sampled, rows, key, scaling)
        assert not lines.dense.any() and (lines.coverage >= 0.9).all()
        for head in range(query.shape[0]):
            cells = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
            cells[:, lines.vertical[head, : lines.vertical_count[head]].long()] = True
            offsets = rows[:, None] - torch.arange(TOKENS)
            cells |= torch.isin(offsets, lines.slash[head, : lines.slash_count[head]].long())
            covered = float((weights[head] * cells).sum() / len(rows))
            assert float(lines.coverage[head]) == pytest.approx(covered, abs=1e-5)


def test_greedy_takes_the_smallest_prefix_on_the_demo_model(layers: list[Layer]) -> None:
    """Without the lightest line it took, forced ones aside, a head falls below alpha."""
    rows = sample_rows(TOKENS, 48)
    for query, key, scaling in layers:
        sampled = query[:, rows]
        mass = line_mass(sampled, rows, key, scaling)
        lines = choose_lines(mass, sampled, rows, key, scaling, Rules(0.9, sinks=1, local=1, objective="lines"))
        weights = exact_weights(sampled, rows, key, scaling)
        offsets = rows[:, None] - torch.arange(TOKENS)
        for head in range(query.shape[0]):
            vertical = lines.vertical[head, : lines.vertical_count[head]].long()
            slash = lines.slash[head, : lines.slash_count[head]].long()
            lightest = [(float(mass.vertical[head, v]), "v", int(v)) for v in vertical if v > 0]
            lightest += [(float(mass.slash[head, s]), "s", int(s)) for s in slash if s > 0]
            _, kind, line = min(lightest)
            vertical = vertical[vertical != line] if kind == "v" else vertical
            slash = slash[slash != line] if kind == "s" else slash
            cells = torch.isin(offsets, slash)
            cells[:, vertical] = True
            assert float((weights[head] * cells).sum() / len(rows)) < 0.9 + 1e-6
