"""How often an interval holds the true ratio, under the noise of measured turns; and Student's t beneath it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from loopserve_cli.measure.interval import Place, interval
from loopserve_cli.measure.ratio import paired, ratio_of
from loopserve_cli.measure.slow_waves import advised, waves
from loopserve_cli.measure.student import quantile, widening

MEASURED = Path(__file__).parent.parent / "docs" / "measurements"
RUNS = 200
TRUE = 1.3
# Dialogues, turns of each, repeats.
Design = tuple[int, int, int]
Noise = Callable[[np.random.Generator, Design], np.ndarray]


def timings(name: str) -> list[dict]:
    return json.loads((MEASURED / name).read_text())["records"]


def rounds_apart() -> Noise:
    """TTFT over its median of several rounds, each turn's drawn by itself."""
    factors = []
    for tokens in ("1024", "2048", "4096", "8192", "16k", "32k"):
        rounds = defaultdict(list)
        for timing in timings(f"prefill-{tokens}-cpu.json"):
            rounds[timing["variant"], timing["task"], timing["turn"]].append(timing["ttft_ms"])
        factors += [time / np.median(times) for times in rounds.values() for time in times]
    logs = np.log(factors)
    return lambda generator, design: generator.choice(logs, design)


def one_after_another(measure: str) -> Noise:
    """TTFT or TPOT over its median of 41 turns, as it went on over 200 turns of a busy machine."""
    stretches = []
    for variant in ("full", "loopserve"):
        of_variant = [t for t in timings("dialogue-200-turns-cpu.json") if t["variant"] == variant]
        talk = sorted((t for t in of_variant if t["task"] == "dialogue"), key=lambda t: t["turn"])
        logs = np.log([t[measure] for t in talk])
        around = np.lib.stride_tricks.sliding_window_view(np.pad(logs, 20, mode="reflect"), 41)
        stretches.append(logs - np.median(around, axis=1))
    noise = np.stack(stretches)

    def drawn(generator: np.random.Generator, design: Design) -> np.ndarray:
        dialogues, turns, repeats = design
        starts = generator.integers(noise.shape[1], size=(dialogues, 1, repeats))
        places = (starts + np.arange(turns)[None, :, None]) % noise.shape[1]
        return noise[generator.integers(len(noise), size=(dialogues, 1, repeats)), places]

    return drawn


def side_by_side(measure: str) -> Noise:
    """The ratio of two profiles' times over its median of 29 repeats, as it went on while eight jobs had two cores."""
    times = {(t["variant"], t["repeat"], t["turn"]): t[measure] for t in timings("demo-29-repeats-busy-cpu.json")}
    repeats, turns = max(times)[1:]
    logs = np.log(
        [[times["full", r, t] / times["loopserve", r, t] for t in range(1, turns + 1)] for r in range(1, repeats + 1)]
    )
    noise = logs - np.median(logs, axis=0)
    noise -= noise.mean()

    def drawn(generator: np.random.Generator, design: Design) -> np.ndarray:
        dialogues, count, repeated = design
        starts = generator.integers(turns, size=(dialogues, 1, repeated))
        places = (starts + np.arange(count)[None, :, None]) % turns
        return noise[generator.integers(repeats, size=(dialogues, 1, repeated)), places]

    return drawn


def held(noise: Noise, design: Design, by_turn: float = 0.0, of_ratios: bool = False) -> float:
    """The share of simulated runs whose interval holds the true ratio; turns differ by `by_turn` in its logarithm.

    The noise is of times, each of the two having its own, or `of_ratios` of both together.
    """
    generator = np.random.default_rng(13)
    inside = 0
    for _ in range(RUNS):
        turns = by_turn * generator.standard_normal((*design[:2], 1))
        logs = math.log(TRUE) + turns + noise(generator, design)
        logs -= 0.0 if of_ratios else noise(generator, design)
        bounds = interval({Place(f"d{d}", r, t): float(log) for (d, t, r), log in np.ndenumerate(logs)})
        assert bounds is not None
        inside += bounds[0] <= math.log(TRUE) <= bounds[1]
    return inside / RUNS


@pytest.mark.parametrize(
    "design", [(1, 2, 3), (1, 4, 3), (1, 10, 1), (1, 10, 3), (1, 35, 1), (1, 35, 3), (3, 12, 1), (10, 8, 2)]
)
def test_the_interval_holds_the_true_ratio(design: Design) -> None:
    assert 0.9 <= held(rounds_apart(), design) <= 0.99


@pytest.mark.parametrize("measure", ["ttft_ms", "tpot_ms"])
@pytest.mark.parametrize("design", [(1, 10, 3), (1, 35, 1), (1, 35, 3), (3, 12, 1), (2, 10, 3), (10, 8, 2)])
def test_it_does_when_slow_minutes_last_for_turns(design: Design, measure: str) -> None:
    assert 0.9 <= held(one_after_another(measure), design) <= 0.99


