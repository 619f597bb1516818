"""The command line as a whole: what reaches the commands, and how errors end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loopserve_cli import __version__, app
from loopserve_cli.bench import TurnsOptions
from loopserve_cli.config import ChatOptions, ModelOptions, ReplayOptions
from loopserve_cli.errors import ContextLimitError, UsageError

HEAVY = ("torch", "transformers", "bitsandbytes", "numpy")
LIGHT_MODULES = (
    "app",
    "edge",
    "flags",
    "profiles_view",
    "completions",
    "defaults",
    "chats.report",
    "config",
    "stats",
    "messages",
    "errors",
    "conversation",
    "transcript",
    "chat",
    "replay",
    "bench",
    "doctor",
    "engine.events",
)


class Recorder:
    """Stands for a command's `run`: keeps its arguments, then returns a code or raises."""

    def __init__(self, outcome: int | BaseException = 0) -> None:
        self.outcome = outcome
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *arguments: object) -> int:
        self.calls.append(arguments)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("loopserve_cli.chat.run", recorder)
    return recorder


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("loopserve_cli.replay.run", recorder)
    return recorder


def chat_options(chat: Recorder) -> ChatOptions:
    [(options,)] = chat.calls
    assert isinstance(options, ChatOptions)
    return options


def replay_options(replay: Recorder) -> ReplayOptions:
    [(options,)] = replay.calls
    assert isinstance(options, ReplayOptions)
    return options


def loopserve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loopserve_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def test_chat_flags_become_options(chat: Recorder) -> None:
    words = "chat --model some/model --dtype bfloat16 --device cuda:1 --quant nf4 --trust-remote-code --ui simple"
    words += " --top-p 0.9 --top-k 40 --min-p 0.05 --repetition-penalty 1.1 --max-new-tokens 7 --seed 3"
    words += " --system Short. --resume old.jsonl --save new.jsonl --stop END --stop ###"
    assert app.main([*words.split(), "What is it?"]) == 0
    options = chat_options(chat)
    model = options.model
    assert (model.model, model.dtype, model.device, model.quant) == ("some/model", "bfloat16", "cuda:1", "nf4")
    assert model.trust_remote_code is True
    sampling = options.sampling
    assert (sampling.top_p, sampling.top_k, sampling.min_p, sampling.repetition_penalty) == (0.9, 40, 0.05, 1.1)
    assert (sampling.max_new_tokens, sampling.seed, sampling.stop) == (7, 3, ("END", "###"))
    assert (options.system, options.resume, options.save) == ("Short.", Path("old.jsonl"), Path("new.jsonl"))
    assert (options.ui, options.message, options.profile.name) == ("simple", "What is it?", "loopserve")


@pytest.mark.parametrize(
    ("words", "temperature"),
    [("chat", 0.0), ("chat -m some/model", 0.7), ("chat --temperature 0.3", 0.3), ("chat -m x --temperature 0", 0.0)],
)
def test_chat_is_greedy_with_the_demo_model_only(chat: Recorder, words: str, temperature: float) -> None:
    assert app.main(words.split()) == 0
    assert chat_options(chat).sampling.temperature == temperature


