"""The turn's record and the sums over many."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopserve_cli.stats import SUMMARISED, TurnRecord, distribution, percentile, summarise, versions

FIELDS_OF_THE_RECORD = """
    conversation_id turn profile model device dtype quant seed repeat tokens_logical tokens_new tokens_cached
    tokens_output output_text finish_reason ttft_ms tokenize_ms select_ms prefill_ms compile_ms tpot_ms itl_ms e2e_ms
    decode_tokens_per_s prefill_tokens_per_s density coverage alpha lines_vertical lines_slash dense_layers keys_read
    keys_stored reselections reselect_ms kv_store_device_bytes kv_store_host_bytes working_set_bytes peak_device_bytes
    rss_bytes agreement kl_mean nll error versions
""".split()


def test_the_record_has_every_promised_field() -> None:
    assert set(FIELDS_OF_THE_RECORD) <= {field.name for field in fields(TurnRecord)}


def test_what_was_not_measured_is_null_and_not_zero() -> None:
    empty = TurnRecord().to_json()
    assert {name for name, value in empty.items() if value is not None} == {"itl_ms", "versions"}
    assert (empty["itl_ms"], empty["versions"]) == ([], {})


def test_a_record_survives_json_and_an_older_reader() -> None:
    record = TurnRecord(turn=2, ttft_ms=12.5, itl_ms=[1.0, 2.0], output_text="Ja.", versions={"torch": "2.13.0"})
    data = json.loads(json.dumps(record.to_json()))
    assert TurnRecord.from_json(data) == record
    assert TurnRecord.from_json(data | {"of_a_later_version": 1}) == record


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0], 0.99, 3.0), ([1.0, 2.0], 0.5, 1.5), ([0.0, 10.0, 20.0], 0.9, 18.0), ([0.0, 10.0, 20.0], 1.0, 20.0)],
)
def test_percentile_interpolates(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_percentile_lies_among_the_values(values: list[float], share: float) -> None:
    ordered = sorted(values)
    assert ordered[0] - 1e-6 <= percentile(ordered, share) <= ordered[-1] + 1e-6


def test_distribution_leaves_out_what_is_unknown() -> None:
    spread = distribution([4.0, None, 2.0])
    assert spread is not None
    assert (spread.n, spread.mean, spread.p50, spread.p90, spread.p99) == (2, 3.0, 3.0, None, None)
    assert distribution([None, None]) is None


@pytest.mark.parametrize(("n", "has_p90", "has_p99"), [(9, False, False), (10, True, False), (100, True, True)])
def test_percentiles_need_enough_values(n: int, has_p90: bool, has_p99: bool) -> None:
    spread = distribution(float(i) for i in range(n))
    assert spread is not None
    assert (spread.p90 is not None, spread.p99 is not None) == (has_p90, has_p99)


def test_summary_by_profile_without_the_failed_turns() -> None:
    full = [TurnRecord(profile="full", ttft_ms=float(t), itl_ms=[1.0, 3.0]) for t in (10, 20, 30)]
    failed = replace(full[0], ttft_ms=9e9, itl_ms=[9e9], error="out of memory")
    summary = summarise([full[0], TurnRecord(profile="other", ttft_ms=5.0), full[1], failed, full[2]])
    assert list(summary) == ["full", "other"]
    row = summary["full"]
    assert (row["turns"], row["failed"]) == (4, 1)
    assert (row["ttft_ms"]["n"], row["ttft_ms"]["mean"], row["ttft_ms"]["p50"]) == (3, 20.0, 20.0)
    assert (row["itl_ms"]["n"], row["itl_ms"]["mean"]) == (6, 2.0)
    assert row["tpot_ms"] is None
    assert set(SUMMARISED) <= set(row)
    json.dumps(summary)


def test_versions_name_the_packages_that_are_installed() -> None:
    found = versions()
    assert {"python", "loopserve", "torch", "transformers"} <= set(found)
    assert None not in found.values()
