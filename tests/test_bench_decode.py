"""The decode benchmark: its order, its bound, its arithmetic, and real runs on the demo model and on a random one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from random_shapes import LLAMA, QWEN, know_tiny_shapes
from rich.console import Console

from loopserve_cli import app
from loopserve_cli.bench.decode import DecodeOptions, decoding_profiles, run_decode
from loopserve_cli.bench.decode.bound import Bound, copy_bandwidth, kv_bytes_per_token, weights_read
from loopserve_cli.bench.decode.options import QUESTION
from loopserve_cli.bench.decode.rounds import Answer, time_answers
from loopserve_cli.bench.decode.summary import summarise
from loopserve_cli.bench.decode.tables import length_table
from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import LoadedModel, load
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile
from loopserve_cli.shapes import Shape
from loopserve_cli.stats import TurnRecord

CHOOSING = "loopserve+keep.budget=100+keep.interval=4"


def random_model(monkeypatch: pytest.MonkeyPatch, shape: Shape) -> LoadedModel:
    know_tiny_shapes(monkeypatch)
    return load(ModelOptions(f"random:{shape.model}", device="cpu"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"new_tokens": 1}, "--new-tokens is 1"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"tokens": (8192, 193)}, "--tokens 193 is too few .* give at least 194"),
    ],
)
def test_options_that_cannot_be_timed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DecodeOptions(**wrong)


def test_the_flags_reach_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DecodeOptions] = []
    monkeypatch.setattr("loopserve_cli.bench.decode.run_decode", lambda options: asked.append(options) or 0)
    assert app.main(["bench", "decode"]) == 0
    assert app.main("bench decode -m random:Llama-3.1-8B --tokens 8k,32k --profile full --rounds 3 --json".split()) == 0
    assert asked[0] == DecodeOptions()
    assert asked[1] == DecodeOptions(ModelOptions("random:Llama-3.1-8B"), ("full",), (8192, 32768), rounds=3, json=True)


def test_profiles_read_densely_and_those_that_cannot_answer_twice_are_refused() -> None:
    [full, sparse] = decoding_profiles(["full", "loopserve"])
    assert (sparse.name, sparse.prefill, sparse.keep) == ("loopserve", full.prefill, load_profile("loopserve").keep)
    with pytest.raises(UsageError, match="evicts, so it cannot answer the same again"):
        decoding_profiles(["loopserve+retain.tier=evict"])


@pytest.mark.parametrize("shape", [LLAMA, QWEN], ids=["own output layer", "shared"])
def test_what_a_step_reads(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = random_model(monkeypatch, shape)
    # Every weight but an embedding of which one row is read; norms and biases are small.
    expected = 4 * (shape.linear_parameters + shape.vocabulary * shape.width)
    assert expected < weights_read(loaded) < 1.01 * expected
    assert kv_bytes_per_token(loaded) == 2 * shape.kv_bytes_per_token  # float32
    engine = Engine(loaded, load_profile("full"))
    engine.feed(list(range(3, 259)))
    assert engine.kv_bytes == 256 * kv_bytes_per_token(loaded)


def test_the_bound_is_bytes_over_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bound(1000, 10, 4000.0).step_ms(100) == pytest.approx(500)
    copied: list[torch.Tensor] = []
    times = iter([9.0, 4.0, 5.0, 8.0, 7.0, 6.0, 4.5])

    def ms(clock: Clock, work: Callable[[], torch.Tensor]) -> float:
        copied.append(work())
        return next(times)

    monkeypatch.setattr(Clock, "ms", ms)
    monkeypatch.setattr("loopserve_cli.bench.decode.bound.COPIED", {"cpu": 2**20})
    assert copy_bandwidth(torch.device("cpu")) == 2 * 2**20 / 4e-3
    assert len(copied) == 7 and copied[0].nbytes == 2**20 and bool((copied[0] == 1).all())


def test_the_order_alternates_and_every_answer_begins_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = replace(random_model(monkeypatch, LLAMA), stop_ids=frozenset())
    engines = [Engine(loaded, profile) for profile in decoding_profiles(["full", CHOOSING])]
    ids = [3 + i % 1000 for i in range(400)]
    said: list[str] = []
    answers = time_answers(engines, ids, [400, 300], new_tokens=13, rounds=2, say=said.append)
    full, ours = (engine.profile.name for engine in engines)
    order = [(a.tokens, a.record.repeat, a.record.profile) for a in answers]
    assert order == [(n, *rest) for n in (300, 400) for rest in [(1, ours), (1, full), (2, full), (2, ours)]]
    assert sum("filling" in line for line in said) == 4 and sum("warm-up" in line for line in said) == 2
    for answer in answers:
        record = answer.record
        assert (record.tokens_cached, record.tokens_new) == (answer.tokens - 13 - QUESTION, QUESTION)
        assert len(record.itl_ms) == 12 and record.keys_stored == answer.tokens - 1
    assert [a.open_steps for a in answers] == [4, 0, 0, 4] * 2
    # Chosen before steps 5 and 9; then 100 keys, and what the interval added.
    chosen = [(a.record.reselections, a.record.keys_read) for a in answers if a.record.profile == ours]
    assert chosen == [(2, 104)] * 4
    texts = {(a.tokens, a.record.profile): set() for a in answers}
    for a in answers:
        texts[a.tokens, a.record.profile].add(a.record.output_text)
    assert all(len(found) == 1 for found in texts.values())


def made(profile: str, number: int, gaps: list[float], **facts: Any) -> Answer:
    known = {"keys_read": 100, "keys_stored": 100, "kv_store_device_bytes": 0, "working_set_bytes": 0}
    return Answer(100, 1, TurnRecord(profile=profile, repeat=number, itl_ms=gaps, tpot_ms=5.0, **known | facts))


def test_the_summary_divides_round_by_round_and_leaves_out_the_open_steps() -> None:
    small = {"keys_read": 25, "kv_store_device_bytes": 60, "working_set_bytes": 20, "peak_device_bytes": 1}
    answers = [
        made("full", 1, [9.0, 4.0, 6.0]),
        made("ours", 1, [9.0, 1.0, 3.0], reselect_ms=1.0, **small),
        made("full", 2, [9.0, 8.0, 8.0]),
        made("ours", 2, [9.0, 8.0, 8.0], reselect_ms=4.0, **small),
    ]
    [entry] = summarise(answers, ["full", "ours"], Bound(100, 4, 250_000.0))
    full, ours = entry["profiles"]["full"], entry["profiles"]["ours"]
    assert entry["tokens"] == 100 and full["step_ms"] == {"median": 6.5, "low": 5.0, "high": 8.0}
    assert (full["bound_ms"], ours["bound_ms"]) == (2.0, 0.8)
    assert full["bound_share"] == pytest.approx({"median": 0.325, "low": 0.25, "high": 0.4})
    assert (full["gain"], full["most_gain"], full["choosing_share"]) == (None, None, None)
    assert ours["gain"] == {"median": 1.75, "low": 1.0, "high": 2.5} and ours["most_gain"] == 2.5
    assert full["gain_interval"] is None and ours["gain_interval"]["pairs"] == 2
    assert ours["gain_interval"]["ratio"] == pytest.approx(2.5**0.5)
    assert ours["gain_interval"]["low"] < 1 < ours["gain_interval"]["high"]
    [_, _, _, gains, *_] = length_table(entry["profiles"], Console(width=160)).columns
    [baseline, found] = gains.cells
    assert baseline == "" and found.startswith("~1.75 (")
    narrow = [column.header for column in length_table(entry["profiles"], Console(width=50)).columns]
    assert narrow == ["", "step\nms", "gain"]
    assert ours["choosing_share"] == {"median": 0.25, "low": 0.25, "high": 0.25}
    assert (full["kv_device_bytes"], full["kv_device_share"]) == (None, None)
    assert (ours["kv_full_bytes"], ours["kv_device_bytes"], ours["kv_device_share"]) == (400, 80, 0.2)


def decode(capsys: pytest.CaptureFixture[str], model: str, tokens: tuple[int, ...], *profiles: str) -> dict[str, Any]:
    asked = DecodeOptions(ModelOptions(model, device="cpu"), profiles, tokens, new_tokens=13, rounds=2, json=True)
    assert run_decode(asked) == 0
    return json.loads(capsys.readouterr().out)


def test_a_random_model_is_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    know_tiny_shapes(monkeypatch)
    host = CHOOSING + "+retain.tier=host"
    whole = decode(capsys, f"random:{LLAMA.model}", (200, 300), "full", CHOOSING, host)
    assert list(whole) == ["command", "environment", "bound", "records", "summary"]
    assert (whole["command"]["name"], whole["environment"]["dtype"]) == ("bench decode", "float32")
    assert len(whole["records"]) == 2 * 2 * 3
    assert [entry["tokens"] for entry in whole["summary"]] == [200, 300]
    for entry in whole["summary"]:
        rows, n = entry["profiles"], entry["tokens"]
        assert list(rows) == ["full", CHOOSING, host]
        assert [rows[name]["keys_read"] for name in rows] == [n - 1, 104, 104]
        for name, row in rows.items():
            own = [r for r in whole["records"] if (r["tokens"], r["profile"]) == (n, name)]
            steps = [statistics.fmean(record["itl_ms"][record["open_steps"] :]) for record in own]
            assert row["step_ms"]["median"] == pytest.approx(statistics.median(steps))
            bound = whole["bound"]["weight_bytes"] + row["keys_read"] * whole["bound"]["kv_bytes_per_token"]
            assert row["bound_ms"] == pytest.approx(bound / whole["bound"]["bandwidth_bytes_per_s"] * 1e3)
            assert row["kv_full_bytes"] == (n - 1) * 2 * LLAMA.kv_bytes_per_token
            assert row["kv_device_bytes"] is None and row["kv_store_host_bytes"] >= row["kv_full_bytes"]
            assert (row["steps"], row["graph_replays"]) == (12, 0)
        assert 0 < rows[host]["choosing_share"]["low"] < 1


def test_the_table_of_the_demo_model(capsys: pytest.CaptureFixture[str]) -> None:
    asked = DecodeOptions(ModelOptions("demo", device="cpu"), ("full", CHOOSING), (300,), new_tokens=13, rounds=1)
    assert run_decode(asked) == 0
    captured = capsys.readouterr()
    assert "300 tokens: an answer of 13, 1 rounds, demo, float32 on cpu" in captured.out
    assert "reads 13.0 MiB of weights and 4,096 bytes for every key" in captured.out
    assert "0 of 12" in captured.out and "\x1b" not in captured.out
    assert "the layers are run by fused kernels of loopserve's" in captured.out
    assert "warm-up" in captured.err


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    know_tiny_shapes(monkeypatch)
    with pytest.raises(UsageError, match="reads at most 4096"):
        decode(capsys, f"random:{LLAMA.model}", (200, 4097), "full")
    asked = DecodeOptions(ModelOptions(f"random:{LLAMA.model}", device="cpu"), ("loopserve",), (300,), new_tokens=17)
    with pytest.raises(UsageError, match="loopserve reads everything for 16 steps; give at least 18"):
        run_decode(asked)


def test_a_whole_context_can_be_filled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    know_tiny_shapes(monkeypatch)
    whole = decode(capsys, f"random:{QWEN.model}", (QWEN.context,), "full")
    assert {record["finish_reason"] for record in whole["records"]} == {"length"}
    assert {record["tokens_logical"] for record in whole["records"]} == {QWEN.context}
