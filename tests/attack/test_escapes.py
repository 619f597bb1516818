"""Escapes from everything that others wrote: no control character reaches the terminal, and no markup is read.

Each command runs under a pseudo-terminal that has no colours and cannot move its cursor, so that whatever is no plain
text came from the file.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_fakes import FULL, ScriptedEngine, make_session
from forked import alone

from loopserve_cli import app
from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.chat import start
from loopserve_cli.chat.repl import step
from loopserve_cli.chat.session import Attachment, Session
from loopserve_cli.chat.toolbar import state_line
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation

MARK = "[red]MARK[/red][link=http://e.example]:smile:"
ACTS = (
    "\x1b]52;c;ZXZpbA==\x07",  # writes to the clipboard
    "\x1b]8;;http://e.example\x1b\\t\x1b]8;;\x1b\\",  # a link
    "\x1b[2J\x1b[1;1H\x1b[31m",  # clears, moves, colours
    "\x1bP$q\x1b\\\x1bc",  # a device control string; a reset
    "\x9b2J\x9d0;title\x9c\x90q\x9c",  # the same in eight bits
    "a\rb\x08\x7f\x05\x0e\x00",  # overwrites
    "\u202egnp\u202c\u2066x\u2069",  # another order
)
EVIL = "".join(ACTS).replace("\x00", "") + MARK
NAME = "\x1b]52;c;eA==\x07\x9b2J\r\u202e\n[red]MARK[bold]"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SECONDS = 200.0  # only what hangs takes as long


def on_terminal(work: Callable[[], int]) -> tuple[int, str]:
    """The exit code of a forked child, and all that its terminal was sent; line ends as newlines."""
    master, slave = pty.openpty()
    child = os.fork()
    if child == 0:
        status = 70
        os.close(master)
        os.login_tty(slave)
        try:
            alone()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(TERM="dumb", NO_COLOR="1", COLUMNS="200", LINES="50")
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
            status = work()
            sys.stdout.flush()
        finally:
            os._exit(status)
    os.close(slave)
    sent, end = b"", time.monotonic() + SECONDS
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        sent += piece
    else:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(master)
    return code, sent.decode("utf-8", "replace").replace("\r\n", "\n")


def clean(text: str) -> None:
    """Nothing in it acts on a terminal, and what was meant as markup is still there."""
    found = RAW.search(text)
    assert found is None, f"{found[0]!r} in {text[max(0, found.start() - 200) : found.end() + 100]!r}"
    assert "MARK" in text, text
    assert "[red]MARK[" in re.sub(r"\s", "", text), text


def said(*arguments: str) -> tuple[int, str]:
    """What a command writes to a terminal."""
    return on_terminal(lambda: app.main(arguments))


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import loopserve_cli.engine.loader  # noqa: F401  (once here, and not in every child)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGUMENTS = (
    (["chat", "--{}"], 2),
    (["{}"], 2),
    (["chat", "hello", "--model", "{}"], 1),
    (["chat", "hello", "--model", "./{}"], 1),
    (["chat", "hello", "--profile", "{}"], 2),
    (["chat", "hello", "--ui", "{}"], 2),
    (["chat", "hello", "--temperature", "{}"], 2),
    (["chat", "hello", "--set", "{}"], 2),
    (["chat", "hello", "--resume", "{}"], 1),
    (["replay", "{}"], 1),
    (["replay", "demo:{}"], 2),
    (["replay", "demo", "--fail-if", "{}"], 2),
    (["replay", "demo", "--profile", "full+{}"], 2),
    (["convert", "{}", "b.jsonl"], 1),
    (["convert", "a", "b", "--to", "{}"], 2),
    (["profiles", "show", "{}"], 2),
    (["profiles", "check", "{}"], 2),
    (["profiles", "check", "{}.toml"], 2),
    (["bench", "turns", "--against", "{}"], 2),
    (["bench", "decode", "--profile", "{}"], 2),
    (["bench", "kernels", "--kernel", "{}"], 2),
    (["models", "--dtype", "{}"], 2),
)


@pytest.mark.parametrize(("words", "code"), ARGUMENTS, ids=[" ".join(words) for words, _ in ARGUMENTS])
@pytest.mark.parametrize("debug", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_words_of_the_command_line(words: list[str], code: int, debug: bool) -> None:
    status, text = said(*([word.format(NAME) for word in words] + ["--debug"] * debug))
    assert status in (1, 2), text
    if "MARK" in text:
        clean(text)
    else:
        assert RAW.search(text) is None, repr(text)
    if not debug:
        assert status == code
        assert text.count("\n") == 1, text


def hostile_toml(path: Path, text: str) -> str:
    path.write_text(text.replace("EVIL", json.dumps(EVIL + "\x7f")), encoding="utf-8")
    return str(path)


POLICIES = '[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n'
TOMLS = (
    "EVIL = 1\n",
    "description = EVIL\n[EVIL]\nx = 1\n",
    'description = "x"\n[prefill]\npolicy = EVIL\n',
    'description = "x"\n[prefill]\npolicy = "dense"\nEVIL = 3\n',
    'description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n[retain]\ntier = EVIL\n',
)


@pytest.mark.parametrize("toml", TOMLS)
def test_errors_in_a_profile(toml: str, tmp_path: Path) -> None:
    file = hostile_toml(tmp_path / "p.toml", toml)
    for words in (["profiles", "check", file], ["profiles", "show", file], ["chat", "hello", "--profile", file]):
        code, text = said(*words)
        assert code == 2
        if "tier" in toml:  # a long value is cut before the mark
            assert RAW.search(text) is None, repr(text)
        else:
            clean(text)


def test_a_profile_that_is_shown(tmp_path: Path) -> None:
    file = hostile_toml(tmp_path / f"{NAME}.toml", "description = EVIL\n" + POLICIES)
    for words in (["profiles", "show", file], ["profiles", "check", file]):
        code, text = said(*words)
        assert code == 0, text
        clean(text)


TALK = [{"role": "user", "content": f"Hello. {EVIL}"}, {"role": "assistant", "content": EVIL}]


def test_a_replay_of_a_hostile_file_under_a_hostile_name(tmp_path: Path) -> None:
    profile = hostile_toml(tmp_path / f"{NAME}.toml", "description = EVIL\n" + POLICIES)
    path = tmp_path / f"{NAME}.jsonl"
    jsonl(path, {"id": EVIL, "messages": TALK, EVIL: 1}, {"id": EVIL, "messages": [{"role": EVIL, "content": "x"}]})
    out = str(tmp_path / "out" / NAME)
    code, text = said("replay", str(path), "--max-new-tokens", "4", "--out", out, "--profile", profile)
    assert code == 0, text
    clean(text)
    assert "summary (" in text
    assert "left out" in text


ROWS: tuple[tuple[object, ...], ...] = (
    ({"loopserve": 1, "id": EVIL, EVIL: 2}, {"role": EVIL, "content": "x"}),
    ({EVIL: 1},),
    ({"messages": [{"role": "user", "content": [{"type": EVIL}]}]},),
    ({"messages": [{"role": "user", "content": EVIL}, {"role": "user", EVIL: EVIL}]},),
    ({"conversations": [{"from": EVIL, "value": "x"}]},),
    ({"loopserve": 1}, {"role": "user", "content": "x", EVIL: EVIL, "stats": {EVIL: EVIL}}),
)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("command", ["convert", "chat", pytest.param("replay", marks=pytest.mark.slow)])
def test_errors_and_warnings_of_a_transcript(rows: tuple[object, ...], command: str, tmp_path: Path) -> None:
    file = str(jsonl(tmp_path / f"{NAME}.jsonl", *rows))
    words = {
        "replay": ["replay", file, "--max-new-tokens", "2"],
        "convert": ["convert", file, f"{NAME}.json", "--to", "openai"],
        "chat": ["chat", "hello", "--resume", file, "--max-new-tokens", "2"],
    }[command]
    _, text = said(*words)
    if command == "chat" and rows == ROWS[-1]:  # nothing is wrong, and nothing of it is shown
        assert RAW.search(text) is None, repr(text)
    else:
        clean(text)


MODEL_FILES: dict[str, Callable[[dict[str, object]], None]] = {
    "architecture": lambda c: c.update(model_type=EVIL, architectures=[EVIL]),
    "layers": lambda c: c.update(layer_types=[EVIL] * 4),
    "activation": lambda c: c.update(hidden_act=EVIL),
    "rope": lambda c: c.update(rope_scaling={"rope_type": EVIL, "type": EVIL}),
    "dtype": lambda c: c.update(torch_dtype=EVIL, dtype=EVIL),
    "quantisation": lambda c: c.update(quantization_config={"quant_method": EVIL}),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", MODEL_FILES)
@pytest.mark.parametrize("debug", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_errors_of_a_models_configuration(what: str, debug: bool, tmp_path: Path) -> None:
    model = tmp_path / NAME
    shutil.copytree(demo_model_folder(), model)
    config = json.loads((model / "config.json").read_text())
    MODEL_FILES[what](config)
    (model / "config.json").write_text(json.dumps(config))
    _, text = said("chat", "hello", "--model", str(model), "--max-new-tokens", "2", *["--debug"] * debug)
    assert RAW.search(text) is None, repr(text)


TEMPLATES = ("{{ raise_exception(EVIL) }}", "{{ EVIL | nothing }}", "{% EVIL %}", "{{ messages[EVIL].x.y }}")


@pytest.mark.parametrize("template", TEMPLATES)
def test_errors_of_a_template(template: str, tmp_path: Path) -> None:
    model = tmp_path / NAME
    shutil.copytree(demo_model_folder(), model)
    (model / "chat_template.jinja").write_text(template.replace("EVIL", json.dumps(EVIL, ensure_ascii=False)))
    code, text = said("chat", "hello", "--model", str(model))
    assert code == 2, text
    assert RAW.search(text) is None, repr(text)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["model", "added_tokens", "pre_tokenizer"])
def test_errors_of_a_tokenizer(part: str, tmp_path: Path) -> None:
    model = tmp_path / NAME
    shutil.copytree(demo_model_folder(), model)
    whole = json.loads((model / "tokenizer.json").read_text())
    whole[part] = {"type": EVIL, EVIL: EVIL}
    (model / "tokenizer.json").write_text(json.dumps(whole))
    code, text = said("chat", "hello", "--model", str(model))
    assert code == 1, text
    assert RAW.search(text) is None, repr(text)


def chatting(lines: tuple[str, ...], resume: Path | None = None, fail: bool = False, ui: str = "dashboard") -> str:
    """What a chat's terminal is sent for these lines; the editor of the input line is left out."""

    def fall(number: int) -> None:
        if fail:
            raise RuntimeError(EVIL)

    def each(session: Session, prompt: object) -> int:
        for line in lines:
            step(session, line)
        return 0

    def child() -> int:
        engine = ScriptedEngine(*[f"Answer {EVIL} and [text](http://e.example)"] * 9, context_limit=100_000)
        engine.model_name = engine.thoughts = EVIL
        engine.at_word = fall
        start.load_conversation = lambda options, err: Conversation(engine, None)  # type: ignore[assignment, arg-type]
        start.run_repl = each  # type: ignore[assignment]
        return start.run(ChatOptions(ModelOptions(), SamplingOptions(), FULL, resume=resume, ui=ui))

    return on_terminal(child)[1].replace("\x1b[?12l\x1b[?25h", "")  # the editor shows the cursor


