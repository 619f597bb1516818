"""`loopserve models`: what is at hand, its sizes, and whether it fits; without torch and without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf_made
import pytest
import tiny
from packages_made import install, on_path

from loopserve_cli import app
from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.models import report


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return tmp_path / "hub"


def cached(hub: Path, name: str, files: dict[str, Path | bytes]) -> Path:
    """A model in the cache."""
    folder = hub / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1" * 40)
    for place, content in files.items():
        blob = folder / "blobs" / place
        blob.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        (snapshot / place).symlink_to(blob)
    return snapshot


def listed(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert app.main(["models", "--json", *more]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "models"
    return document


def models_of(document: dict[str, Any]) -> dict[str, Any]:
    return {row["model"]: row for row in document["models"]}


def test_with_nothing_there_it_lists_the_demo(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = listed(capsys)
    demo = models_of(document)["demo"]
    size = sum(file.stat().st_size for file in demo_model_folder().iterdir() if file.is_file())
    assert (demo["origin"], demo["disk_bytes"], demo["fits"], demo["problem"]) == ("bundled", size, True, None)
    assert demo["parameters"] == 3_410_176 and demo["weight_bytes"] == 4 * 3_410_176
    assert document["dtype"] == "float32" and document["memory"] == "main memory" and document["memory_bytes"] > 0


def test_what_was_downloaded_and_installed(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = {file.name: file for file in demo_model_folder().iterdir() if file.is_file()}
    model = tiny.model("llama", "sdpa")
    file = gguf_made.write(tmp_path / "owl.gguf", model)
    cached(hub, "acme/parrot", demo)
    cached(hub, "acme/half", {"config.json": demo["config.json"]})
    cached(
        hub,
        "acme/base",
        {name: file for name, file in demo.items() if "template" not in name and name != "tokenizer_config.json"}
        | {"tokenizer_config.json": b"{}"},
    )
    two = cached(hub, "acme/ggufs", {"a.gguf": file, "b.gguf": b"GGUF"})
    site = tmp_path / "site"
    install(site, "owl-model", "owl_files", {"owl.gguf": file})
    install(site, "owl-twins", "owl_twins", {"a.gguf": file, "b.gguf": file})
    on_path(site, monkeypatch)
    rows = models_of(listed(capsys, "--dtype", "bfloat16"))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert rows["acme/parrot"]["weight_bytes"] == 2 * 3_410_176 and rows["acme/parrot"]["problem"] is None
    assert rows["acme/half"]["problem"] == "incomplete; hf download acme/half"
    assert (rows["acme/half"]["parameters"], rows["acme/half"]["fits"]) == (None, None)
    assert rows["acme/base"]["problem"] == "its tokenizer has no chat template"
    assert rows[str(two / "a.gguf")]["parameters"] == count
    assert "damaged" in rows[str(two / "b.gguf")]["problem"]
    owl = rows["package:owl-model"]
    assert (owl["parameters"], owl["weight_bytes"], owl["disk_bytes"]) == (count, 2 * count, file.stat().st_size)
    assert {"package:owl-twins/a.gguf", "package:owl-twins/b.gguf"} <= rows.keys()


def test_what_does_not_fit_is_told(
    hub: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = 4 * 3_410_176
    for memory, fits in ((int(weights / 0.9) - 10, False), (int(weights / 0.9) + 10, True)):
        monkeypatch.setattr(report, "memory_free", lambda memory=memory: ("main memory", memory))
        assert models_of(listed(capsys))["demo"]["fits"] is fits
    monkeypatch.setattr(report, "memory_free", lambda: ("GPU 0", 2**40))
    assert listed(capsys)["dtype"] == "bfloat16"


def test_the_table_names_what_to_type(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["models"]) == 0
    out = capsys.readouterr().out
    [row] = [line.split() for line in out.splitlines() if line.strip().startswith("demo")]
    assert row == ["demo", "bundled", "7", "MiB", "3", "M", "13", "MiB", "yes"]
    assert "random:NAME" in out and "Llama-3.1-8B" in out
    assert app.main(["models", "--dtype", "int3"]) == 2


def test_torch_is_not_imported() -> None:
    code = """
import shutil, sys
shutil.which = lambda name: None
from loopserve_cli import app
app.main(["models", "--json"])
print(sorted(set(sys.modules) & {"torch", "transformers"}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_a_cache_that_cannot_be_read_is_a_row(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cached(hub, "some/model", {"config.json": demo_model_folder() / "config.json"})
    (hub / "models--some--model" / "refs" / "main").write_bytes(b"\xff\xfe")
    models = models_of(listed(capsys))
    assert models["demo"]["problem"] is None
    assert "cannot be read (UnicodeDecodeError" in models[str(hub)]["problem"]
