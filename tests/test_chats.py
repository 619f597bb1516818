"""`loopserve chats` and `--resume` alone: which dialogues there are, what was said in them, and which is the newest."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from loopserve_cli import app
from loopserve_cli.chat import resumed
from loopserve_cli.chats import listing, report
from loopserve_cli.chats.listing import Saved, look, named, newest, saved_files
from loopserve_cli.chats.report import moment
from loopserve_cli.chats.search import search
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.errors import LoopserveError, TranscriptError
from loopserve_cli.messages import Message
from loopserve_cli.output import CleanConsole
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import Header, TranscriptWriter, resume
from loopserve_cli.transcript.lock import in_use


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state" / "loopserve" / "transcripts"


def talk(folder: Path, name: str, *said: str, age: float = 0, model: str = "demo", system: str | None = None) -> Path:
    """A saved dialogue of `said`, questions and answers in turn, last written `age` seconds ago."""
    record = TurnRecord(profile="full", ttft_ms=1.5, itl_ms=(1.0, 2.0))
    messages = [] if system is None else [Message("system", system)]
    for number, text in enumerate(said):
        messages.append(Message("assistant", text, record=record) if number % 2 else Message("user", text))
    path = folder / f"{name}.jsonl"
    TranscriptWriter(path, Header(model, "full"), messages=messages).close()
    when = time.time() - age
    os.utime(path, (when, when))
    return path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert app.main(["chats", "--json", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_the_newest_stands_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk(folder, "b", "Hello.", "Hi.", "And?", age=50, model="some/model")
    talk(folder, "a", "The room\nof Miro?", "417.", age=100, system="Be brief.")
    document = listed(capsys)
    assert (document["command"], document["folder"], document["broken"]) == ("chats", str(folder), [])
    rows = document["chats"]
    assert [(row["name"], row["turns"], row["model"], row["first"]) for row in rows] == [
        ("b", 2, "some/model", "Hello."),
        ("a", 1, "demo", "The room\nof Miro?"),
    ]
    assert rows[0]["file"] == str(folder / "b.jsonl") and rows[0]["profile"] == "full"
    assert abs(time.time() - 50 - datetime.fromisoformat(rows[0]["updated"]).timestamp()) < 2
    assert [row["in_use"] for row in rows] == [False, False]


def test_with_nothing_saved_it_says_where_it_looked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["chats"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"there is no saved dialogue in {folder} yet; `loopserve chat` begins one\n")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_first_message_gives_way_and_nothing_else(folder: Path, width: int) -> None:
    long = "What was said about the harbour of the old town, and by whom? " * 3
    talk(folder, "20260131-090000", long, "Nothing.")
    talk(folder, "20260131-090000-2", "Short.", model="an-owner/a-model-with-a-long-name", age=86400 * 900)
    rows = [look(path) for path in saved_files()]
    file = io.StringIO()
    CleanConsole(file=file, width=width).print(report.table(rows, width))
    head, first, second = file.getvalue().splitlines()
    assert all(len(line) <= width for line in (head, first, second))
    with_model = width >= 80
    assert head.split() == f"name last said turns {'model' if with_model else ''} first message".split()
    assert first.startswith("20260131-090000    ") and first.rstrip().endswith("…")
    assert f"{rows[0].updated:%H:%M}" in first and "What was said" in first
    assert second.startswith("20260131-090000-2  ") and f"{rows[1].updated:%Y-%m-%d}" in second
    assert second.rstrip().endswith("Short.")
    assert ("an-owner/a-model-wi…" in second) == with_model


def test_times_are_as_short_as_they_can_be() -> None:
    now = datetime(2026, 11, 25, 14, 0)
    assert moment(datetime(2026, 11, 25, 9, 5), now) == "09:05"
    assert moment(datetime(2026, 3, 1, 9, 5), now) == "01 Mar 09:05"
    assert moment(datetime(2025, 11, 25, 9, 5), now) == "2025-11-25"


def test_a_dialogue_that_a_chat_has_open_is_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = talk(folder, "free", "Hello.", age=60)
    held = talk(folder, "held", "Hi.")
    code = "import sys; from pathlib import Path; from loopserve_cli.transcript import resume\n"
    code += "kept = resume(Path(sys.argv[1]), alone=True); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as chat:
        assert chat.stdout is not None and chat.stdin is not None
        assert chat.stdout.readline() == "open\n"
        assert [(row["name"], row["in_use"]) for row in listed(capsys)["chats"]] == [("held", True), ("free", False)]
        assert app.main(["chats"]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines()[1].split()[:3] == ["held", "in", "use"]
        assert err == "go on with: loopserve chat --resume free\n"
        # The newest is not passed over: who has it is told.
        assert app.main(["chat", "hello", "--resume"]) == 1
        assert f"loopserve: {held}: is open in another chat" in capsys.readouterr().err
        chat.stdin.close()
    assert not in_use(held) and not in_use(free) and not in_use(folder / "nowhere")


def test_a_glance_at_a_file_keeps_no_chat_from_opening_it(folder: Path) -> None:
    import fcntl

    path = talk(folder, "a", "Hello.")
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loopserve_cli.transcript.lock.time.sleep", lambda _seconds: os.close(handle))
        *_, writer = resume(path, alone=True)
    assert writer.locked
    writer.close()


def test_broken_files_are_named_in_a_line_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk(folder, "good", "Hello.")
    broken = {
        "empty": b"",
        "other": b'{"messages": []}\n',
        "cut": b'{"loopserve": 1, "mod',
        "new": b'{"loopserve": 9}\n',
    }
    for age, (name, data) in enumerate(broken.items()):
        (folder / f"{name}.jsonl").write_bytes(data)
        os.utime(folder / f"{name}.jsonl", (1e9 - age, 1e9 - age))
    (folder / "folder.jsonl").mkdir()
    os.utime(folder / "folder.jsonl", (1e8, 1e8))
    (folder / "nowhere.jsonl").symlink_to(folder / "gone")
    (folder / "notes.txt").write_text("not looked at")
    assert app.main(["chats"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["name", "good"]
    assert err.splitlines() == [
        f"not a dialogue: {folder}/empty.jsonl: is empty; there is no dialogue in it",
        f"not a dialogue: {folder}/other.jsonl: is not a loopserve transcript; move it elsewhere",
        f"not a dialogue: {folder}/cut.jsonl:1: not valid JSON at column 18 "
        "(Unterminated string starting at); mend the line or remove it",
        f"not a dialogue: {folder}/new.jsonl:1: loopserve is 9, but this program reads version 1; update loopserve",
        f"not a dialogue: {folder}/folder.jsonl: is no regular file; move it elsewhere",
        "go on with: loopserve chat --resume good",
    ]
    assert len(listed(capsys)["broken"]) == 5


def test_turns_are_counted_across_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = talk(folder, "a", *["x" * 37, 'y {"role": "user"} \n'] * 40)
    for block in (70, 71, 100, 257, 1 << 20):
        monkeypatch.setattr(listing, "BLOCK", block)
        assert look(path).turns == 40


@pytest.mark.parametrize("begin", ['say "hi"', "back\\slash", "naïve ü \U0001f600", "line\nline", "tab\tquote\\"])
def test_a_long_first_message_is_read_only_at_its_beginning(folder: Path, begin: str) -> None:
    for filler in ("x", "é", '"', "\\", "\n"):
        first = look(talk(folder, f"{ord(filler)}", begin + filler * 10_000, "Noted.")).first
        assert first is not None and first.startswith(begin) and 500 < len(first) < 5000


def test_escapes_that_are_cut_off_are_left_out(folder: Path) -> None:
    path = talk(folder, "a", "Hello.")
    head = path.read_bytes().split(b"\n")[0] + b"\n"
    for length in range(listing.MESSAGE_HEAD - 40, listing.MESSAGE_HEAD - 20):
        path.write_bytes(head + b'{"role": "user", "content": "' + b"x" * length + b'\\ud83d\\ude00"}\n')
        first = look(path).first
        assert first is not None and first.startswith("x" * 100)
        first.encode()


def test_all_words_are_searched_in_any_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk(folder, "rooms", "The room of Miro is 417.", "Noted.", "Where is Élodie?", "In the HARBOUR.")
    talk(folder, "half", "The room of Ada is 3.", "Noted.", age=60)
    talk(folder, "system", "Hello.", "Hi.", age=90, system="You are a harbour master in a room.")
    document = listed(capsys, "harbour", "ROOM")
    assert document["words"] == ["harbour", "ROOM"]
    assert {row["name"]: [tuple(m.values()) for m in row["matches"]] for row in document["chats"]} == {
        "rooms": [(1, "user", "The room of Miro is 417."), (2, "assistant", "In the HARBOUR.")],
        "system": [(0, "system", "You are a harbour master in a room.")],
    }
    assert [row["name"] for row in listed(capsys, "élodie")["chats"]] == ["rooms"]
    assert [row["name"] for row in listed(capsys, "room of ada")["chats"]] == ["half"]
    # What a turn measured, and the words of the format itself, are no messages.
    assert listed(capsys, "ttft_ms")["chats"] == listed(capsys, "assistant")["chats"] == []


@pytest.mark.parametrize("width", [60, 80, 120])
def test_where_a_word_stands_is_shown(folder: Path, width: int) -> None:
    path = talk(folder, "long", "Hello.", "Hi.", "x " * 200 + "the\nHarbour of Ib " + "y " * 200, "Noted.")
    matches = search(path, ["harbour"])
    file = io.StringIO()
    out = CleanConsole(file=file, width=width)
    report.show(out, CleanConsole(file=io.StringIO()), ["harbour"], [(look(path), matches)], [])
    first, second = file.getvalue().splitlines()
    assert first == f"long  {moment(look(path).updated)}  2 turns, demo"
    assert second.startswith("  turn 2, you: …x x x x x x the Harbour of Ib y y ") and len(second) <= width


def test_words_are_found_however_they_are_escaped(folder: Path) -> None:
    path = talk(folder, "a", 'a "quoted" word\\path', "Noted.")
    assert search(path, ['"QUOTED"']) and search(path, ["WORD\\path"])
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(lines[0] + b'\n{"role":"user","content":"Gr\\u00fc\\u00dfe"}\n')
    assert [m.text for m in search(path, ["grüße"])] == ["Grüße"]


def test_no_dialogue_with_the_words_is_no_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk(folder, "a", "Hello.")
    assert app.main(["chats", "zebra", "yak"]) == 0
    assert capsys.readouterr() == ("", "no saved dialogue holds zebra and yak\n")
    assert [row["name"] for row in listed(capsys, " ")["chats"]] == ["a"]


def test_a_damaged_line_is_told_and_a_cut_off_one_is_not(folder: Path) -> None:
    path = talk(folder, "a", "Hello.", "Hi.")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"role": "user", "content": "Hel')
    assert [m.turn for m in search(path, ["hel"])] == [1]
    path.write_bytes(whole.replace(b'"Hello."}', b'"Hello."'))
    with pytest.raises(TranscriptError, match=r"a.jsonl:2: not valid JSON at column"):
        search(path, ["hello"])


def test_listing_reads_no_measurements(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of long dialogues are listed at once: only heads are parsed."""
    for number in range(3):
        talk(folder, str(number), *["A question.", "An answer."] * 30)
    parsed: list[int] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text, **more: parsed.append(len(text)) or loads(text, **more))
    assert [look(path).turns for path in saved_files()] == [30, 30, 30]
    assert len(parsed) == 6 and max(parsed) < 300