@pytest.mark.parametrize("design", [(1, 10, 3), (1, 35, 1), (3, 12, 1), (10, 8, 2)])
def test_it_does_when_turns_differ(design: Design) -> None:
    assert 0.9 <= held(rounds_apart(), design, by_turn=0.1) <= 0.99


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("turns", [4, 8, 10, 16])
def test_few_turns_hold_it_as_often(turns: int, repeats: int) -> None:
    assert 0.9 <= held(rounds_apart(), (1, turns, repeats)) <= 0.99
    # Noise that was taken about a median of 41 turns has no slower part: where it is looked for, more is held.
    for measure in ("ttft_ms", "tpot_ms"):
        assert held(one_after_another(measure), (1, turns, repeats)) >= 0.9


@pytest.mark.parametrize(("turns", "repeats", "least"), [(4, 1, 0.9), (10, 1, 0.85), (4, 3, 0.9), (10, 3, 0.9)])
@pytest.mark.parametrize("measure", ["ttft_ms", "tpot_ms"])
def test_few_turns_beside_eight_other_jobs(turns: int, repeats: int, least: float, measure: str) -> None:
    assert least <= held(side_by_side(measure), (1, turns, repeats), of_ratios=True) <= 0.99


def test_repeats_show_what_one_run_cannot_know() -> None:
    """Where each repeat is as steady as can be, and the next another."""
    once = {Place("d", 1, turn): 1.0 + 0.001 * (turn % 2) for turn in range(8)}
    thrice = {Place("d", r, t): value + 0.2 * r for r in range(3) for (_, _, t), value in once.items()}
    narrow, wide = interval(once), interval(thrice)
    assert narrow is not None and narrow[1] - narrow[0] < 0.01
    assert wide is not None and wide[1] - wide[0] > 0.4
    assert wide[0] < 1.2 < wide[1]


def test_a_trend_over_turns_is_no_noise_once_repeats_agree_on_it() -> None:
    trend = {Place("d", r, t): 0.1 * t for r in range(3) for t in range(8)}
    steady, single = interval(trend), interval({p: v for p, v in trend.items() if not p.repeat})
    assert steady is not None and single is not None
    assert steady[1] - steady[0] < (single[1] - single[0]) / 2


def test_waves_are_orthonormal_and_the_first_is_the_level() -> None:
    values = [1.0, 4.0, 2.0, 8.0, 5.0]
    found = waves(values, 9)
    assert len(found) == 5 and found[0] == pytest.approx(20 / math.sqrt(5))
    assert sum(wave**2 for wave in found) == pytest.approx(sum(value**2 for value in values))
    assert [round(wave, 9) for wave in waves([3.0] * 4, 3)[1:]] == [0.0, 0.0]
    assert [advised(turns) for turns in (2, 4, 10, 16, 23)] == [1, 1, 2, 3, 3]


def test_dialogues_of_one_turn_each_are_drawn() -> None:
    few = {Place(name, 1, 1): float(value) for value, name in enumerate("abc")}
    bounds = interval(few)
    assert bounds is not None and bounds[0] < 1 < bounds[1]
    repeated = interval(few | {Place(name, 2, 1): value + 0.1 for (name, _, _), value in few.items()})
    assert repeated is not None and repeated[1] - repeated[0] < bounds[1] - bounds[0]


def test_what_no_clock_measured_is_drawn_by_turns_alone() -> None:
    rising = {Place("d", 1, turn): 0.1 * turn for turn in range(1, 9)}
    timed, counted = interval(rising), interval(rising, timed=False)
    assert timed is not None and counted is not None
    assert timed[0] < 0 < counted[0]


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_students_t_is_the_tables(degrees: int, expected: float) -> None:
    assert quantile(degrees, 0.975) == pytest.approx(expected, rel=0.002)
    assert quantile(degrees, 0.025) == pytest.approx(-expected, rel=0.002)


def test_few_units_widen_and_many_do_not() -> None:
    assert [round(widening(drawn), 2) for drawn in (4, 10, 10_000)] == [1.87, 1.22, 1.0]


def places(values: list[float]) -> dict[Place, float]:
    return {Place("d", 1, turn): value for turn, value in enumerate(values)}


def test_an_interval_needs_two_values_and_is_the_same_each_time() -> None:
    assert interval({}) is None and interval(places([1.0])) is None
    assert interval(places([2.0] * 6)) == (2.0, 2.0)
    values = places([1.0, 2.0, 4.0, 3.0, 1.5])
    bounds = interval(values)
    assert bounds == interval(dict(reversed(values.items())))
    assert bounds is not None and bounds[0] < 2.3 < bounds[1]


def test_more_turns_and_steadier_ones_say_more() -> None:
    def width(turns: int, spread: float) -> float:
        bounds = interval(places(list(np.random.default_rng(1).normal(0, spread, turns))))
        assert bounds is not None
        return bounds[1] - bounds[0]

    assert width(400, 0.1) < width(40, 0.1) / 2
    assert width(40, 0.1) < width(40, 0.3)


def test_ratios_are_of_the_same_place_and_their_mean_is_geometric() -> None:
    assert paired({"a": 6.0, "b": 5.0, "c": 1.0}, {"a": 3.0, "b": 0.0, "d": 1.0}) == {"a": 2.0}
    found = ratio_of(places([1.0, 4.0]))
    assert found is not None and found.ratio == pytest.approx(2.0) and found.pairs == 2
    assert found.shows_nothing
    one = ratio_of(places([3.0]))
    assert one is not None and (one.ratio, one.low, one.high) == (pytest.approx(3.0), None, None)
    assert ratio_of({}) is None
