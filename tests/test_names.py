"""Names of models: a wrong one is told at once, with the nearest, and the network is asked once or never."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import hub, names, sources
from loopserve_cli.errors import ModelError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an empty cache, with a network that must not be asked."""
    from huggingface_hub import HfApi, constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", None)
    return tmp_path


def cached(place: Path, name: str, *files: str) -> Path:
    """A model in the cache as huggingface_hub lays it out: the demo's files, all or those named."""
    folder = place / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    for file in demo_model_folder().iterdir():
        if file.is_file() and (not files or file.name in files):
            shutil.copy(file, snapshot / file.name)
    return snapshot


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """The hub answers so, and each name it was asked for is noted."""
    from huggingface_hub import HfApi

    asked: list[str] = []

    def model_info(self: Any, name: str, timeout: float) -> Any:
        asked.append(name)
        return answer(timeout)

    monkeypatch.setattr(HfApi, "model_info", model_info)
    return asked


def refused(name: str) -> str:
    with pytest.raises(ModelError) as caught:
        names.require(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["dem", "demoo", "Demo", "dmeo"])
def test_a_slip_is_told_without_a_network(name: str, place: Path) -> None:
    assert refused(name) == f"no model {name!r}; did you mean demo? `loopserve models` lists what is here"


def test_what_is_known_is_suggested(place: Path) -> None:
    cached(place, "acme/Parrot-7B-Instruct")
    (place / "nightly").mkdir()
    (place / "nightly" / "config.json").write_text("{}")
    (place / "owl-q4.gguf").write_text("")
    assert "did you mean acme/Parrot-7B-Instruct?" in refused("parrot-7b-instrct")
    assert "did you mean ./nightly?" in refused("nightli")
    assert "did you mean ./owl-q4.gguf?" in refused("owl-q4")
    assert "did you mean random:Llama-3.1-8B?" in refused("randm:Llama-3.1-8B")
    assert "no model file './owl-q5.gguf'; did you mean ./owl-q4.gguf?" in refused("./owl-q5.gguf")
    assert "no model 'an owl'; give a hub name" in refused("an owl")


@pytest.mark.parametrize("name", ["a" * 5000, "./" + "a" * 5000, "a/" * 3000])
def test_a_name_too_long_for_a_path_is_told_in_short(name: str, place: Path) -> None:
    line = refused(name)
    assert line == f"no model {name[:200]!r}...: File name too long"


def test_a_link_that_leads_nowhere_is_not_suggested(place: Path) -> None:
    (place / "gone.gguf").symlink_to("nowhere.gguf")
    assert refused("gone.gguf") == "no model file 'gone.gguf'; give a folder with config.json, a hub name, or demo"
    assert refused(".") == ".: no config.json in this folder, so it is no transformers model"


def test_what_was_said_is_not_what_was_meant(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the cache without a revision, or with one that cannot be read, has the name, and no model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached(place, "some/model", "config.json")
    revision = place / "hub" / "models--some--model" / "refs" / "main"
    for content in (b"", b"\xff\xfe"):
        revision.write_bytes(content)
        assert "did you mean" not in (line := refused("some/model"))
        assert line.startswith("some/model is not in the local cache")


def test_the_hub_is_asked_once_for_what_only_it_can_know(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(timeout: float) -> Any:
        raise ConnectionError("no route")

    asked = answering(monkeypatch, fails)
    line = refused("acme/Parrot")
    assert line.startswith("acme/Parrot is not in the local cache, and the hub cannot be reached (ConnectionError);")
    assert refused("gpt2").startswith("gpt2 is not in the local cache, and the hub cannot be reached")
    assert asked == ["acme/Parrot", "gpt2"]


def test_a_slow_network_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda timeout: time.sleep(20))
    began = time.monotonic()
    assert hub.ask("acme/Parrot", patience=0.2) == "the hub did not answer within 0.2 s"
    assert time.monotonic() - began < 5


def test_the_hub_knows_it_or_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import ModelInfo

    def holding(*files: str) -> Any:
        return lambda timeout: ModelInfo(id="acme/Parrot", siblings=[{"rfilename": file} for file in files])

    def absent(timeout: float) -> Any:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    answering(monkeypatch, holding("config.json", "model.safetensors"))
    names.require("acme/Parrot")
    cached(place, "acme/Parrots")
    answering(monkeypatch, absent)
    assert "the hub has no such model" in refused("acme/Parrot")
    assert refused("acme/Parrot").endswith("did you mean acme/Parrots? `loopserve models` lists what is here")
    answering(monkeypatch, holding("p-q4.gguf", "p-q8.gguf", "README.md"))
    assert "it holds only GGUF files (p-q4.gguf, p-q8.gguf)" in refused("acme/Parrot")
    answering(monkeypatch, holding("adapter_config.json"))
    assert "it is an adapter, which is loaded from a folder" in refused("acme/Parrot")


def test_offline_is_told_without_asking(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "and HF_HUB_OFFLINE is set" in refused("acme/Parrot")


def test_a_whole_model_in_the_cache_is_read_from_there(place: Path) -> None:
    from loopserve_cli.engine import loader

    snapshot = cached(place, "acme/Parrot")
    assert sources.resolve("acme/Parrot") == sources.Source(str(snapshot))
    names.require("acme/Parrot")
    assert loader.load(ModelOptions("acme/Parrot", device="cpu")).name == "acme/Parrot"
    cached(place, "acme/Half", "config.json", "tokenizer.json")
    assert sources.resolve("acme/Half") == sources.Source("acme/Half")


def test_shards_count_as_whole_only_together(place: Path) -> None:
    snapshot = cached(place, "acme/Parrot", "config.json", "tokenizer.json")
    (snapshot / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}'
    )
    (snapshot / "m-1.safetensors").write_text("")
    assert not hub.is_whole(snapshot)
    (snapshot / "m-2.safetensors").write_text("")
    assert hub.is_whole(snapshot)


@pytest.mark.parametrize("command", ["chat --model dem hi", "replay demo --model dem", "bench turns --model dem"])
def test_a_slip_is_told_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    code = f"""
import sys
from loopserve_cli import app
code = app.main({command.split()!r})
heavy = sorted(set(sys.modules) & {{"torch", "transformers"}})
sys.exit(f"{{code}} {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == [
        "loopserve: no model 'dem'; did you mean demo? `loopserve models` lists what is here",
        "1 []",
    ]
