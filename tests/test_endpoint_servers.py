"""Real servers beside the engine here, each with the demo model: transformers' own, and llama.cpp's from a package.

They are skipped where their packages are not installed: `pip install 'transformers[serving]'`, `pip install xllamacpp`.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gguf_made
import pytest
import tiny

from loopserve_cli.app import main
from loopserve_cli.bundled_files import demo_model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LLAMA_CPP = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.n_parallel = sys.argv[1], int(sys.argv[2]), 8192, 1
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
time.sleep(600)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(words: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """A server's process once it answers, and its address."""
    root = f"http://127.0.0.1:{port}"
    with log.open("wb") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{root}/v1/models", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield root
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for name in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(name, reason="transformers' server needs transformers[serving]")
    port = free_port()
    words = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(demo_model_folder())]
    words += ["--port", str(port), "--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1"]
    with running(words, port, tmp_path_factory.mktemp("transformers") / "log") as root:
        yield root


@pytest.fixture(scope="module")
def llama_cpp_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp, which has llama.cpp's server, is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("llama.cpp")
    tokenizer = AutoTokenizer.from_pretrained(demo_model_folder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "tokenizer", lambda: tokenizer)
        model = AutoModelForCausalLM.from_pretrained(demo_model_folder(), dtype=torch.float32)
        file = gguf_made.write(folder / "demo.gguf", model)
    port = free_port()
    with running([sys.executable, "-c", LLAMA_CPP, str(file), str(port)], port, folder / "log") as root:
        yield root


def replayed(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["replay", "demo", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def check(whole: dict, name: str, turns: int) -> list[dict]:
    """The server says what full attention says, and every figure that a server can tell is there."""
    verdict = whole["summary"][name]["verdict"]
    assert (verdict["same_answers"], verdict["answers"]) == (turns, turns)
    full, own = ([r for r in whole["records"] if r["profile"] == profile] for profile in ("full", name))
    assert [r["tokens_output"] for r in own] == [r["tokens_output"] for r in full]
    assert [r["tokens_logical"] for r in own] == [r["tokens_logical"] for r in full]
    for record in own:
        assert record["error"] is None
        assert (record["tokens_counted_by"], record["finish_reason"]) == ("server", "stop")
        assert 1 <= record["chunks"] < record["tokens_output"]
        assert len(record["itl_ms"]) == record["chunks"] - 1
        assert 0 < record["ttft_ms"] <= record["e2e_ms"]
    return own


def test_transformers_serve_says_what_full_attention_says(transformers_server, capsys):
    words = ["--profile", "full", "--endpoint", f"it={transformers_server}", "--history"]
    own = check(replayed(capsys, *words, "recorded"), "it", 13)
    assert {record["tokens_cached"] for record in own} == {None}
    check(replayed(capsys, *words, "live", "--max-turns", "4"), "it", 4)


def test_llama_cpp_says_what_full_attention_says_and_tells_what_it_kept(llama_cpp_server, capsys):
    own = check(replayed(capsys, "--profile", "full", "--endpoint", f"it={llama_cpp_server}"), "it", 13)
    for before, after in zip(own, own[1:], strict=False):
        assert 0 < after["tokens_cached"] < after["tokens_cached"] + after["tokens_new"]
        assert after["tokens_cached"] > before["tokens_cached"]


def test_both_beside_each_other_with_a_gate(transformers_server, llama_cpp_server, capsys):
    words = ["--endpoint", f"a={transformers_server}", "--endpoint", f"b={llama_cpp_server}", "--max-turns", "3"]
    whole = replayed(capsys, *words, "--fail-if", "same_share < 1")
    assert list(whole["summary"]) == ["a", "b"]
    assert whole["summary"]["b"]["verdict"]["same_answers"] == 3


def test_a_dialogue_that_is_too_long_is_told_in_the_words_of_the_server(llama_cpp_server, tmp_path, capsys):
    long = tmp_path / "long.jsonl"
    message = {"role": "user", "content": "word " * 20_000}
    long.write_text(json.dumps({"id": "long", "messages": [message]}) + "\n")
    assert main(["replay", str(long), "--endpoint", f"it={llama_cpp_server}", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["records"][0]["error"]
    assert "it answered 400" in error
    assert "context" in error
