"""What a shell completes to, asked as its script asks; and --resume, whose value may be left out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loopserve_cli import app, completions
from loopserve_cli.chat_command import NEWEST, with_newest
from loopserve_cli.config import ChatOptions
from loopserve_cli.messages import Message
from loopserve_cli.profile import profile_names
from loopserve_cli.transcript import Header, TranscriptWriter

Tab = Callable[..., list[str]]


@pytest.fixture
def tab(capsys: pytest.CaptureFixture[str]) -> Tab:
    """What Tab gives behind words, the last of which is begun."""

    def press(*words: str, shell: str = "bash") -> list[str]:
        line = " ".join(["loopserve", *words])
        asking = {"COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        if shell == "fish":
            asking = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**asking, "_LOOPSERVE_COMPLETE": f"complete_{shell}"}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                app.main([])
        assert not left.value.code
        out, err = capsys.readouterr()
        assert err == ""
        return out.split("\n")[:-1] if out.strip() else []

    return press


def test_profiles(tab: Tab) -> None:
    for words in (["chat", "--profile"], ["replay", "demo", "-p"], ["profiles", "show"]):
        assert tab(*words, "") == profile_names()
        assert tab(*words, "loop") == ["loopserve", "loopserve-prefill"]
    assert any(line.startswith("snapkv\t") and len(line) > 20 for line in tab("chat", "-p", "snap", shell="fish"))


def test_settings(tab: Tab) -> None:
    keys = tab("chat", "--set", "")
    assert {"prefill.policy=", "prefill.alpha=", "keep.budget=", "retain.tier="} <= set(keys)
    assert tab("replay", "demo", "--set", "keep.f") == ["keep.first=", "keep.follow=", "keep.floor=", "keep.future="]
    assert tab("chat", "--set", "retain") == ["retain.tier=device", "retain.tier=host", "retain.tier=evict"]
    # Two, so that no shell puts a blank behind the "=".
    assert tab("chat", "--set", "prefill.al") == ["prefill.alpha=", "prefill.alpha=0.95"]
    assert tab("profiles", "show", "full", "--set", "keep.policy=s") == ["keep.policy=streaming", "keep.policy=snapkv"]
    assert tab("chat", "--set", "nosuch.key=") == tab("chat", "--set", "keep.nosuch=") == []


def test_models(tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub" / "models--some--model").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert {"./mine", "demo", "some/model"} <= set(tab("chat", "-m", ""))
    assert tab("replay", "demo", "--model", "so") == ["some/model"]
    assert "random:Llama-3.1-8B" in tab("chat", "--model", "ran")


def test_dialogues(tab: Tab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "loopserve" / "transcripts"
    assert tab("chat", "--resume", "") == []
    for age, name in enumerate(("20260302-1", "20260301-1", "20260301-2")):
        messages = [Message("user", f"Question {age}\nof many?")]
        TranscriptWriter(folder / f"{name}.jsonl", Header(), messages=messages).close()
        os.utime(folder / f"{name}.jsonl", (1e9 - age, 1e9 - age))
    (folder / "20260303-1.jsonl").write_text("broken")
    assert tab("chat", "--resume", "") == ["20260302-1", "20260301-1", "20260301-2"]
    assert tab("chat", "--resume", "20260301") == ["20260301-1", "20260301-2"]
    assert "20260302-1\tQuestion 0 of many?" in tab("chat", "--resume", "2", shell="fish")
    monkeypatch.setattr(completions, "MOST_DIALOGUES", 2)
    assert len(tab("chat", "--resume", "")) == 2


def test_words_of_a_flag(tab: Tab) -> None:
    assert tab("chat", "--ui", "") == ["dashboard", "simple", "none"]
    assert tab("chat", "--resume", "x", "--prof") == ["--profile"]
    assert tab("chat") == ["chat", "chats"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    with pytest.raises(SystemExit) as left:
        app.main(["--show-completion"])
    assert not left.value.code
    assert "_LOOPSERVE_COMPLETE=complete_" + shell in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count a child's processor time")
@pytest.mark.parametrize("words", ["chat --profile ", "chat --set ", "chat --model ", "chat --resume "])
def test_a_tab_is_quick_and_loads_nothing_heavy(words: str, tmp_path: Path) -> None:
    code = f"import sys, atexit; heavy = {HEAVY!r}\n"
    code += "atexit.register(lambda: print([module for module in heavy if module in sys.modules]))\n"
    code += "from loopserve_cli.app import main; sys.exit(main())"
    asked = {"COMP_WORDS": f"loopserve {words}", "COMP_CWORD": "3", "_LOOPSERVE_COMPLETE": "complete_bash"}
    environ = os.environ | asked | {"XDG_STATE_HOME": str(tmp_path)}

    def seconds() -> float:
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
        after = os.times()
        assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "[]", "")
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


HEAVY = ("torch", "transformers", "numpy", "prompt_toolkit")
TAKES = {"--model", "-m", "--resume", "--system"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--resume", "--resume NEWEST"),
        ("--resume a.jsonl", "--resume a.jsonl"),
        ("--resume -", "--resume -"),
        ("--resume=a.jsonl hi", "--resume=a.jsonl hi"),
        ("hi --resume", "hi --resume NEWEST"),
        ("--resume --ui none", "--resume NEWEST --ui none"),
        ("--resume -m demo", "--resume NEWEST -m demo"),
        ("--resume -- hi", "--resume NEWEST -- hi"),
        ("-- --resume", "-- --resume"),
        ("--system --resume hi", "--system --resume hi"),
        ("-m --resume", "-m --resume"),
        ("", ""),
    ],
)
def test_resume_gets_a_value_where_it_has_none(words: str, expected: str) -> None:
    assert " ".join(with_newest(words.split(), TAKES)).replace(NEWEST, "NEWEST") == expected


@pytest.mark.parametrize(
    ("words", "resume", "newest", "message"),
    [
        ("--resume", None, True, None),
        ("--resume a.jsonl", Path("a.jsonl"), False, None),
        ("--resume --ui none hi", None, True, "hi"),
        ("hi --resume", None, True, "hi"),
        ("--resume -- hi", None, True, "hi"),
        ("--system --resume hi", None, False, "hi"),
        ("hi", None, False, "hi"),
    ],
)
def test_resume_alone_reaches_chat(
    words: str, resume: Path | None, newest: bool, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[ChatOptions] = []
    monkeypatch.setattr("loopserve_cli.chat.run", lambda options: calls.append(options) or 0)
    assert app.main(["chat", *words.split()]) == 0
    assert (calls[0].resume, calls[0].resume_newest, calls[0].message) == (resume, newest, message)
