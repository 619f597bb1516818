from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_fakes import dialogue_of, engine_of, make_session, printed

from loopserve_cli.chat.commands import COMMANDS, dispatch, names
from loopserve_cli.chat.repl import handle
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.transcript import resume


def talked(save: Path | None = None) -> Session:
    session = make_session("one", "two", "three", "four", save=save)
    session.ask("a")
    session.ask("b")
    printed(session)
    return session


def test_undo_takes_the_last_exchange_back_here_and_on_disk(tmp_path: Path) -> None:
    session = talked(tmp_path / "t.jsonl")
    dispatch(session, "/undo")
    assert dialogue_of(session) == [("user", "a"), ("assistant", "one")]
    assert resume(tmp_path / "t.jsonl")[1] == session.conversation.messages
    assert printed(session)[1] == "taken back: b\n"
    dispatch(session, "/undo")
    with pytest.raises(UsageError, match="nothing to take back"):
        dispatch(session, "/undo")


def test_retry_asks_again() -> None:
    session = talked()
    dispatch(session, "/retry")
    assert dialogue_of(session)[2:] == [("user", "b"), ("assistant", "three")]
    assert "temperature is 0" in printed(session)[1]


def test_edit_puts_the_message_into_the_input_line() -> None:
    session = talked()
    dispatch(session, "/edit")
    assert session.next_input == "b"
    assert dialogue_of(session) == [("user", "a"), ("assistant", "one")]


def test_system_is_shown_changed_and_removed(tmp_path: Path) -> None:
    session = talked(tmp_path / "t.jsonl")
    dispatch(session, "/system")
    assert printed(session)[0] == "there is no system prompt\n"
    dispatch(session, "/system Be  brief.\nAnd kind.")
    assert session.conversation.system == "Be  brief.\nAnd kind."
    assert resume(tmp_path / "t.jsonl")[1][0].content == "Be  brief.\nAnd kind."
    session.ask("c")
    assert engine_of(session).held.startswith("\ue000Be  brief.")
    dispatch(session, '/system ""')
    assert session.conversation.system is None
    assert resume(tmp_path / "t.jsonl")[1][0].content == "a"


def test_clear_keeps_the_system_prompt_only(tmp_path: Path) -> None:
    session = talked(tmp_path / "t.jsonl")
    dispatch(session, "/system Be brief.")
    dispatch(session, "/clear")
    assert dialogue_of(session) == [("system", "Be brief.")]
    assert engine_of(session).tokens == []
    assert [m.content for m in resume(tmp_path / "t.jsonl")[1]] == ["Be brief."]


def test_read_attaches_a_file(tmp_path: Path) -> None:
    session = make_session("ok")
    (tmp_path / "my file.txt").write_bytes(b"\xef\xbb\xbfline\r\nline\n")
    dispatch(session, f"/read '{tmp_path / 'my file.txt'}'")
    said = "my file.txt: 10 characters, 10 tokens of 1,000 free, go in front of your next message\n"
    assert printed(session)[1] == said
    session.ask("why?")
    assert engine_of(session).asked == ["line\nline\n\nwhy?"]


def test_save_writes_a_copy_and_replaces_only_its_own(tmp_path: Path) -> None:
    session = talked(tmp_path / "t.jsonl")
    copy = tmp_path / "copy.jsonl"
    dispatch(session, f"/save {copy}")
    assert resume(copy)[1] == session.conversation.messages
    session.ask("c")
    dispatch(session, f"/save {copy}")
    assert resume(copy)[1] == session.conversation.messages
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        dispatch(session, f"/save {taken}")
    assert taken.read_text() == "mine"
    dispatch(session, f"/save {tmp_path / 't.jsonl'}")
    assert "own transcript" in printed(session)[1]


def test_load_goes_on_in_a_new_transcript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    other = tmp_path / "other.json"
    rows = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}]
    other.write_text(json.dumps({"messages": rows}))
    session = talked(tmp_path / "t.jsonl")
    before = session.conversation.messages
    dispatch(session, f"/load {other}")
    assert dialogue_of(session) == [("user", "x"), ("assistant", "y")]
    assert session.unanswered == "z"
    assert resume(tmp_path / "t.jsonl")[1] == before
    assert session.autosave.path is not None
    assert tmp_path / "state" in session.autosave.path.parents
    assert [m.content for m in resume(session.autosave.path)[1]] == ["x", "y", "z"]
    assert engine_of(session).held == "\ue001x\ue003\ue002y\ue003"
    dispatch(session, "/retry")
    assert dialogue_of(session)[2:] == [("user", "z"), ("assistant", "three")]


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("/set temperature 0.8", "temperature", 0.8),
        ("/set top_p 0.9", "top_p", 0.9),
        ("/set top_k 40", "top_k", 40),
        ("/set min_p .05", "min_p", 0.05),
        ("/set repetition_penalty 1.1", "repetition_penalty", 1.1),
        ("/set max_new_tokens 7", "max_new_tokens", 7),
        ("/set seed 3", "seed", 3),
        ("/set stop END", "stop", ("END",)),
        (r"/set stop 'a b' '\n\n'", "stop", ("a b", "\n\n")),
        (r"/set stop \n \t.", "stop", ("\n", "\t.")),
    ],
)
def test_set_reaches_the_next_turn(line: str, name: str, value: object) -> None:
    session = make_session("ok")
    dispatch(session, line)
    session.ask("a")
    assert getattr(engine_of(session).samplings[0], name) == value


