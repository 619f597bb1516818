"""Densities against brute force on small matrices, and the recorded queries against transformers' own weights."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

from loopserve_cli.bench.quality import density
from loopserve_cli.bench.quality.__main__ import main
from loopserve_cli.bench.quality.density import Lines


def attention(rows: list[int], length: int, seed: int, sharpness: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random causal attention of `rows`: fp32 [m, length]."""
    generator = torch.Generator().manual_seed(seed)
    query, keys = (torch.randn(n, 8, generator=generator) for n in (len(rows), length))
    positions = torch.tensor(rows)
    return density.row_probabilities(query, keys, positions, sharpness / 8**0.5), positions


def cells(lines: Lines, length: int) -> set[tuple[int, int]]:
    """Every (row, key) on the lines."""
    verticals, slashes = set(lines.verticals.tolist()), set(lines.slashes.tolist())
    return {(i, k) for i in range(length) for k in range(i + 1) if k in verticals or i - k in slashes}


def test_rows_see_no_future_and_sum_to_one() -> None:
    probabilities, rows = attention([0, 5, 11], 12, seed=0)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3))
    for row, position in zip(probabilities, rows.tolist(), strict=True):
        assert (row[position + 1 :] == 0).all()


@pytest.mark.parametrize("alpha", [0.5, 0.9, 0.95, 1.0])
def test_entry_share_is_the_fewest_keys(alpha: float) -> None:
    probabilities, rows = attention([3, 6, 9], 10, seed=1)
    expected = []
    for row, position in zip(probabilities.tolist(), rows.tolist(), strict=True):
        visible = row[: position + 1]
        fewest = next(
            size
            for size in range(1, len(visible) + 1)
            if size == len(visible) or any(sum(keys) >= alpha for keys in itertools.combinations(visible, size))
        )
        expected.append(fewest / len(visible))
    assert density.entry_share(probabilities, rows, alpha) == pytest.approx(sum(expected) / 3)


@pytest.mark.parametrize(("verticals", "slashes"), [([], [0]), ([0, 3], [0, 1, 7]), ([5, 19], [19, 2]), ([4], [])])
def test_line_share_counts_every_cell_once(verticals: list[int], slashes: list[int]) -> None:
    lines = Lines(torch.tensor(sorted(verticals)).long(), torch.tensor(sorted(slashes)).long(), 1.0, dense=False)
    assert density.line_share(lines, 20) == pytest.approx(len(cells(lines, 20)) / 210)


def test_a_dense_head_costs_everything() -> None:
    assert density.line_share(Lines(torch.tensor([0]), torch.tensor([0]), 0.5, dense=True), 20) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_selected_lines_are_the_shortest_greedy_prefix_that_reaches_alpha(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(density, "SINKS", 1)
    monkeypatch.setattr(density, "LOCAL", 1)
    length, alpha = 24, 0.8
    probabilities, rows = attention([10, 11, 17, 23], length, seed)
    mass: dict[tuple[str, int], float] = {}
    for row, position in zip(probabilities.tolist(), rows.tolist(), strict=True):
        for key in range(position + 1):
            mass["v", key] = mass.get(("v", key), 0.0) + row[key]
            mass["s", position - key] = mass.get(("s", position - key), 0.0) + row[key]
    order = [("v", 0), ("s", 0)] + sorted((m for m in mass if m[1] != 0), key=lambda m: -mass[m])
    order += [m for m in mass if m[1] == 0 and m not in order]

    def coverage(taken: list[tuple[str, int]]) -> float:
        total = 0.0
        for row, position in zip(probabilities.tolist(), rows.tolist(), strict=True):
            total += sum(row[k] for k in range(position + 1) if ("v", k) in taken or ("s", position - k) in taken)
        return total / len(rows)

    taken = next(order[:n] for n in range(2, len(order) + 1) if coverage(order[:n]) >= alpha)
    lines = density.select_lines(probabilities, rows, alpha)
    assert lines.verticals.tolist() == sorted(k for kind, k in taken if kind == "v")
    assert lines.slashes.tolist() == sorted(d for kind, d in taken if kind == "s")
    assert lines.coverage == pytest.approx(coverage(taken), abs=1e-5)
    assert density.covered_mass(probabilities, rows, lines) == pytest.approx(coverage(taken), abs=1e-5)
    assert not lines.dense


@pytest.mark.parametrize("seed", range(5))
def test_cheapest_lines_reach_alpha_and_cost_no_more_than_the_greedy_ones(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(density, "SINKS", 1)
    monkeypatch.setattr(density, "LOCAL", 1)
    probabilities, rows = attention([10, 11, 17, 23], 24, seed)
    cheapest = density.cheapest_lines(probabilities, rows, 0.8)
    assert density.covered_mass(probabilities, rows, cheapest) == pytest.approx(cheapest.coverage, abs=1e-5)
    assert cheapest.coverage >= 0.8
    # With every number of slashes tried, dropping the last vertical must fall short of alpha.
    without_last = [
        Lines(cheapest.verticals[cheapest.verticals != key], cheapest.slashes, 0.0, dense=False)
        for key in cheapest.verticals.tolist()
        if key != 0
    ]
    assert all(density.covered_mass(probabilities, rows, lines) < 0.8 for lines in without_last)
    greedy = density.select_lines(probabilities, rows, 0.8)
    assert density.line_share(cheapest, 24) <= density.line_share(greedy, 24)


def test_too_few_candidates_make_a_head_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "CANDIDATES", 14)
    probabilities, rows = attention(list(range(100, 200, 5)), 200, seed=3, sharpness=0.1)
    assert density.select_lines(probabilities, rows, 0.95).dense


def test_sampled_rows_lie_in_the_last_half_and_do_not_meet() -> None:
    choosing, checking = density.sample_rows(1000, torch.Generator().manual_seed(0))
    again, _ = density.sample_rows(1000, torch.Generator().manual_seed(0))
    both = choosing.tolist() + checking.tolist()
    assert choosing.tolist() == again.tolist() == sorted(choosing.tolist())
    assert len(set(both)) == len(both) == 128
    assert min(both) >= 500
    assert max(both) < 1000
    with pytest.raises(ValueError, match="at least 256 tokens"):
        density.sample_rows(250, torch.Generator())


def test_the_demo_models_density_is_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "density.json"
    assert main(["density", "--lengths", "512", "--dialogues", "1", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    written = json.loads(file.read_text())
    assert (written["model"], written["tokens_trained"], written["alpha"], written["seed"]) == (
        "demo",
        None,
        0.95,
        7001,
    )
    [found] = written["density"]
    assert found["length"] == 512 and [(h["layer"], h["head"]) for h in found["heads"]] == [
        (layer, head) for layer in range(4) for head in range(4)
    ]
    # The seed's dialogue has these figures: entries are fewest, lines by mass cost more than the cheapest.
    shares = [found[name] for name in ("entries", "cheapest", "lines")]
    assert shares == [pytest.approx(share, abs=5e-4) for share in (0.0137, 0.0594, 0.0946)]
    assert "density at alpha 0.95" in out and f"{found['lines']:.1%}" in out and "density of 1 of 1 dialogues" in err
