"""What is drawn over the turns: five measures of every profile, for each dialogue and for all of them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopserve_cli.measure.figures import MIB, fine, number, whole
from loopserve_cli.measure.report.middle import Middle, of_dialogues, of_repeats
from loopserve_cli.measure.verdict import kv_bytes_of
from loopserve_cli.stats import TurnRecord

DIGITS = 6


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: its heading, what its axis says with the unit, a value of a turn in that unit, and values as text."""

    key: str
    title: str
    axis: str
    of: Callable[[TurnRecord], float | None]
    show: Callable[[float | None], str]
    says: str
    logarithmic: bool = True


def _kv_mebibytes(record: TurnRecord) -> float | None:
    held = kv_bytes_of(record)
    return None if held is None else held / MIB


MEASURES: tuple[Measure, ...] = (
    Measure("ttft", "Time to first token", "TTFT (ms)", lambda r: r.ttft_ms, number, "from submission to first token"),
    Measure("tpot", "Time per output token", "TPOT (ms)", lambda r: r.tpot_ms, number, "of the tokens after the first"),
    Measure("kv", "KV cache", "KV cache (MiB)", _kv_mebibytes, number, "allocated, working set included"),
    Measure("keys", "Keys read", "keys read (per head)", lambda r: r.keys_read, whole, "by the turn's last step"),
    Measure("kl", "KL to full attention", "KL (nats)", lambda r: r.kl_mean, fine, "on the recorded answers", False),
)

# By measure, profile and turn.
Found = dict[str, dict[str, dict[int, Middle]]]
Reduce = Callable[[Sequence[float]], Middle]


def of_dialogue(records: Iterable[TurnRecord], profiles: Sequence[str]) -> tuple[dict[str, Any], Found]:
    """One dialogue's series as JSON types, medians over its repeats, and the same as figures; failed turns left out."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {m.key: _empty(profiles) for m in MEASURES}
    tokens: dict[int, set[int]] = defaultdict(set)
    for record in records:
        if record.error is not None:
            continue
        turn = record.turn or 0
        tokens[turn].update([] if record.tokens_logical is None else [record.tokens_logical])
        for measure in MEASURES:
            if (value := measure.of(record)) is not None:
                values[measure.key][record.profile or "n/a"][turn].append(value)
    found = _reduced(values, of_repeats)
    return series(found, {turn: _range(counts) for turn, counts in tokens.items()}, profiles), found


def of_all(dialogues: Iterable[Found], profiles: Sequence[str]) -> dict[str, Any]:
    """Medians over the dialogues, of those that have the turn, and their middle half."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {m.key: _empty(profiles) for m in MEASURES}
    for found in dialogues:
        for key, of_profiles in found.items():
            for name, points in of_profiles.items():
                for turn, middle in points.items():
                    values[key][name][turn].append(middle.median)
    merged = _reduced(values, of_dialogues)
    turns = {turn for of_profiles in merged.values() for points in of_profiles.values() for turn in points}
    return series(merged, dict.fromkeys(turns, "n/a"), profiles)


def series(found: Found, tokens: Mapping[int, str], profiles: Sequence[str]) -> dict[str, Any]:
    """Turns and the dialogue's tokens at them; of every measure a row for each profile, None where it has none."""
    turns = sorted(tokens)
    rows = {m.key: [_row(found[m.key][name], turns, m.show) for name in profiles] for m in MEASURES}
    return {"turns": turns, "tokens": [tokens[turn] for turn in turns], "measures": rows}


def known(found: Iterable[Found]) -> set[str]:
    """The measures that some turn has."""
    return {key for one in found for key, of_profiles in one.items() if any(of_profiles.values())}


def _empty(profiles: Sequence[str]) -> dict[str, dict[int, list[float]]]:
    return {name: defaultdict(list) for name in profiles}


def _reduced(values: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], reduce: Reduce) -> Found:
    return {
        key: {name: {turn: reduce(some) for turn, some in turns.items()} for name, turns in of_profiles.items()}
        for key, of_profiles in values.items()
    }


def _row(points: Mapping[int, Middle], turns: Sequence[int], show: Callable[[float | None], str]) -> Any:
    if not points:
        return None
    middles = [points.get(turn) for turn in turns]
    return {
        "y": [_short(one.median) if one else None for one in middles],
        "low": [_short(one.low) if one else None for one in middles],
        "high": [_short(one.high) if one else None for one in middles],
        "text": [text_of(one, show) for one in middles],
    }


def text_of(middle: Middle | None, show: Callable[[float | None], str]) -> str:
    """As the tables show it: the median, and its interval where there are several values."""
    if middle is None or middle.count == 1:
        return show(middle.median if middle else None)
    return f"{show(middle.median)} ({show(middle.low)} to {show(middle.high)})"


def _range(counts: Iterable[int]) -> str:
    """One number of tokens, or from the fewest to the most where profiles differ."""
    ordered = sorted(counts)
    if not ordered:
        return whole(None)
    ends = dict.fromkeys((whole(ordered[0]), whole(ordered[-1])))
    return " to ".join(ends)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