def options(**given: object) -> ChatOptions:
    return ChatOptions(ModelOptions(), SamplingOptions(), load_profile("full"), **given)  # type: ignore[arg-type]


def test_resume_alone_is_the_newest_with_something_in_it(folder: Path) -> None:
    talk(folder, "old", "The room of Miro is 417.", "Noted.", age=60)
    talk(folder, "new", "What " + "about " * 20, "Hm.", "And?", "Yes.", age=30)
    talk(folder, "silent")
    told: list[str] = []
    taken = resumed.resolved(options(resume_newest=True), told.append)
    assert taken == options(resume=folder / "new.jsonl")
    when = moment(look(folder / "new.jsonl").updated)
    assert told == [f"going on with new ({when}, 2 turns): What about about about …"]


def test_resume_alone_with_nothing_saved_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["chat", "--resume"]) == 1
    assert capsys.readouterr().err == (
        f"loopserve: there is no saved dialogue in {folder} yet; `loopserve chat` begins one\n"
    )


def test_resume_alone_does_not_pass_over_a_damaged_one(folder: Path) -> None:
    talk(folder, "old", "Hello.", age=60)
    (folder / "new.jsonl").write_bytes(b"no JSON\n")
    with pytest.raises(TranscriptError, match=r"new.jsonl:1: not valid JSON"):
        newest()


def test_a_name_of_the_list_is_found_unless_a_file_here_has_it(folder: Path) -> None:
    path = talk(folder, "a", "Hello.")
    for name in ("a", "a.jsonl"):
        assert resumed.resolved(options(resume=Path(name)), pytest.fail).resume == path
    Path("a.jsonl").write_text("here")
    assert resumed.resolved(options(resume=Path("a.jsonl")), pytest.fail).resume == Path("a.jsonl")
    assert resumed.resolved(options(resume=Path("./b")), pytest.fail).resume == Path("b")
    assert named("../transcripts/a") is named("..") is named("") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_told(folder: Path) -> None:
    talk(folder, "a", "Hello.")
    folder.chmod(0)
    try:
        with pytest.raises(LoopserveError, match="cannot be read: Permission denied"):
            saved_files()
    finally:
        folder.chmod(0o700)


def test_a_dialogue_is_known_by_its_name() -> None:
    saved = Saved(Path("/x/20260131-090000.jsonl"), datetime(2026, 1, 31), Header(), 0, None, False)
    assert (saved.name, saved.opening) == ("20260131-090000", "(nothing said)")