def test_set_none_switches_off_and_set_alone_shows_all() -> None:
    session = make_session()
    dispatch(session, "/set seed 3")
    dispatch(session, "/set stop x")
    printed(session)
    dispatch(session, "/set")
    shown = dict(line.strip().split(maxsplit=1) for line in printed(session)[0].splitlines())
    assert [shown[key].split()[0] for key in ("seed", "stop", "temperature")] == ["3", "'x'", "0.0"]
    assert shown["prefill.policy"].split()[0] == "dense"
    dispatch(session, "/set seed none")
    dispatch(session, "/set stop none")
    assert (session.sampling.seed, session.sampling.stop) == (None, ())


def test_profile_settings_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from loopserve_cli.profile import PREFILL_POLICIES

    session = make_session()
    dispatch(session, "/set retain.tier device")
    assert engine_of(session).profile.name == "full+retain.tier=device"
    dispatch(session, "/profile full")
    assert engine_of(session).profile.name == "full"
    monkeypatch.setitem(PREFILL_POLICIES, "dense", ("alpha",))
    dispatch(session, "/set prefill.alpha 0.9")
    assert engine_of(session).profile.prefill.settings == {"alpha": 0.9}
    dispatch(session, "/set alpha 0.8")
    assert engine_of(session).profile.prefill.settings == {"alpha": 0.8}
    printed(session)
    dispatch(session, "/profile")
    assert printed(session)[0].startswith("full+prefill.alpha=0.8: ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/", "name follows the slash"),
        ("/ undo", "name follows the slash"),
        ("/udno", "unknown command /udno; did you mean /undo?"),
        ("/usr/bin/env is a path", "unknown command /usr/bin/env"),
        ("/xyzzyx", "/help lists them"),
        ("/undo 3", "/undo takes no argument"),
        ("/retry", "no message to ask again"),
        ("/edit", "nothing to take back"),
        ("/read", "which file? /read FILE"),
        ("/read /nowhere/at/all", "no such file"),
        ("/read /", "is a folder"),
        ("/read {binary}", "is a binary file"),
        ("/read {latin}", "is not UTF-8"),
        ("/read {empty}", "is empty"),
        ("/read ~nobody-by-that-name/x", "home folder"),
        ("/save", "which file? /save FILE"),
        ("/save {empty}", "nothing to save yet"),
        ("/load {binary}", "is a binary file"),
        ("/load {questions}", "no recorded answers"),
        ("/set temprature 1", "no setting 'temprature'; known: temperature"),
        ("/set temperature hot", "temperature is 'hot', but must be a number"),
        ("/set temperature -1", "temperature is -1.0, but must be from 0 to 100"),
        ("/set top_k 1.5", "top_k is '1.5', but must be a whole number"),
        ("/set temperature nan", "temperature is nan"),
        ("/set stop 'open", "a quote is not closed"),
        ("/set stop ''", "a stop string is empty"),
        ("/set keep.policy nothing", "unknown keep policy 'nothing'"),
        ("/set retain.tier moon", "retain.tier is 'moon'"),
        ("/profile nosuch", "no profile 'nosuch'"),
        ("/help nosuch", "unknown command /nosuch"),
    ],
)
def test_a_wrong_line_is_one_error_and_is_never_sent(line: str, expected: str, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("binary", "latin", "empty", "questions")}
    files["binary"].write_bytes(b"a\0b")
    files["latin"].write_bytes(b"caf\xe9 au lait")
    files["empty"].write_bytes(b"\n")
    files["questions"].write_text('{"session_id": "s", "turns": [{"text": "a"}, {"text": "b"}]}')
    session = make_session("never said")
    with pytest.raises(LoopserveError) as caught:
        handle(session, line.format(**files))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert engine_of(session).asked == []
    assert dialogue_of(session) == []


def test_two_slashes_send_one() -> None:
    session = make_session("a", "b")
    handle(session, "//x is a path")
    assert engine_of(session).asked == ["/x is a path"]
    handle(session, "  plain  ")
    assert engine_of(session).asked[1] == "plain"
    handle(session, "   \n ")
    assert len(engine_of(session).asked) == 2


def test_stats_shows_every_turn_also_those_taken_back() -> None:
    session = make_session("one", "two", "three")
    dispatch(session, "/stats")
    assert printed(session)[0] == "no turn yet\n"
    session.ask("a")
    session.ask("b")
    dispatch(session, "/retry")
    printed(session)
    dispatch(session, "/stats")
    rows = printed(session)[0].splitlines()
    assert [row.split()[0] for row in rows] == ["turn", "1", "2", "2"]
    assert [row.endswith("stop, dropped") for row in rows[1:]] == [False, True, False]
    assert "12 ms" in rows[1]
    assert "rss 3.0 MiB" in rows[1]


def test_tokens_counts_by_writer() -> None:
    session = make_session("four", context_limit=100)
    session.ask("abc")
    dispatch(session, "/system sy")
    printed(session)
    dispatch(session, "/tokens")
    shown = [line.rsplit(maxsplit=1) for line in printed(session)[0].splitlines()]
    assert dict((name.strip(), int(value)) for name, value in shown) == {
        "system prompt": 2,
        "your messages": 3,
        "answers": 4,
        "template": 6,
        "whole dialogue": 15,
        "of it in the cache": 0,
        "context limit": 100,
        "free": 85,
    }


def test_help_names_every_command_and_key() -> None:
    session = make_session()
    dispatch(session, "/?")
    shown = printed(session)[0]
    for command in COMMANDS:
        assert command.usage in shown
        assert command.help in shown
    assert "Alt+Enter" in shown
    dispatch(session, "/help quit")
    assert printed(session)[0] == "/exit: leave (also /quit, /bye)\n"


@pytest.mark.parametrize("name", ["exit", "quit", "bye"])
def test_leaving_has_three_names(name: str) -> None:
    session = make_session()
    dispatch(session, f"/{name}")
    assert session.closing


def test_no_name_is_taken_twice() -> None:
    assert len(set(names())) == len(names())
