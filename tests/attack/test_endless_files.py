"""Files without an end, at every place where a file is named: one line, the right exit code, within seconds."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import fork

from loopserve_cli import app
from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.chat.attach import read_text
from loopserve_cli.errors import LoopserveError

SECONDS = 30.0
GIB = 2**30
KINDS = ("zero", "fifo", "sparse", "bomb", "folder", "socket", "tty", "null", "memory", "full")
PLACES: dict[str, list[str]] = {
    "resume": ["chat", "hello", "--resume", "{}"],
    "save": ["chat", "hello", "--save", "{}"],
    "profile": ["chat", "hello", "--profile", "{}.toml"],
    "model": ["chat", "hello", "--model", "{}"],
    "gguf": ["chat", "hello", "--model", "{}.gguf"],
    "replay": ["replay", "{}"],
    "replay-profile": ["replay", "demo", "--profile", "{}.toml"],
    "out": ["replay", "demo", "--out", "{}"],
    "convert": ["convert", "{}", "out.jsonl"],
    "convert-to": ["convert", "talk.jsonl", "{}"],
    "convert-over": ["convert", "talk.jsonl", "{}", "--overwrite", "--to", "openai"],
    "check": ["profiles", "check", "{}.toml"],
    "show": ["profiles", "show", "{}.toml"],
}
# A name that may lead there: what is written to the null device is wanted gone, and an empty folder takes records.
FINE = {("save", "null"), ("convert-to", "null"), ("convert-over", "null"), ("out", "folder")}
FINE |= {("convert-over", "sparse"), ("convert-over", "bomb")}  # a file like others: it is replaced
TALK = '{"loopserve": 1}\n{"role": "user", "content": "hi"}\n{"role": "assistant", "content": "yes"}\n'


def make(kind: str, path: Path) -> None:
    """What has no end, is none of ours to read, or unpacks to very much."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 10 * GIB)
    elif kind == "bomb":
        with gzip.open(path, "wb", compresslevel=1) as packed:
            for _ in range(1100):
                packed.write(bytes(2**20))
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
        os.chdir(here)
    else:
        names = {"zero": "/dev/zero", "tty": "/dev/tty", "null": "/dev/null", "full": "/dev/full"}
        path.symlink_to(names.get(kind, "/proc/self/mem"))


def tried(work: Callable[[], int], folder: Path, memory: int = 2 * GIB) -> tuple[int, str, float]:
    """The exit code (minus a signal), what was written, and the seconds, of a child of this process."""
    out = folder / "output"

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory,) * 2)
        signal.alarm(int(SECONDS) + 1)
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(handle, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        os.chdir(folder)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    start = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(fork(child), 0)[1])
    return status, out.read_text(errors="replace"), time.monotonic() - start


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def wrong(code: int, text: str, seconds: float) -> str | None:
    """What is not as a refusal should be."""
    if code not in (1, 2) or seconds > SECONDS:
        return f"ended with {code} after {seconds:.1f} s: {text[-300:]}"
    lines = [line for line in text.splitlines() if line.startswith("loopserve: ")]
    if len(lines) != 1 or "Traceback" in text or "--debug" in text or len(text) > 1000:
        return f"said: {text[-500:]}"
    return None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "talk.jsonl").write_text(TALK)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_refuses_it(kind: str, folder: Path) -> None:
    path = folder / kind
    make(kind, path)
    for end in (".toml", ".gguf"):
        (folder / f"{kind}{end}").symlink_to(path)
    found = []
    places = [place for place in PLACES if (place, kind) not in FINE]
    for place in places:
        arguments = [word.format(path) for word in PLACES[place]]
        problem = wrong(*tried(lambda arguments=arguments: app.main(arguments), folder))  # type: ignore[misc]
        found += [f"{place}: {problem}"] * (problem is not None)
    print(f"{kind}: {len(places)} trials, {len(found)} wrong")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", KINDS)
def test_read_refuses_it(kind: str, folder: Path) -> None:
    path = folder / kind
    make(kind, path)
    start = time.monotonic()
    with pytest.raises(LoopserveError) as raised:
        read_text(path)
    assert time.monotonic() - start < SECONDS
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


FILES_OF_MODEL = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "adapter_config.json",
    "model.gguf",
)


@pytest.mark.parametrize(
    "kind", ["fifo", "sparse", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("zero", "tty"))]
)
def test_a_model_folder_with_it_is_refused(kind: str, folder: Path) -> None:
    import loopserve_cli.engine.loader  # noqa: F401  (once here, and not in every child)

    found = []
    for number, name in enumerate(FILES_OF_MODEL):
        model = folder / f"model{number}"
        shutil.copytree(demo_model_folder(), model)
        if name.endswith(("gguf", "adapter_config.json")):
            for file in ("config.json", "model.safetensors"):
                (model / file).unlink()
        (model / name).unlink(missing_ok=True)
        make(kind, model / name)
        arguments = ["chat", "hello", "--model", str(model)]
        memory = 12 * GIB if name == "model.safetensors" else 2 * GIB  # it is mapped, which takes none
        problem = wrong(*tried(lambda arguments=arguments: app.main(arguments), folder, memory))  # type: ignore[misc]
        found += [f"{name}: {problem}"] * (problem is not None)
    print(f"{kind}: {len(FILES_OF_MODEL)} trials, {len(found)} wrong")
    assert not found, "\n".join(found)
