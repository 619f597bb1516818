"""Replaying: whose answers the next turn sees, in which order profiles run, what fails, what is printed."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path

import pytest
from replay_fakes import FakeEngine, options, transcript

from loopserve_cli.config import ReplayOptions, SamplingOptions
from loopserve_cli.errors import ContextLimitError, TranscriptError, UsageError
from loopserve_cli.replay import run
from loopserve_cli.replay.variant import WARM_UP_TEXT
from loopserve_cli.stats import TurnRecord

TWO_TURNS = [("one", "ANSWER1"), ("two", "ANSWER2")]


class Session:
    """Runs a replay on one fake engine and keeps it."""

    def __init__(self, fail=lambda text: None) -> None:
        self.fail = fail
        self.loads = 0

    def run(self, given: ReplayOptions) -> int:
        return run(given, self.open)

    def open(self, given: ReplayOptions, progress) -> FakeEngine:
        self.loads += 1
        progress("loading fake")
        self.engine = FakeEngine(given.profiles[0], self.fail)
        return self.engine

    @property
    def log(self) -> list[tuple[str, str]]:
        return [entry for entry in self.engine.log if entry[1] != WARM_UP_TEXT]


@pytest.fixture
def two_turns(tmp_path: Path) -> str:
    return transcript(tmp_path / "two.jsonl", ("first", TWO_TURNS))


def document(capsys) -> dict:
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_recorded_history_is_what_the_next_turn_sees(two_turns, capsys):
    session = Session()
    assert session.run(options(two_turns)) == 0
    last = session.engine.seen[-1]
    assert last == "<u>one<e><a>ANSWER1<e><u>two<e><a>"
    assert "f12" not in last


def test_live_history_keeps_what_was_generated(two_turns, capsys):
    session = Session()
    assert session.run(options(two_turns, history="live")) == 0
    assert session.engine.seen[-1] == "<u>one<e><a>f12<e><u>two<e><a>"


def test_without_recorded_answers_a_dialogue_is_live_and_says_so(tmp_path, two_turns, capsys):
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"session_id": "q", "turns": [{"text": "one"}, {"text": "two"}]}]))
    session = Session()
    assert session.run(options((str(questions), two_turns), json=True)) == 0
    captured = capsys.readouterr()
    assert "q: the file does not have all answers" in captured.err
    assert "first: the file" not in captured.err
    assert json.loads(captured.out)["command"]["histories"] == {"q": "live", "first": "recorded"}
    assert session.engine.seen[2] == "<u>one<e><a>f12<e><u>two<e><a>"


def test_an_answer_missing_after_the_last_turn_is_no_reason_for_live(tmp_path, capsys):
    path = transcript(tmp_path / "t.jsonl", ("a", [("one", "A1"), ("two", None)]))
    session = Session()
    assert session.run(options(path)) == 0
    assert "<a>A1<e>" in session.engine.seen[-1]


def test_profiles_alternate_dialogue_by_dialogue_and_take_turns_at_going_first(tmp_path, capsys):
    path = transcript(tmp_path / "t.jsonl", ("x", [("x1", "a")]), ("y", [("y1", "a")]))
    session = Session()
    assert session.run(options(path, "A", "B", repeat=2)) == 0
    assert session.log == [
        ("A", "x1"), ("B", "x1"), ("B", "y1"), ("A", "y1"),
        ("B", "x1"), ("A", "x1"), ("A", "y1"), ("B", "y1"),
    ]  # fmt: skip
    assert session.loads == 1


def test_every_profile_starts_from_an_empty_store(two_turns, capsys):
    session = Session()
    session.run(options(two_turns, "full", "loop", json=True))
    records = document(capsys)["records"]
    assert [(r["profile"], r["turn"], r["tokens_cached"] == 0) for r in records] == [
        ("full", 1, True), ("full", 2, False), ("loop", 1, True), ("loop", 2, False),
    ]  # fmt: skip


def test_one_short_warm_up_turn_per_profile_is_said_and_not_recorded(two_turns, capsys):
    session = Session()
    session.run(options(two_turns, "A", "B", json=True))
    captured = capsys.readouterr()
    assert session.engine.log[:2] == [("A", WARM_UP_TEXT), ("B", WARM_UP_TEXT)]
    assert len(json.loads(captured.out)["records"]) == 4
    assert "warm-up" in captured.err


def test_max_turns_cuts_every_dialogue(tmp_path, capsys):
    path = transcript(tmp_path / "t.jsonl", ("x", TWO_TURNS), ("y", TWO_TURNS))
    session = Session()
    session.run(options(path, max_turns=1))
    assert session.log == [("full", "one"), ("full", "one")]


def test_the_document_has_every_field_of_every_turn(two_turns, capsys):
    sampling = SamplingOptions(seed=7)
    assert Session().run(options(two_turns, "full", "loop", repeat=2, sampling=sampling, json=True)) == 0
    whole = document(capsys)
    assert list(whole) == ["command", "environment", "records", "summary"]
    assert len(whole["records"]) == 8
    for record in whole["records"]:
        assert set(record) == {f.name for f in fields(TurnRecord)}
        assert record["conversation_id"] == "first"
        assert record["seed"] == 7
        assert record["versions"]["python"]
    assert [r["repeat"] for r in whole["records"]] == [1] * 4 + [2] * 4
    assert whole["environment"]["torch_threads"] >= 1
    assert whole["environment"]["versions"]["torch"]
    assert whole["summary"]["full"]["turns"] == 4
    assert whole["command"]["name"] == "replay"
    assert whole["command"]["options"]["sampling"]["seed"] == 7


def test_the_place_where_a_greedy_answer_parts_from_fulls(two_turns, capsys):
    # The fakes answer "f12" and "l12"; full goes first, whatever the order, so that the others can be compared.
    session = Session()
    session.run(options(two_turns, "loop", "full", "fast", json=True))
    assert [name for name, _ in session.log] == ["full", "full", "loop", "loop", "fast", "fast"]
    by_profile = {r["profile"]: (r["diverged_at"], r["agreement"]) for r in document(capsys)["records"]}
    assert by_profile == {"full": (None, None), "loop": (0, None), "fast": (None, None)}


def test_where_answers_part_is_unknown_when_sampling_or_without_full(two_turns, capsys):
    Session().run(options(two_turns, "full", "loop", sampling=SamplingOptions(temperature=1.0), json=True))
    assert {r["diverged_at"] for r in document(capsys)["records"]} == {None}
    Session().run(options(two_turns, "loop", json=True))
    assert {r["diverged_at"] for r in document(capsys)["records"]} == {None}


def fail_on(word: str, error: BaseException):
    def fail(text: str) -> None:
        if text == word:
            raise error

    return fail


@pytest.mark.parametrize("error", [ContextLimitError("too long"), RuntimeError("CUDA error: launch\nand more")])
def test_a_failing_turn_ends_its_dialogue_and_no_other(tmp_path, capsys, error):
    path = transcript(
        tmp_path / "t.jsonl", ("x", [("one", "a"), ("bad", "b"), ("three", "c"), ("four", "d")]), ("y", TWO_TURNS)
    )
    session = Session(fail_on("bad", error))
    assert session.run(options(path, json=True)) == 1
    captured = capsys.readouterr()
    records = json.loads(captured.out)["records"]
    assert [(r["conversation_id"], r["turn"]) for r in records] == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]
    first_line = str(error).splitlines()[0]
    assert [r["error"] for r in records] == [None, f"{first_line} (2 later turns not run)", None, None]
    assert records[1]["profile"] == "full"
    assert records[1]["ttft_ms"] is None
    assert f"failed: x, turn 2, full: {first_line}" in captured.err


def test_a_wrong_program_is_not_taken_for_a_failed_turn(two_turns):
    with pytest.raises(KeyError):
        Session(fail_on("two", KeyError("bug"))).run(options(two_turns))


def test_ctrl_c_reports_what_was_measured(two_turns, tmp_path, capsys):
    session = Session(fail_on("two", KeyboardInterrupt()))
    assert session.run(options(two_turns, json=True, out=tmp_path / "out", fail_if=("turns<2",))) == 130
    captured = capsys.readouterr()
    assert [r["turn"] for r in json.loads(captured.out)["records"]] == [1]
    assert "interrupted: 1 turn" in captured.err
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 1


def test_ctrl_c_while_loading(two_turns, capsys):
    def interrupted(given, progress):
        raise KeyboardInterrupt

    assert run(options(two_turns), interrupted) == 130
    assert capsys.readouterr().out == ""


def test_files(two_turns, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert Session().run(options(two_turns, "full", "loop", out=out, json=True)) == 0
    whole = document(capsys)
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert lines == whole["records"]
    rows = list(csv.DictReader((out / "records.csv").open(newline="")))
    assert list(rows[0]) == [f.name for f in fields(TurnRecord)]
    assert [row["profile"] for row in rows] == ["full", "full", "loop", "loop"]
    assert json.loads(rows[0]["itl_ms"]) == [1.0, 1.0]
    assert rows[0]["kl_mean"] == ""
    assert float(rows[0]["ttft_ms"]) == whole["records"][0]["ttft_ms"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["summary"] == whole["summary"]
    assert "records" not in summary


def test_a_folder_that_cannot_be_made_is_told_before_loading(two_turns, tmp_path):
    (tmp_path / "file").write_text("")
    session = Session()
    with pytest.raises(UsageError, match="--out .*file/out: it, or a part of its path, is a file"):
        session.run(options(two_turns, out=tmp_path / "file" / "out"))
    assert session.loads == 0


def test_wrong_gates_files_and_profiles_are_told_before_loading(two_turns, tmp_path):
    session = Session()
    with pytest.raises(UsageError, match="unknown measure"):
        session.run(options(two_turns, fail_if=("speed>1",)))
    with pytest.raises(UsageError, match="given twice"):
        session.run(options(two_turns, "full", "full"))
    with pytest.raises(TranscriptError):
        session.run(options(str(tmp_path / "missing.jsonl")))
    with pytest.raises(UsageError, match="demo:huge"):
        session.run(options("demo:huge"))
    assert session.loads == 0


def test_a_failed_gate_names_itself_and_its_value(two_turns, capsys):
    assert Session().run(options(two_turns, fail_if=("ttft_ms.p50>500", "full.ttft_ms.mean>=100"))) == 3
    captured = capsys.readouterr()
    assert "gate full.ttft_ms.mean>=100 failed: full ttft_ms.mean is 102.5" in captured.err
    assert "p50>500 failed" not in captured.err


def test_a_gate_on_failures_outranks_the_failure(two_turns, capsys):
    assert Session(fail_on("two", ContextLimitError("full up"))).run(options(two_turns, fail_if=("failed>0",))) == 3
    assert "gate failed>0 failed: full failed is 1" in capsys.readouterr().err


def test_tables_are_plain_on_a_pipe(two_turns, capsys):
    Session().run(options(two_turns, "full", "loop", repeat=3, turns=True))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "first, medians of 3 repeats" in out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("1 ", "2 "))]
    assert [row[:2] for row in rows] == [["1", "full"], ["1", "loop"], ["2", "full"], ["2", "loop"]]
    assert "5,000" in rows[0]
    assert rows[0][-1] == "stop"
    assert "summary (full: 6 turns, 0 failed, loop: 6 turns, 0 failed)" in out
    ttft = next(line.split() for line in out.splitlines() if line.strip().startswith("TTFT ms"))
    assert ttft[2] == "full" and ttft[-1] == "6"
    assert ttft[5:7] == ["n/a", "n/a"]


def test_the_table_shows_errors_in_brackets_as_they_are(two_turns, capsys):
    Session(fail_on("one", ContextLimitError("[red]no room[/red]"))).run(options(two_turns))
    assert "[red]no room[/red] (1 later turn not run)" in capsys.readouterr().out


def test_ids_are_unique_over_files(tmp_path, capsys):
    one = transcript(tmp_path / "one.jsonl", ("same", [("q", "a")]))
    two = transcript(tmp_path / "two.jsonl", ("same", [("r", "b")]))
    Session().run(options((one, two), json=True))
    assert [r["conversation_id"] for r in document(capsys)["records"]] == ["same", "same#2"]
