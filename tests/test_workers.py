"""Dialogues are shared among workers: the results are those of one process, and a worker's death costs a second try."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from replay_fakes import options, transcript
from worker_fakes import InlinePool, at_turn, open_and_die, open_broken, open_fake

from loopserve_cli.config import ModelOptions, ReplayOptions
from loopserve_cli.engine.share import Share, shares
from loopserve_cli.errors import LoopserveError, ModelError, UsageError
from loopserve_cli.replay import run
from loopserve_cli.replay.workers import spread
from loopserve_cli.replay.workers.messages import Idle, Loaded, Message
from loopserve_cli.replay.workers.processes import about, reason
from loopserve_cli.replay.workers.task import Job

TALK = [("one", "A1"), ("two", "A2"), ("three", "A3")]


@pytest.fixture
def talk(tmp_path: Path) -> str:
    return transcript(tmp_path / "talk.jsonl", ("x", TALK), ("y", TALK[:2]), ("z", TALK[:1]))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[InlinePool]]:
    """Workers run in this process; returns the pools that were made."""

    def put(dies: Callable[[int, Message], bool] = lambda worker, message: False) -> list[InlinePool]:
        made: list[InlinePool] = []

        def pool_of(work: Any, dialogues: int) -> InlinePool:
            job = Job(work.options, work.book.date, work.open_engine, Share("cpu", 1), quiet=False)
            made.append(InlinePool(job, max(1, min(work.options.workers, dialogues)), dies))
            return made[-1]

        monkeypatch.setattr(spread, "pool_of", pool_of)
        return made

    return put


def records(folder: Path) -> list[dict[str, Any]]:
    """All of the records but their times."""
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if not key.endswith("_ms")} for row in rows]


def replayed(given: ReplayOptions, out: Path, code: int = 0, **changed: Any) -> list[dict[str, Any]]:
    assert run(replace(given, out=out, **changed), open_fake) == code
    return records(out)


@pytest.mark.parametrize("names", [("full", "loop"), ("a", "b", "c")])
def test_records_are_those_of_one_process_in_its_order(names, talk, tmp_path, inline, capsys):
    given = options(talk, *names, repeat=3)
    alone = replayed(given, tmp_path / "alone")
    pools = inline()
    assert replayed(given, tmp_path / "spread", workers=2) == alone
    assert len(alone) == 6 * 3 * len(names)
    (pool,) = pools
    assert pool.ended and [worker for worker, _ in pool.started] == [0, 1]
    assert sorted(name for _, name in pool.given) == ["x", "y", "z"]
    environment = json.loads((tmp_path / "spread" / "summary.json").read_text())["environment"]["workers"]
    assert (environment["count"], environment["about"]) == (2, "workers of a test")
    assert [(one["worker"], one["takes"], one["threads"]) for one in environment["each"]] == [
        (1, "cpu", 1),
        (2, "cpu", 1),
    ]
    assert "loading fake" in capsys.readouterr().err


def test_the_longest_dialogue_goes_first_and_no_more_workers_than_dialogues_start(talk, tmp_path, inline, capsys):
    pools = inline()
    replayed(options(talk), tmp_path / "out", workers=8)
    assert [name for _, name in pools[0].given] == ["x", "y", "z"]
    assert len(pools[0].started) == 3


def test_the_first_worker_chooses_the_number_format(talk, tmp_path, inline, capsys):
    pools = inline()
    replayed(options(talk), tmp_path / "out", workers=2)
    assert pools[0].started == [(0, "auto"), (1, "float32")]
    given = replace(options(talk), model=ModelOptions(dtype="bfloat16"))
    replayed(given, tmp_path / "other", workers=2)
    assert pools[1].started == [(0, "bfloat16"), (1, "bfloat16")]


@pytest.mark.parametrize(("turn", "history"), [(1, "recorded"), (3, "recorded"), (2, "live"), (3, "live")])
def test_a_death_costs_its_dialogue_a_second_try_and_nothing_else(turn, history, talk, tmp_path, inline, capsys):
    given = options(talk, "full", "loop", repeat=2, history=history)
    alone = replayed(given, tmp_path / "alone")
    pools = inline(at_turn("x", turn))
    assert replayed(given, tmp_path / "spread", workers=2) == alone
    assert [name for _, name in pools[0].given].count("x") == 2
    assert len(pools[0].given) == 4
    error = capsys.readouterr().err
    assert "worker 1 was ended by SIGKILL at dialogue x, which is tried once more" in error
    ids = (tmp_path / "spread" / "output_ids.jsonl").read_text().splitlines()
    # What ended in the first try counts, but for a live history's that goes on.
    again = turn if history == "live" and turn < len(TALK) else 0
    assert len(ids) == len(alone) + again


def test_a_dialogue_that_ends_two_workers_has_failed_and_the_others_go_on(talk, tmp_path, inline, capsys):
    given = options(talk, "full", "loop")
    alone = replayed(given, tmp_path / "alone")
    pools = inline(at_turn("x", 2, times=2))
    found = replayed(given, tmp_path / "spread", code=1, workers=2)
    assert [row for row in found if row["conversation_id"] != "x"] == [r for r in alone if r["conversation_id"] != "x"]
    of_x = [(r["profile"], r["turn"], r["error"]) for r in found if r["conversation_id"] == "x"]
    why = "the worker was ended by SIGKILL, the second one at this dialogue"
    # The first try ended after full's second turn; so did the second try after loop's.
    assert of_x == [("full", 1, None), ("full", 2, None), ("full", 3, None), ("loop", 1, None), ("loop", 2, None),
                    ("loop", 3, why)]  # fmt: skip
    assert found[5]["model"] == "fake" and found[5]["device"] == "cpu" and found[5]["versions"]
    assert f"failed: x, turn 3, loop: {why}" in capsys.readouterr().err
    assert len(pools[0].given) == 4
    inline()
    assert run(replace(given, resume=tmp_path / "spread", workers=2), open_fake) == 1
    assert "0 of 12 turns are missing" in capsys.readouterr().err


def test_later_turns_of_a_dialogue_given_up_are_told(talk, tmp_path, inline, capsys):
    inline(lambda worker, message: not isinstance(message, Loaded | Idle) and "x" in str(getattr(message, "what", "")))
    found = replayed(options(talk), tmp_path / "out", code=1, workers=2)
    why = "the worker was ended by SIGKILL, the second one at this dialogue (2 later turns not run)"
    assert [(r["turn"], r["error"]) for r in found if r["conversation_id"] == "x"] == [(1, why)]


def test_resume_goes_both_ways(talk, tmp_path, inline, capsys):
    given = options(talk, "full", "loop", repeat=2)
    alone = replayed(given, tmp_path / "alone")

    def interrupted(worker: int, message: Message) -> bool:
        seen.append(message)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return False

    for first, second in [(2, None), (None, 2)]:
        seen: list[Message] = []
        out = tmp_path / f"{first}-{second}"
        inline(interrupted)
        with pytest.MonkeyPatch.context() as patch:
            if first is None:
                stop_after(5, patch)
            assert run(replace(given, out=out, workers=first), open_fake) == 130
        assert 0 < len(records(out)) < len(alone)
        inline()
        assert run(replace(given, resume=out, workers=second), open_fake) == 0
        assert records(out) == alone


def stop_after(turns: int, patch: pytest.MonkeyPatch) -> None:
    from loopserve_cli.measure.run_folder import RunFolder

    add, kept = RunFolder.add, []

    def stopped(self: RunFolder, *given: Any) -> None:
        add(self, *given)
        kept.append(given)
        if len(kept) == turns:
            raise KeyboardInterrupt

    patch.setattr(RunFolder, "add", stopped)


def test_turns_that_were_told_when_it_ends_are_kept(talk, tmp_path, inline, monkeypatch, capsys):
    pools = inline()
    real, asked = InlinePool.next, []

    def interrupted(self: InlinePool) -> tuple[int, Message]:
        asked.append(0)
        if len(asked) == 4:  # the model is there and every dialogue was run here, none of it heard yet
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(InlinePool, "next", interrupted)
    assert run(replace(options(talk), out=tmp_path / "out", workers=1), open_fake) == 130
    assert [(r["conversation_id"], r["turn"]) for r in records(tmp_path / "out")] == [("x", 1), ("x", 2), ("x", 3)]
    assert pools[0].ended


def test_a_turn_that_fails_is_as_in_one_process(tmp_path, inline, capsys):
    path = transcript(tmp_path / "t.jsonl", ("x", [("one", "A"), ("refuse", "B"), ("three", "C")]), ("y", TALK))
    alone = replayed(options(path, "full", "loop"), tmp_path / "alone", code=1)
    inline()
    assert replayed(options(path, "full", "loop"), tmp_path / "spread", code=1, workers=2) == alone
    assert alone[1]["error"] == "no room (1 later turn not run)"


def test_a_model_that_does_not_load_is_told_once(talk, tmp_path, inline, capsys):
    pools = inline()
    with pytest.raises(ModelError, match="^no such model") as raised:
        run(replace(options(talk, out=tmp_path / "out"), workers=2), open_broken)
    assert "In a worker:" in raised.value.__notes__[0] and pools[0].ended
    assert list((tmp_path / "out").iterdir()) == []


def test_an_error_that_cannot_be_carried_keeps_its_name(talk, inline):
    class Odd(Exception):
        pass

    def odd(given: ReplayOptions, say: object) -> None:
        raise Odd("a line\nanother")

    inline()
    with pytest.raises(RuntimeError, match="^Odd: a line\n"):
        run(replace(options(talk), workers=1), odd)  # type: ignore[arg-type]


def test_workers_that_die_while_they_load_end_the_run(talk, inline):
    inline(lambda worker, message: isinstance(message, Loaded))
    with pytest.raises(LoopserveError, match="worker . was ended by SIGKILL while it loaded the model; give fewer"):
        run(replace(options(talk), workers=2), open_fake)


def test_a_worker_with_another_model_is_refused(talk, inline, monkeypatch):
    inline()
    real = InlinePool.next

    def other(self: InlinePool) -> tuple[int, Message]:
        worker, message = real(self)
        if worker == 1 and isinstance(message, Loaded):
            message = replace(message, identity=replace(message.identity, weights="others"))
        return worker, message

    monkeypatch.setattr(InlinePool, "next", other)
    with pytest.raises(LoopserveError, match="worker 2 has another model: .* other weights"):
        run(replace(options(talk), workers=2), open_fake)


def test_progress_names_what_every_worker_is_at_and_counts_to_the_end(talk, tmp_path, inline, monkeypatch, capsys):
    monkeypatch.setattr("loopserve_cli.replay.watch.LINE_SECONDS", 0.0)
    inline(at_turn("x", 2, times=2))
    replayed(options(talk, "full", "loop", history="live"), tmp_path / "out", code=1, workers=2)
    error = capsys.readouterr().err
    assert "1: loads the model" in error and "2: y · full" in error
    last = [line for line in error.splitlines() if " of 12 turns" in line][-1]
    assert last.startswith("12 of 12 turns")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"workers": 0}, "--workers is 0, but must be from 1 to 1,024"),
        ({"workers": 2, "model": ModelOptions(device="cuda:1")}, "--workers takes one GPU after the other, not cuda:1"),
        ({"ray": "auto", "model": ModelOptions(device="cuda:0")}, "--ray takes one GPU after the other, not cuda:0"),
        ({"ray": "somewhere"}, "--ray 'somewhere' is no address; give auto, local or HOST:PORT"),
    ],
)
def test_what_cannot_be_shared_is_refused(changed, line, talk):
    with pytest.raises(UsageError, match=line):
        replace(options(talk), **changed)


def test_shares_of_a_machine(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert shares("cpu", 2) == [Share("cpu", 3)] * 2
    assert shares("cpu", 9) == [Share("cpu", 1)] * 9
    assert shares("auto", 2) == [Share("cuda:0", 3), Share("cuda:1", 3)]
    with pytest.raises(UsageError, match="--workers 4 takes a GPU for each, but torch sees 3 GPUs; give --workers 3"):
        shares("cuda", 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert shares("auto", 2) == [Share("cpu", 3)] * 2
    with pytest.raises(UsageError, match="torch sees no GPU; give --device cpu"):
        shares("cuda", 1)


def test_what_is_said_of_workers():
    assert about([Share("cpu", 4)]) == "1 worker on cpu with 4 threads"
    assert about([Share("cpu", 1)] * 2).startswith(
        "2 workers on cpu with 1 thread each; they share the processor's caches"
    )
    assert about([Share("cuda:0", 2), Share("cuda:1", 2)]).startswith("2 workers on cuda:0 to cuda:1, 2 threads each; ")
    assert reason(-9) == "was ended by SIGKILL (out of memory?)"
    assert reason(-11) == "was ended by SIGSEGV"
    assert reason(1) == "ended with status 1"


def test_processes_share_dialogues_and_one_that_is_killed_is_replaced(tmp_path, capsys):
    died = tmp_path / "died"
    mortal = [("one", "A1"), (f"once {died}", "A2"), ("three", "A3")]
    path = transcript(tmp_path / "talk.jsonl", ("x", mortal), ("y", TALK[:1]))
    given = options(path, "full", "loop")
    found = replayed(given, tmp_path / "spread", workers=2)
    assert died.exists()
    assert replayed(given, tmp_path / "alone") == found
    error = capsys.readouterr().err
    assert "was ended by SIGKILL (out of memory?) at dialogue x, which is tried once more" in error
    assert len(found) == 8 and not any(row["error"] for row in found)


@pytest.mark.slow
def test_processes_that_never_load(talk):
    with pytest.raises(LoopserveError, match=r"worker 1 was ended by SIGKILL \(out of memory\?\) while it loaded"):
        run(replace(options(talk), workers=2), open_and_die)
    with pytest.raises(ModelError, match="^no such model"):
        run(replace(options(talk), workers=2), open_broken)


@pytest.mark.slow
def test_processes_with_a_dialogue_that_kills_them(tmp_path, capsys):
    path = transcript(tmp_path / "talk.jsonl", ("x", [("one", "A"), ("die", "B"), ("three", "C")]), ("y", TALK))
    found = replayed(options(path), tmp_path / "out", code=1, workers=2)
    why = "the worker was ended by SIGKILL (out of memory?), the second one at this dialogue (1 later turn not run)"
    assert [(r["conversation_id"], r["turn"], r["error"]) for r in found] == [
        ("x", 1, None), ("x", 2, why), ("y", 1, None), ("y", 2, None), ("y", 3, None),
    ]  # fmt: skip
