"""Nothing measured is lost: turns are on the disk as they end, no run touches another's folder, and a run goes on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from replay_fakes import FakeEngine, options, transcript

from loopserve_cli.config import ModelOptions, ReplayOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Event, Token
from loopserve_cli.engine.identity import Identity
from loopserve_cli.engine.loader import load
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.measure.run_folder import RunFolder
from loopserve_cli.profile import load_profile
from loopserve_cli.replay import run
from loopserve_cli.replay.variant import WARM_UP_TEXT
from loopserve_cli.stats import TurnRecord

WHOLE = {"run.json", "records.jsonl", "output_ids.jsonl", "records.csv", "summary.json", "summary.csv", "report.html"}
THREE = [("one", "A1"), ("two", "A2"), ("three", "A3")]


class Replay:
    """Runs a replay on a new fake engine; `at` may raise when a turn of that text runs under that profile."""

    def __init__(self, at: Callable[[FakeEngine, str], None] = lambda engine, text: None) -> None:
        self.at = at

    def __call__(self, given: ReplayOptions) -> int:
        return run(given, self.open)

    def open(self, given: ReplayOptions, say: object) -> FakeEngine:
        self.engine = FakeEngine(given.profiles[0])
        self.engine.fail = lambda text: self.at(self.engine, text)
        return self.engine

    @property
    def log(self) -> list[tuple[str, str]]:
        return [entry for entry in self.engine.log if entry[1] != WARM_UP_TEXT]


def stop_at(name: str, text: str, error: BaseException) -> Replay:
    def at(engine: FakeEngine, asked: str) -> None:
        if (engine.profile.name, asked) == (name, text):
            raise error

    return Replay(at)


@pytest.fixture
def talk(tmp_path: Path) -> str:
    return transcript(tmp_path / "talk.jsonl", ("x", THREE), ("y", THREE[:1]))


def lines(folder: Path, name: str = "records.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def turns(folder: Path) -> list[tuple[str, str, int]]:
    return [(r["conversation_id"], r["profile"], r["turn"]) for r in lines(folder)]


def summary(folder: Path) -> dict:
    """Of a run with the fakes, whose times depend on how much they ran."""
    found = json.loads((folder / "summary.json").read_text())["summary"]
    return {name: {key: row[key] for key in row if key not in ("ttft_ms", "verdict")} for name, row in found.items()}


def test_a_record_is_on_the_disk_before_the_next_turn_begins(talk, tmp_path, capsys):
    out, seen = tmp_path / "out", []
    replay = Replay(lambda engine, text: seen.append((text, turns(out)) if (out / "run.json").exists() else None))
    assert replay(options(talk, out=out)) == 0
    assert seen[0] is not None  # run.json is there when the warm-up runs
    assert seen[1:] == [
        ("one", []),
        ("two", [("x", "full", 1)]),
        ("three", [("x", "full", 1), ("x", "full", 2)]),
        ("one", [("x", "full", 1), ("x", "full", 2), ("x", "full", 3)]),
    ]
    assert {path.name for path in out.iterdir()} == WHOLE
    assert [row["output_ids"] for row in lines(out, "output_ids.jsonl")][0] == list(b"f12")


def test_an_exception_in_mid_run_leaves_what_was_measured_and_is_told(talk, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(KeyError, match="bug"):
        stop_at("full", "three", KeyError("bug"))(options(talk, out=out, json=True))
    assert turns(out) == [("x", "full", 1), ("x", "full", 2)]
    assert {path.name for path in out.iterdir()} == WHOLE
    assert summary(out)["full"]["turns"] == 2
    assert len(json.loads(capsys.readouterr().out)["records"]) == 2


def test_a_model_that_does_not_load_leaves_nothing(talk, tmp_path, capsys):
    out = tmp_path / "out"

    def broken(given, say):
        raise LoopserveError("no such model")

    with pytest.raises(LoopserveError, match="no such model"):
        run(options(talk, out=out), broken)
    assert list(out.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_another_runs_folder_is_left_as_it_is(talk, tmp_path, capsys):
    out = tmp_path / "out"
    replay = Replay()
    assert replay(options(talk, out=out)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for number in (2, 3):
        capsys.readouterr()
        assert replay(options(talk, "loop", out=out)) == 0
        there = tmp_path / f"out-{number}"
        assert f"{out} holds another run; this one goes to {there}\n" in capsys.readouterr().err
        assert {path.name for path in there.iterdir()} == WHOLE
        assert {row["profile"] for row in lines(there)} == {"loop"}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_records_of_an_earlier_version_are_a_run_and_other_files_are_not(talk, tmp_path, capsys):
    old, other = tmp_path / "old", tmp_path / "other"
    for folder in (old, other):
        folder.mkdir()
    (old / "records.jsonl").write_text("{}\n")
    (other / "notes.txt").write_text("mine")
    for folder in (old, other):
        Replay()(options(talk, out=folder))
    assert (old / "records.jsonl").read_text() == "{}\n"
    assert (tmp_path / "old-2" / "summary.json").exists()
    assert {path.name for path in other.iterdir()} == WHOLE | {"notes.txt"}


def test_a_folder_that_another_process_is_about_to_use(tmp_path):
    first = RunFolder.new(tmp_path / "out")
    second = RunFolder.new(tmp_path / "out")
    assert (first.path, second.path) == (tmp_path / "out", tmp_path / "out-2")
    first.begin({"date": "now"})
    with pytest.raises(UsageError, match="another process runs it; wait until it has ended"):
        RunFolder.resumed(first.path)
    first.close(), second.close()
    assert RunFolder.new(tmp_path / "out").path == tmp_path / "out-2"


@pytest.mark.parametrize("stop", [KeyError("bug"), KeyboardInterrupt()])
@pytest.mark.parametrize(("name", "text"), [("full", "one"), ("full", "three"), ("loop", "one"), ("loop", "three")])
def test_resume_runs_what_is_missing_and_ends_like_an_unbroken_run(talk, tmp_path, capsys, stop, name, text):
    given = {"repeat": 2, "json": True}
    whole, out = tmp_path / "whole", tmp_path / "out"
    unbroken = Replay()
    assert unbroken(options(talk, "full", "loop", out=whole, **given)) == 0
    broken = stop_at(name, text, stop)
    if isinstance(stop, KeyboardInterrupt):
        assert broken(options(talk, "full", "loop", out=out, **given)) == 130
    else:
        with pytest.raises(KeyError):
            broken(options(talk, "full", "loop", out=out, **given))
    before = turns(out) if (out / "records.jsonl").exists() else []
    capsys.readouterr()
    resumed = Replay()
    assert resumed(options(talk, "full", "loop", resume=out, **given)) == 0
    captured = capsys.readouterr()
    assert f"resuming {out}: {16 - len(before)} of 16 turns are missing" in captured.err
    assert turns(out) == turns(whole)
    assert summary(out) == summary(whole)
    assert len(json.loads(captured.out)["records"]) == 16
    # A pass that was cut off takes its earlier turns again, so that the later ones see the same; no other does.
    again = {"one": 0, "two": 1, "three": 2}[text]
    assert len(resumed.log) == 16 - len(before) + again
    assert resumed.engine.seen[-1] == unbroken.engine.seen[-1]


def test_a_turn_that_failed_is_measured_and_not_tried_again(talk, tmp_path, capsys):
    out = tmp_path / "out"

    def fail_or_stop(engine: FakeEngine, text: str) -> None:
        if text == "two":
            raise LoopserveError("no room")
        if engine.log.count(("full", "one")) == 2:
            raise KeyboardInterrupt

    assert Replay(fail_or_stop)(options(talk, out=out)) == 130
    assert turns(out) == [("x", "full", 1), ("x", "full", 2)]
    resumed = Replay()
    assert resumed(options(talk, resume=out)) == 1
    assert resumed.log == [("full", "one")]
    assert turns(out) == [("x", "full", 1), ("x", "full", 2), ("y", "full", 1)]
    assert summary(out)["full"]["failed"] == 1


def test_a_live_history_begins_anew_and_stands_once(talk, tmp_path, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    stop_at("full", "three", KeyboardInterrupt())(options(talk, out=out, history="live"))
    resumed = Replay()
    assert resumed(options(talk, resume=out, history="live")) == 0
    assert [text for _, text in resumed.log] == ["one", "two", "three", "one"]
    assert Replay()(options(talk, out=whole, history="live")) == 0
    assert turns(out) == turns(whole)
    assert [row["output_text"] for row in lines(out)] == [row["output_text"] for row in lines(whole)]


def test_a_whole_run_has_nothing_left_to_run(talk, tmp_path, capsys):
    out = tmp_path / "out"
    Replay()(options(talk, out=out))
    before = lines(out)
    again = Replay()
    assert again(options(talk, resume=out)) == 0
    assert again.log == []
    assert lines(out) == before
    assert f"resuming {out}: 0 of 4 turns are missing" in capsys.readouterr().err


def test_torn_lines_are_cut_off_and_agreement_is_of_all_turns(talk, tmp_path, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    Replay()(options(talk, "full", "loop", out=whole))
    for number in (1, 2):
        (whole / f"copy{number}").mkdir()
    stop_at("loop", "two", KeyboardInterrupt())(options(talk, "full", "loop", out=out))
    with (out / "records.jsonl").open("a") as records, (out / "output_ids.jsonl").open("a") as ids:
        ids.write('{"conversation_id": "x", "profile": "loop", "repeat": 1, "turn": 2, "output_ids": [1]}\n{"conv')
        records.write('{"conversation_id": "x", "prof')
    assert Replay()(options(talk, "full", "loop", resume=out)) == 0
    assert [row["agreement"] for row in lines(out)] == [row["agreement"] for row in lines(whole)]
    assert turns(out) == turns(whole)


def test_a_damaged_line_is_named(talk, tmp_path, capsys):
    out = tmp_path / "out"
    Replay()(options(talk, out=out))
    good = (out / "records.jsonl").read_text()
    for bad, line in (("nonsense\n", "line 1: is no JSON object"), ('{"turn": "x"}\n', "line 1: is no turn that")):
        (out / "records.jsonl").write_text(bad + good)
        with pytest.raises(LoopserveError, match=line):
            Replay()(options(talk, resume=out))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"repeat": 3}, "repeat was 1 and is 3"),
        ({"history": "live"}, "history was recorded and is live"),
        ({"max_turns": 2}, "max_turns was not set and is 2"),
        ({"sampling": SamplingOptions(seed=3)}, "sampling.seed was not set and is 3"),
    ],
)
def test_other_settings_are_another_run(talk, tmp_path, change, line):
    out = tmp_path / "out"
    Replay()(options(talk, out=out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError) as raised:
        Replay()(options(talk, resume=out, **change))
    assert str(raised.value) == f"--resume {out}: {line}; resume it as it began, or give --out for a new run"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_other_profiles_dialogues_models_and_versions_are_another_run(talk, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    Replay()(options(talk, "full", "loop", out=out))

    def refused(given: ReplayOptions, replay: Replay | None = None) -> str:
        with pytest.raises(UsageError) as raised:
            (replay or Replay())(given)
        return str(raised.value).partition(": ")[2].partition(";")[0]

    assert refused(options(talk, "full", resume=out)) == "the profiles were full, loop and are full"
    changed = transcript(tmp_path / "other.jsonl", ("x", [*THREE[:2], ("three", "B3")]), ("y", THREE[:1]))
    assert refused(options(changed, "full", "loop", resume=out)) == "dialogue x has changed since"
    fewer = transcript(tmp_path / "fewer.jsonl", ("x", THREE))
    assert refused(options(fewer, "full", "loop", resume=out)) == "dialogue y is not in the files now"

    for field, value, line in (
        ("identity", Identity("fake", "c", "other", "t", "float32", None), "it was measured with other weights (fake)"),
        ("device", "H100", "device was cpu and is H100"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(FakeEngine, field, value)
            assert refused(options(talk, "full", "loop", resume=out)) == line
    with monkeypatch.context() as patch:
        patch.setattr("loopserve_cli.replay.book.versions", lambda: {"torch": "1.0"})
        assert "versions." in refused(options(talk, "full", "loop", resume=out))
    with monkeypatch.context() as patch:
        given = options(talk, "full", "loop", resume=out)
        slower = given.profiles[1].with_overrides(["keep.policy=snapkv"])
        object.__setattr__(slower, "name", "loop")
        object.__setattr__(given, "profiles", (given.profiles[0], slower))
        assert refused(given) == "profiles.loop.keep.policy was everything and is snapkv"


def test_a_folder_without_a_run_cannot_be_resumed(talk, tmp_path):
    for name in ("missing", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=r"holds no run \(run.json\); give --out to begin one"):
            Replay()(options(talk, resume=tmp_path / name))
    (tmp_path / "empty" / "run.json").write_text("{")
    with pytest.raises(UsageError, match="run.json is damaged"):
        Replay()(options(talk, resume=tmp_path / "empty"))
    with pytest.raises(UsageError, match="give one of them"):
        options(talk, out=tmp_path, resume=tmp_path)


def test_the_date_is_that_of_the_first_process(talk, tmp_path, capsys):
    out = tmp_path / "out"
    stop_at("full", "three", KeyboardInterrupt())(options(talk, out=out))
    run_file = out / "run.json"
    data = json.loads(run_file.read_text())
    assert data["fingerprints"]["versions"]["python"] and data["command"]["name"] == "replay"
    run_file.write_text(json.dumps(data | {"date": "2001-02-03T04:05:06"}))
    from loopserve_cli.replay.book import Book

    dates = []
    opened = Book.opened.__func__  # type: ignore[attr-defined]

    def spy(cls, *given):
        book = opened(cls, *given)
        dates.append(book.date)
        return book

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Book, "opened", classmethod(spy))
        assert Replay()(options(talk, resume=out)) == 0
    assert dates == ["2001-02-03T04:05:06"]
    resumed = json.loads(run_file.read_text())["resumed"]
    assert len(resumed) == 1
    environment = json.loads((out / "summary.json").read_text())["environment"]
    assert environment["resumed"] == [resumed[0]["environment"]["timestamp"]]


def test_an_interrupt_while_a_turn_is_kept_arrives_when_it_is_kept(tmp_path, monkeypatch):
    folder = RunFolder.new(tmp_path / "out")
    folder.begin({})
    folder.add(TurnRecord(conversation_id="x", turn=1), [7])
    real, came = os.fsync, []

    def pressed(handle: int) -> None:
        if not came:
            came.append(True)
            raise KeyboardInterrupt
        real(handle)

    monkeypatch.setattr(os, "fsync", pressed)
    with pytest.raises(KeyboardInterrupt):
        folder.add(TurnRecord(conversation_id="x", turn=2), [8, 9])
    folder.close()
    kept = RunFolder.resumed(tmp_path / "out").kept
    assert [(record.turn, ids) for record, ids in kept] == [(1, (7,)), (2, (8, 9))]


@pytest.mark.parametrize("first_refused", range(2, 8))
def test_a_full_disk_is_one_line_and_leaves_whole_records(talk, tmp_path, monkeypatch, capsys, first_refused):
    """Each turn is two writes: the first one refused is of ids or of a record; half of it is written."""
    out, real, calls = tmp_path / "out", os.write, []
    kept = ("records.jsonl", "output_ids.jsonl")

    def write(handle: int, data: bytes) -> int:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        calls.append(name) if name in kept else None
        if len(calls) >= first_refused:
            if name in kept and len(data) > 20:
                return real(handle, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(LoopserveError) as raised:
            Replay()(options(talk, out=out, json=True))
    assert str(raised.value) == (
        f"{out}: the last turn could not be kept: No space left on device; "
        f"free some space, and go on with --resume {out}"
    )
    captured = capsys.readouterr()
    done = (first_refused - 1) // 2
    assert len(turns(out)) == done
    assert "wrote" not in captured.err
    assert len(json.loads(captured.out)["records"]) == done + 1  # the turn that could not be kept is still told
    assert Replay()(options(talk, resume=out)) == 0
    assert len(turns(out)) == 4


@pytest.fixture(scope="module")
def demo() -> Engine:
    return Engine(load(ModelOptions()), load_profile("full"))


@pytest.mark.parametrize("name", ["full", "loopserve", "loopserve+retain.tier=evict", "h2o"])
def test_the_real_engine_goes_on_as_if_it_had_never_stopped(name, demo, tmp_path, capsys):
    def replay(**where: Path) -> int:
        return run(ReplayOptions(**given, **where), lambda given, say: demo)

    given = {
        "model": ModelOptions(),
        "sampling": SamplingOptions(max_new_tokens=6),
        "profiles": (load_profile(name),),
        "transcripts": ("demo:long",),
        "max_turns": 4,
    }
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert replay(out=whole) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "add", stopping_after(2, RunFolder.add))
        assert replay(out=out) == 130
    assert len(lines(out)) == 2
    assert replay(resume=out) == 0
    for before, after in zip(lines(whole), lines(out), strict=True):
        assert {key: after[key] for key in SAME} == {key: before[key] for key in SAME}


SAME = (
    "conversation_id turn profile tokens_logical tokens_new tokens_cached tokens_output output_text finish_reason "
    "density coverage alpha keys_read keys_stored reselections agreement kv_store_device_bytes kv_used_device_bytes"
).split()


def stopping_after(turns: int, add: Callable) -> Callable:
    def stopped(self: RunFolder, record: TurnRecord, ids: list[int]) -> None:
        add(self, record, ids)
        if record.turn == turns:
            raise KeyboardInterrupt

    return stopped


def test_history_is_generated_again_only_where_its_keys_were_generated(demo, tmp_path, capsys):
    """What is generated as it is recorded is not fed anew by an unbroken run, so neither when it goes on."""
    said = "The room of Miro is 417."
    answer = "".join(e.text for e in Conversation(demo).ask(said, SamplingOptions()) if isinstance(e, Token))
    asked: list[int] = []
    real = Conversation.ask

    def counted(self: Conversation, *given: object) -> Iterator[Event]:
        asked.append(0)
        for event in real(self, *given):  # type: ignore[arg-type]
            asked[-1] += isinstance(event, Token)
            yield event

    counts = {}
    for recorded in (answer, "Zebras."):
        out = tmp_path / recorded
        path = transcript(tmp_path / f"{recorded}.jsonl", ("x", [(said, recorded), ("Where is Miro?", None)]))
        given = ReplayOptions(ModelOptions(), SamplingOptions(max_new_tokens=9), (load_profile("full"),), (path,))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunFolder, "add", stopping_after(1, RunFolder.add))
            assert run(replace(given, out=out), lambda given, say: demo) == 130
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Conversation, "ask", counted)
            asked.clear()
            assert run(replace(given, resume=out), lambda given, say: demo) == 0
        counts[recorded] = asked[1]  # the first is the warm-up
        assert len(lines(out)) == 2
    assert counts[answer] == lines(tmp_path / answer)[0]["tokens_output"] > 1
    assert counts["Zebras."] == 1
