"""The grammar of --fail-if, and what a gate says of records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.expression import Binary, Measure, Number
from loopserve_cli.measure.gates import Gate, parse_gate
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
    profile, metric, stat, op, number = expected
    gate = parse_gate(text, ["full", ODD])
    assert gate.condition == Binary(op, Measure(profile, metric, stat), Number(number))


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


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("B.ttft_ms.p50>1.05*A.ttft_ms.p50", "B.ttft_ms.p50 > 1.05 * A.ttft_ms.p50"),
        ("A.turns - 1 - 1 > 2/2/1", "A.turns - 1 - 1 > 2 / 2 / 1"),
        ("A.turns - (1 - 1) > (1+2)*3", "A.turns - (1 - 1) > (1 + 2) * 3"),
        ("failed>0 or turns<2 and nll>=-1", "failed > 0 or turns < 2 and nll.mean >= -1"),
        ("(failed>0 or turns<2) and nll>1", "(failed > 0 or turns < 2) and nll.mean > 1"),
        ("-A.nll > 1", "0 - A.nll.mean > 1"),
        ("first_token < 1.2", "first_token.ratio < 1.2"),
    ],
)
def test_operators_bind_as_in_arithmetic(text, read):
    gate = parse_gate(text, ["A", "B"])
    assert str(gate.condition) == read
    assert parse_gate(read, ["A", "B"]).condition == gate.condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "loopserv.ttft_ms>5",
            "profile 'loopserv' is not replayed; replayed: full, loopserve; did you mean loopserve?",
        ),
        ("full.tpot_m.p50>5", "unknown measure 'tpot_m'; did you mean tpot_ms?"),
        ("full.ttft_ms.p5>5", "unknown statistic 'p5'; did you mean p50?"),
        ("loopserve.first_token.p50>5", "unknown statistic 'p50'; known: ratio, low, high, pairs"),
        ("5>ttft", "'ttft' is not a number; did you mean ttft_ms?"),
        ("full.ttft_ms", "is not [PROFILE.]METRIC[.STAT] OP NUMBER"),
        ("(turns>1)*2", "* stands between numbers, not turns > 1"),
        ("(turns>1) + 1 > 2", "+ stands between numbers, not turns > 1"),
        ("turns and failed > 1", "and stands between conditions, not turns"),
        ("5.5.5 > 1", "'5.5.5 > 1' begins neither a number nor a measure"),
        ("turns>1>0", "stands between numbers"),
        ("(turns>1", "a bracket is not closed"),
        ("turns>1)", "')' is left over"),
        ("turns>1 or", "it ends"),
        ("(" * 30 + "1" + ")" * 30 + ">0", "deeper than 20"),
        ("-" * 30 + "1>0", "deeper than 20"),
        ("1" + "+1" * 300 + ">0", "longer than 500"),
        ("__import__('os').abort()>1", "unknown measure '__import__'"),
        ("turns**2>1", "begins neither a number nor a measure"),
    ],
)
def test_wrong_conditions_are_one_line_with_the_nearest_name(text, message):
    with pytest.raises(UsageError) as caught:
        parse_gate(text, ["full", "loopserve"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{ODD[1:]}.ttft_ms > 5", f"profile {ODD[1:]!r} is not replayed; replayed: full, {ODD}; did you mean {ODD}?"),
        ("1 > 2 * loopserv+keep.budget=512.density.n", "profile 'loopserv+keep.budget=512' is not replayed"),
        ("a-shap.first_token.low < 1", "profile 'a-shap' is not replayed; replayed: full"),
        ("mine+prefill.alpha=0.9.kl_mean > 1", "profile 'mine+prefill.alpha=0.9' is not replayed"),
        (f"{ODD}.tftt_ms > 5", "unknown measure 'tftt_ms'; did you mean ttft_ms?"),
    ],
)
def test_a_mistyped_profile_is_named_as_one_whatever_signs_it_holds(text, message):
    with pytest.raises(UsageError) as caught:
        parse_gate(text, ["full", ODD])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_one_profile_beside_another_shows_both_numbers():
    records = (TurnRecord(profile="A", ttft_ms=100.0), TurnRecord(profile="B", ttft_ms=120.0))
    text = "B.ttft_ms.p50 > 1.05 * A.ttft_ms.p50"
    assert failures(text, *records) == [
        f"gate {text} failed: B ttft_ms.p50 is 120, A ttft_ms.p50 is 100, 1.05 * A.ttft_ms.p50 is 105"
    ]
    assert failures("B.ttft_ms.p50 > 1.25 * A.ttft_ms.p50", *records) == []
    assert len(failures("ttft_ms > 110 or ttft_ms < 0", *records)) == 1
    assert failures("ttft_ms > 110 and failed > 0", *records) == []
    assert failures("A.ttft_ms / A.failed > 1", *records) == [
        "gate A.ttft_ms / A.failed > 1 failed: it divides by zero"
    ]
    assert "A kl_mean.mean is n/a" in failures("B.ttft_ms > 1000 or A.kl_mean > 1", *records)[0]


def test_what_is_no_number_fails():
    record = TurnRecord(profile="A", ttft_ms=100.0)
    for text in ("A.ttft_ms + inf - inf > 1e9", "1 < 0 * inf * A.ttft_ms"):
        assert failures(text, record) == [f"gate {text} failed: a side of it is no number"]
    assert failures("A.ttft_ms > inf", record) == []
    assert failures("A.failed > 0 and A.ttft_ms / A.failed > 1", record) == []


def test_ratios_and_their_bounds_are_measures_of_all_but_whom_they_are_against():
    records = [
        TurnRecord(profile=p, conversation_id="d", turn=turn, repeat=1, ttft_ms=time * turn, output_text=said)
        for p, time, said in (("A", 20.0, "yes"), ("B", 10.0, "no"))
        for turn in range(1, 9)
    ]
    assert failures("first_token < 2.5", *records) == ["gate first_token < 2.5 failed: B first_token.ratio is 2"]
    assert failures("B.first_token.low < 1.99 or first_token.high > 2.01 or first_token.pairs != 8", *records) == []
    assert failures("same_share < 0.9", *records) == ["gate same_share < 0.9 failed: B same_share is 0"]
    assert "A first_token.ratio is n/a" in failures("A.first_token < 1", *records)[0]
    told = failures("agreement < 0.9", *(replace(r, agreement=0.5) if r.profile == "B" else r for r in records))
    assert told == ["gate agreement < 0.9 failed: B agreement.mean is 0.5"]