def test_replay_flags_become_options(replay: Recorder, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n')
    words = f"replay demo my.jsonl -p full -p {other} --history live --repeat 3 --max-turns 2 --out there --json"
    assert app.main([*words.split(), "-m", "some/model", "--fail-if", "ttft_ms.p50 > 900"]) == 0
    options = replay_options(replay)
    assert options.transcripts == ("demo", "my.jsonl")
    assert [profile.name for profile in options.profiles] == ["full", "other"]
    assert (options.history, options.repeat, options.max_turns, options.out) == ("live", 3, 2, Path("there"))
    assert (options.json, options.fail_if) == (True, ("ttft_ms.p50 > 900",))
    assert options.sampling.temperature == 0.0


@pytest.mark.parametrize(("flag", "expected"), [("--turns", (True, False)), ("--markdown", (False, True))])
def test_what_a_replay_shows_of_several_profiles(replay: Recorder, flag: str, expected: tuple[bool, bool]) -> None:
    assert app.main(["replay", "demo", flag]) == 0
    options = replay_options(replay)
    assert (options.turns, options.markdown) == expected


def test_set_changes_the_profile_and_its_name(chat: Recorder) -> None:
    assert app.main(["chat", "--set", "retain.tier=device"]) == 0
    assert chat_options(chat).profile.name == "loopserve+retain.tier=device"


def test_the_commands_exit_code_is_the_programs(replay: Recorder) -> None:
    replay.outcome = 3
    assert app.main(["replay", "demo"]) == 3


def test_convert_writes_the_other_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.json"
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    source.write_text(json.dumps({"messages": messages}) + "\n")
    assert app.main(["convert", str(source), str(target), "--to", "sharegpt"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{target}: 1 dialogue written\n")
    [dialogue] = json.loads(target.read_text())
    assert [turn["value"] for turn in dialogue["conversations"]] == ["Who?", "Me."]
    before = target.read_bytes()
    assert app.main(["convert", str(source), str(target)]) == 1
    assert target.read_bytes() == before
    assert app.main(["convert", str(source), str(target), "--overwrite"]) == 0


def test_bench_turns_flags_become_options(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("loopserve_cli.bench.run_turns", recorder)
    words = "bench turns --against transformers --tokens 900 --new-tokens 8 --rounds 2 --turns 3 -m some/model --json"
    assert app.main(words.split()) == 0
    expected = TurnsOptions(ModelOptions("some/model"), "transformers", 900, 8, 2, 3, json=True)
    assert recorder.calls == [(expected,)]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("nope", "No such command 'nope'; see loopserve --help"),
        ("replay", "Missing argument 'TRANSCRIPT'; see loopserve replay --help"),
        ("chat --nope", "No such option: --nope"),
        ("replay demo --repeat x", "Invalid value for '--repeat'"),
        ("replay demo --repeat 0", "--repeat is 0, but must be from 1 to 1,000,000"),
        ("replay demo --max-turns 0", "--max-turns is 0, but must be from 1 to 16777216"),
        ("replay demo --history made-up", "unknown --history 'made-up'; choose one of recorded, live"),
        ("chat --ui pretty", "unknown --ui 'pretty'; choose one of dashboard, simple, none"),
        ("chat --top-p 2", "top_p is 2.0, but must be from 0 to 1"),
        ("chat --temperature -1", "temperature is -1.0, but must be from 0 to 100"),
        ("chat --max-new-tokens 0", "max_new_tokens is 0, but must be from 1"),
        ("chat --dtype int3", "unknown dtype 'int3'; choose one of auto, float32, float16, bfloat16"),
        ("chat --quant q4", "unknown quantisation 'q4'; choose one of nf4, int8"),
        ("chat --device tpu", "unknown device 'tpu'; choose auto, cpu, cuda or cuda:N"),
        ("chat --profile nope", "no profile 'nope'; known: a-shape, adakv, expected-attention,"),
        ("chat --set alpha", "--set 'alpha' is not SECTION.KEY=VALUE"),
        ("profiles check pyproject.ini", "pyproject.ini: a profile is a .toml file"),
        ("profiles check nowhere.toml", "nowhere.toml: no such file; check the path"),
    ],
)
def test_wrong_usage_is_one_line_and_two(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"loopserve: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("wrong"), 2, "loopserve: wrong\n"),
        (ContextLimitError("too long"), 1, "loopserve: too long\n"),
        (
            ValueError("first\nsecond"),
            1,
            "loopserve: ValueError: first (run again with --debug for the traceback)\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_in_a_command(
    error: BaseException, code: int, line: str, chat: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.outcome = error
    assert app.main(["chat"]) == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("words", ["--debug chat", "chat --debug"])
def test_debug_shows_the_traceback(words: str, chat: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    chat.outcome = ValueError("broken")
    assert app.main(words.split()) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "ValueError: broken" in err


def test_debug_behind_two_dashes_is_a_message(chat: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    chat.outcome = ValueError("broken")
    assert app.main(["chat", "--", "--debug"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert [options.message for (options,) in chat.calls] == ["--debug"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", ["", "bench", "profiles", "--help", "chat --help"])
def test_without_a_command_the_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(words.split()) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: loopserve")
    assert err == ""


def test_version_through_the_module() -> None:
    finished = loopserve("--version")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"loopserve {__version__}\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not count a child's processor time")
def test_help_is_quick() -> None:
    def seconds() -> float:
        before = os.times()
        assert loopserve("--help").returncode == 0
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    # Processor time, the best of several: on a busy machine the clock on the wall tells of the others' work.
    assert min(seconds() for _ in range(3)) < 0.4


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, loopserve_cli.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)
    assert (finished.stdout, finished.stderr) == ("[]\n", "")


def test_letters_that_the_output_s_encoding_lacks_end_nothing(tmp_path: Path) -> None:
    text = Path("profiles/full.toml").read_text(encoding="utf-8").replace("full attention", "volle Länge")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "loopserve_cli", "profiles", "show", str(tmp_path / "mine.toml")]
    environ = os.environ | {"PYTHONIOENCODING": "ascii"}
    finished = subprocess.run(command, capture_output=True, env=environ, text=True, check=False, timeout=240)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert r"volle L\xe4nge" in finished.stdout


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "loopserve_cli", "profiles", "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=240) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("redirect", "complaint"),
    [
        (">&-", "loopserve: standard output is closed, and answers go there"),
        (">/dev/full", "loopserve: OSError: [Errno 28] No space left on device"),
    ],
)
def test_output_that_goes_nowhere_is_an_error(redirect: str, complaint: str) -> None:
    command = f"{sys.executable} -m loopserve_cli profiles list {redirect}"
    finished = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False, timeout=240)
    assert finished.returncode == 1
    assert finished.stderr.startswith(complaint)
    assert finished.stderr.count("\n") == 1


def test_special_tokens_are_text_unless_they_are_let_through(chat: Recorder, replay: Recorder) -> None:
    app.main(["chat", "hi"]), app.main(["chat", "hi", "--special-tokens"])
    app.main(["replay", "demo"]), app.main(["replay", "demo", "--special-tokens"])
    assert [options.special_tokens for (options,) in [*chat.calls, *replay.calls]] == [False, True, False, True]  # type: ignore[attr-defined]
