"""Choosing lines on the demo model's own attention, against brute force in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from attention_oracle import exact_weights
from block_oracle import flexprefill_blocks, xattention_blocks
from test_block_policies import pairs
from test_prefill import policy_of
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


@pytest.mark.parametrize("number", [0, 3])
def test_block_policies_choose_what_their_papers_do_on_real_queries(layers: list[Layer], number: int) -> None:
    """The last 150 rows of 710 tokens, so that no history ends with a block."""
    key, query, scaling = layers[number].key[:, :710], layers[number].query[:, 560:710], layers[number].scaling
    flex = policy_of("flexprefill", gamma=0.8, tau=0.2, min_budget=32, block=32).blocks(query, key, scaling)
    expected, _ = flexprefill_blocks(query, key, scaling, 32, 0.8, 0.2, 32)
    assert [pairs(flex, head) for head in range(len(query))] == expected
    cross = policy_of("xattention", threshold=0.8, stride=8, block=32).blocks(query, key, scaling)
    theirs = xattention_blocks(query, key, scaling, 32, 0.8, 8)
    assert [pairs(cross, head) for head in range(len(query))] == theirs
    causal = len(query) * int(flex.grid.causal(torch.ones_like(flex.chosen[0])).sum())
    assert all(0 < sum(map(len, found)) < 0.8 * causal for found in (expected, theirs))
