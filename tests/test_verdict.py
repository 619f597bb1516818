"""The verdict of a replay: what is compared with what, how it is said, and which columns stay on a narrow terminal."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from replay_fakes import FakeEngine, options, transcript
from test_interval import rounds_apart

from loopserve_cli.config import SamplingOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.figures import NO_DIFFERENCE
from loopserve_cli.measure.ratio import Ratio
from loopserve_cli.measure.verdict import Verdict, verdicts
from loopserve_cli.measure.verdict_lines import sentence, verdict_lines
from loopserve_cli.measure.verdict_table import verdict_markdown, verdict_table
from loopserve_cli.output import CleanConsole
from loopserve_cli.replay import run
from loopserve_cli.stats import TurnRecord


def record(profile: str, turn: int = 1, ttft: float = 10.0, dialogue: str = "d", **rest: object) -> TurnRecord:
    where = TurnRecord(conversation_id=dialogue, profile=profile, turn=turn, repeat=1, ttft_ms=ttft)
    return replace(where, **rest)  # type: ignore[arg-type]


def test_turns_are_compared_with_the_same_turn_and_never_pooled() -> None:
    # Twice as fast in both dialogues; the long one's turn was lost by one of them, so means and sums would lie.
    records = [record("full", turn, 20.0 * turn) for turn in (1, 2, 3)]
    records += [record("fast", turn, 10.0 * turn) for turn in (1, 2, 3)]
    records += [record("full", 1, 5000.0, "long"), record("fast", 1, 1.0, "long", error="lost")]
    full, fast = verdicts(records)
    assert (full.profile, full.against, full.first_token) == ("full", None, None)
    assert fast.first_token is not None and fast.next_tokens is None
    assert (fast.first_token.ratio, fast.first_token.pairs) == (pytest.approx(2.0), 3)
    assert fast.first_token.low == pytest.approx(2.0) and fast.first_token.high == pytest.approx(2.0)


def test_full_is_compared_with_wherever_it_stands_else_the_first() -> None:
    assert [(v.profile, v.against) for v in verdicts([record("b"), record("a"), record("full")])] == [
        ("full", None), ("b", "full"), ("a", "full"),
    ]  # fmt: skip
    assert [(v.profile, v.against) for v in verdicts([record("b"), record("a")])] == [("b", None), ("a", "b")]
    assert verdicts([]) == []


def test_full_against_full_shows_no_difference() -> None:
    noise = np.exp(rounds_apart()(np.random.default_rng(7), (2, 20, 3)))
    records = [
        TurnRecord(
            conversation_id=f"d{d}", repeat=r, turn=t, profile=("full", "again")[d], output_text="yes",
            ttft_ms=100.0 * t * noise[d, t - 1, r - 1], kl_mean=0.0,
        )
        for d in (0, 1) for t in range(1, 21) for r in (1, 2, 3)
    ]  # fmt: skip
    _, again = verdicts([replace(record, conversation_id="d") for record in records])
    assert again.first_token is not None
    assert again.first_token.low is not None and again.first_token.high is not None
    assert again.first_token.low < 1 < again.first_token.high
    assert again.first_token.ratio == pytest.approx(1, abs=0.03)
    assert NO_DIFFERENCE in sentence(again)
    assert "KL 0, same answers 60 of 60" in sentence(again)


def test_the_ceiling_is_what_attention_for_free_would_gain_and_unknown_where_it_was_not_timed() -> None:
    own = [record("p", turn, 50.0) for turn in (1, 2)]
    other = [record("full", turn, 100.0, attention_ms=75.0) for turn in (1, 2, 3)]
    assert verdicts([*other, *own])[1].ceiling == pytest.approx(4.0)
    other[1] = replace(other[1], attention_ms=None)
    assert verdicts([*other, *own])[1].ceiling is None
    assert verdicts([*other, record("p", 3, 50.0)])[1].ceiling == pytest.approx(4.0)


def test_keys_and_bytes_are_those_of_the_longest_turn() -> None:
    parts = {"kv_store_device_bytes": 100, "kv_store_host_bytes": 20, "working_set_bytes": 3}
    records = [record("full", 1, keys_read=900, keys_stored=900), record("p", 1, keys_read=90, keys_stored=900)]
    records += [record("p", 2, keys_read=100, keys_stored=1800, **parts)]
    records += [record("p", 2, keys_read=104, keys_stored=1800, **parts | {"working_set_bytes": 5}, repeat=2)]
    full, p = verdicts(records)
    assert (p.keys_read, p.keys_stored, p.kv_bytes) == (102, 1800, 124)
    assert full.kv_bytes is None


def test_answers_are_the_same_word_for_word_and_unknown_when_sampling() -> None:
    texts = {"full": ("one", "two"), "p": ("one", "too")}
    records = [record(p, turn, output_text=text) for p in texts for turn, text in enumerate(texts[p], start=1)]
    verdict = verdicts(records)[1]
    assert (verdict.same_answers, verdict.answers, verdict.same_share) == (1, 2, 0.5)
    assert verdicts(records, greedy=False)[1].same_answers is None
    thought = [replace(records[0], reasoning_text="hm"), *records[1:]]
    assert verdicts(thought)[1].same_answers == 0


MADE = Verdict(
    "loopserve",
    "full",
    first_token=Ratio(2.41, 2.1, 2.64, 35),
    next_tokens=Ratio(1.01, 0.97, 1.05, 35),
    ceiling=3.1,
    ttft_ms=421.0,
    tpot_ms=4.0,
    keys_read=1039.0,
    keys_stored=16589.0,
    kv_bytes=64.8 * 2**20,
    kl_mean=0.00104,
    same_answers=34,
    answers=35,
)
REFERENCE = Verdict("full", None, ttft_ms=1013.0, kv_bytes=64.8 * 2**20, keys_read=16589.0)


def test_a_verdict_in_words() -> None:
    assert sentence(MADE) == (
        "loopserve against full: first token 2.41x (2.10 to 2.64; ceiling 3.10x), "
        "next tokens 1.01x (0.97 to 1.05; no difference that this run can show), "
        "cache read 1,039 of 16,589 keys, KL 0.001, same answers 34 of 35"
    )
    lines = verdict_lines([REFERENCE, MADE])
    assert lines[0].startswith("loopserve against full") and max(map(len, lines)) <= 80
    assert " ".join(line.strip() for line in lines) == sentence(MADE)
    assert max(map(len, verdict_lines([MADE], 50))) <= 50 and verdict_lines([MADE], 200) == lines
    bare = Verdict("a", "b", first_token=Ratio(1.5, None, None, 1))
    assert sentence(bare) == "a against b: first token 1.50x (one turn: no interval), next tokens n/a"


def shown(width: int, *given: Verdict) -> str:
    console = CleanConsole(file=io.StringIO(), width=width)
    console.print(verdict_table(given, console))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_columns_give_way_by_importance_and_three_never() -> None:
    kept = {width: shown(width, REFERENCE, MADE) for width in (160, 80, 52, 34)}
    for text in kept.values():
        assert all(part in text for part in ("loopserve", "1,013", "421", "64.8"))
        assert "…" not in text
    gone = ("16,589", "4.00", "3.10x", "1,039", "34 of 35", "0.001", "1.01x", "2.41x")
    widest = {width: [part for part in gone if part in text.partition("x is")[0]] for width, text in kept.items()}
    assert widest[160] == list(gone)
    assert widest[80] == ["0.001", "1.01x", "2.41x"]
    assert widest[52] == ["2.41x"]
    assert widest[34] == []
    assert all(len(line) <= 80 for line in kept[80].splitlines())


def test_a_long_name_is_folded_and_not_cut() -> None:
    name = "loopserve+keep.budget=512+prefill.alpha=0.9"
    text = shown(40, replace(MADE, profile=name))
    below = text.partition("─ \n")[2].splitlines()
    rows = [line.split()[0] for line in below if line.strip()]
    assert "".join(rows[: rows.index("x")]) == name
    assert "421" in text and "64.8" in text


def test_markdown_has_every_known_column() -> None:
    head, rule, full, loop = verdict_markdown([REFERENCE, replace(MADE, profile="a|b")]).splitlines()
    names = ["profile", "TTFT ms", "first token", "KV MiB", "next tokens", "KL", "same answers", "keys read", "ceiling"]
    assert [cell.strip() for cell in head.split(" | ")][:9] == ["| profile", *names[1:]]
    assert rule.count("---:") == head.count("|") - 2
    assert full.startswith("| full | 1,013 |  | 64.8 |  |  |  | 16,589 |")
    assert loop.startswith("| a\\|b | 421 | 2.41x (2.10 to 2.64) | 64.8 | 1.01x (0.97 to 1.05) | 0.001 | 34 of 35 |")


@pytest.fixture
def turns(tmp_path: Path) -> str:
    return transcript(tmp_path / "t.jsonl", ("first", [(f"ask {n}", "A") for n in range(6)]))


def test_a_replay_says_its_verdict_first_and_last_and_turns_only_where_asked(turns: str, capsys) -> None:
    given = options(turns, "loop", "full", repeat=2)
    assert run(given, lambda o, say: FakeEngine(o.profiles[0])) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [place for place, line in enumerate(lines) if line.startswith("loop against full: first token ")]
    assert said[0] == 0 and len(said) == 2
    assert lines[said[1] :] == lines[: len(lines) - said[1]]
    assert "same answers 0 of 12" in " ".join(line.strip() for line in lines[:4])
    assert not any("medians of 2 repeats" in line or line.startswith("summary") for line in lines)
    run(replace(given, turns=True), lambda o, say: FakeEngine(o.profiles[0]))
    out = capsys.readouterr().out
    assert "first, medians of 2 repeats" in out and "summary (" in out
    assert out.startswith("loop against full") and out.count("loop against full") == 2


def test_one_profile_has_no_verdict_and_shows_its_turns(turns: str, capsys) -> None:
    run(options(turns, "full"), lambda o, say: FakeEngine(o.profiles[0]))
    out = capsys.readouterr().out
    assert "against" not in out and "summary (full: 6 turns, 0 failed)" in out


def test_markdown_is_all_that_is_printed(turns: str, capsys) -> None:
    run(options(turns, "full", "loop", markdown=True), lambda o, say: FakeEngine(o.profiles[0]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.startswith("| ") and line.endswith(" |") for line in lines)
    for other in ("json", "turns"):
        with pytest.raises(UsageError, match=f"drop it, or --{other}"):
            options(turns, "full", markdown=True, **{other: True})


def test_the_document_holds_ratios_with_their_intervals(turns: str, capsys) -> None:
    sampled = SamplingOptions(temperature=0.5)
    run(options(turns, "full", "loop", json=True), lambda o, say: FakeEngine(o.profiles[0]))
    run(options(turns, "full", "loop", json=True, sampling=sampled), lambda o, say: FakeEngine(o.profiles[0]))
    greedy, drawn = (json.loads(line)["summary"] for line in capsys.readouterr().out.splitlines())
    assert greedy["full"]["verdict"]["against"] is None
    verdict = greedy["loop"]["verdict"]
    assert set(verdict["first_token"]) == {"ratio", "low", "high", "pairs"} and verdict["first_token"]["pairs"] == 6
    # The fakes' next tokens all take 1 ms.
    assert verdict["next_tokens"] == {"ratio": 1.0, "low": 1.0, "high": 1.0, "pairs": 6}
    assert (verdict["same_answers"], verdict["answers"], verdict["ceiling"]) == (0, 6, None)
    assert drawn["loop"]["verdict"]["same_answers"] is None


def test_the_summary_is_a_csv_as_well(turns: str, tmp_path: Path, capsys) -> None:
    run(options(turns, "full", "loop", out=tmp_path), lambda o, say: FakeEngine(o.profiles[0]))
    full, loop = csv.DictReader((tmp_path / "summary.csv").open(newline=""))
    summary = json.loads((tmp_path / "summary.json").read_text())["summary"]
    assert [full["profile"], loop["profile"]] == ["full", "loop"]
    assert float(loop["verdict.first_token.low"]) == summary["loop"]["verdict"]["first_token"]["low"]
    assert full["verdict.first_token.low"] == ""
    assert float(full["ttft_ms.p50"]) == summary["full"]["ttft_ms"]["p50"]
    assert "kl_mean" not in full


def test_a_gate_on_another_profile_exits_with_3_and_shows_both(turns: str, capsys) -> None:
    gate = "loop.ttft_ms.p50 > 0.5 * full.ttft_ms.p50"
    assert run(options(turns, "full", "loop", fail_if=(gate,)), lambda o, say: FakeEngine(o.profiles[0])) == 3
    told = capsys.readouterr().err
    assert f"gate {gate} failed: loop ttft_ms.p50 is 111.5, full ttft_ms.p50 is 105.5, 0.5 * full.ttft_ms.p50" in told