@pytest.mark.parametrize("ui", ["dashboard", "none"])
def test_a_chat_shows_nothing_that_acts(ui: str, tmp_path: Path) -> None:
    rows = [{"loopserve": 1, "model": EVIL, "id": EVIL}, *TALK, {"role": "user", "content": EVIL}]
    file = jsonl(tmp_path / f"{NAME}.jsonl", *rows)
    attached = "attached\x1b[2J.txt"
    (tmp_path / attached).write_text(EVIL)
    lines = ("/retry", "/stats", "/history", "/params", f"/read {attached}", "/tokens", "/system", "hi", "/undo")
    text = chatting((*lines, f"/{EVIL}", f"/read {EVIL}", f"/profile {EVIL}", f"/load {EVIL}"), resume=file, ui=ui)
    clean(text)
    assert "Answer" in text
    assert "attached" in text


def test_an_error_of_a_turn_shows_nothing_that_acts() -> None:
    text = chatting(("hello",), fail=True)
    clean(text)
    assert "RuntimeError" in text


def test_the_toolbar_is_one_clean_line(tmp_path: Path) -> None:
    session = make_session("x")
    session.conversation.engine.model_name = EVIL  # type: ignore[misc]
    session.attachments.append(Attachment(NAME, "text"))
    line = state_line(session)
    assert RAW.search(line) is None
    assert "\n" not in line
    assert "[red]MARK[bold]" in line
