"""The grammar of --fail-if, and what a gate says of records."""

from __future__ import annotations

import pytest

from loopserve_cli.errors import UsageError
from loopserve_cli.replay.gates import Gate, parse_gate
from loopserve_cli.stats import TurnRecord

ODD = "loopserve+keep.budget=512"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft_ms.p50>500", (None, "ttft_ms", "p50", ">", 500)),
        ("full.tpot_ms.mean >= 20", ("full", "tpot_ms", "mean", ">=", 20)),
        ("failed>0", (None, "failed", None, ">", 0)),
        (" full.failed != 1e0 ", ("full", "failed", None, "!=", 1)),
        ("itl_ms.p99<=-1.5", (None, "itl_ms", "p99", "<=", -1.5)),
        ("agreement<0.99", (None, "agreement", "mean", "<", 0.99)),
        (f"{ODD}.density.n==3", (ODD, "density", "n", "==", 3)),
        ("rss_bytes<inf", (None, "rss_bytes", "mean", "<", float("inf"))),
    ],
)
def test_gates_that_are_right(text, expected):
    gate = parse_gate(text, ["full", ODD])
    assert (gate.profile, gate.metric, gate.stat, gate.op, gate.number) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not"),
        ("ttft_ms", "is not"),
        ("ttft_ms.p50=500", "is not"),
        ("ttft_ms.p50>", "is not"),
        (">5", "is not"),
        ("ttft_ms.p50>5>6", "is not"),
        ("ttft_ms.p50>fast", "'fast' is not a number"),
        ("ttft_ms.p50>nan", "'nan' is not a number"),
        ("speed>5", "unknown measure 'speed'"),
        ("model>5", "unknown measure 'model'"),
        ("turn>5", "unknown measure 'turn'"),
        ("ttft_ms.p75>5", "unknown statistic 'p75'"),
        ("ttft_ms.>5", "unknown statistic ''"),
        ("failed.mean>0", "takes no statistic"),
        ("snapkv.ttft_ms.p50>5", "profile 'snapkv' is not replayed; replayed: full"),
    ],
)
def test_gates_that_are_wrong(text, message):
    with pytest.raises(UsageError) as caught:
        parse_gate(text, ["full", ODD])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def failures(text: str, *records: TurnRecord) -> list[str]:
    gate: Gate = parse_gate(text, ["A", "B"])
    return gate.failures(records, ["A", "B"])


def test_without_a_profile_each_one_is_tested():
    records = (TurnRecord(profile="A", ttft_ms=10.0), TurnRecord(profile="B", ttft_ms=30.0))
    assert failures("ttft_ms>20", *records) == ["gate ttft_ms>20 failed: B ttft_ms.mean is 30"]
    assert failures("A.ttft_ms>20", *records) == []
    assert len(failures("ttft_ms>5", *records)) == 2


def test_failed_turns_are_counted_but_not_averaged():
    records = [TurnRecord(profile=p, ttft_ms=10.0) for p in "AB"] + [TurnRecord(profile="A", error="x", ttft_ms=99.0)]
    assert failures("ttft_ms!=10", *records) == []
    assert failures("failed>0", *records) == ["gate failed>0 failed: A failed is 1"]
    assert failures("turns<2", *records) == ["gate turns<2 failed: B turns is 1"]


def test_what_is_unknown_fails():
    records = (TurnRecord(profile="A", ttft_ms=10.0), TurnRecord(profile="B", ttft_ms=30.0))
    assert failures("A.ttft_ms.p90>500", *records) == [
        "gate A.ttft_ms.p90>500 failed: A ttft_ms.p90 is n/a (p90 needs 10 values)"
    ]
    assert "n/a (not measured)" in failures("A.nll<0", *records)[0]


def test_gaps_are_pooled():
    records = [TurnRecord(profile=p, itl_ms=[1.0, 2.0, 9.0]) for p in "AB"]
    assert failures("itl_ms.p50>2", *records) == []
    assert failures("A.itl_ms.mean>3.9", *records) == ["gate A.itl_ms.mean>3.9 failed: A itl_ms.mean is 4"]
