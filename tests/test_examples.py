"""Every help ends with examples, and every example is a command line that is understood."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from loopserve_cli import app, profile
from loopserve_cli.examples import EXAMPLES

RUNS = (
    "chat.run",
    "replay.run",
    "replay.report_command.run",
    "replay.compare_command.run",
    "transcript.convert",
    "doctor.run",
    "models.run",
    "bench.run_turns",
    "bench.decode.run_decode",
    "bench.kernels.run_kernels",
    "bench.device.run_device",
)


def commands(command: object, name: str = "") -> Iterator[str]:
    """The names of all commands, groups among them."""
    yield name
    for sub, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {sub}".strip())


@pytest.mark.parametrize("name", list(commands(typer.main.get_command(app.app))))
def test_every_help_ends_with_its_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    said = text[text.index("\n  Examples:\n") :]
    for words, does in EXAMPLES[name]:
        assert f"    loopserve {words}" in said
        assert does in said
    assert max(len(line) for line in said.splitlines()) <= 80


@pytest.mark.parametrize("words", sorted({words for examples in EXAMPLES.values() for words, _ in examples}))
def test_an_example_is_understood(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[object, ...]] = []

    def run(*arguments: object, **_: object) -> int:
        ran.append(arguments)
        return 0

    for name in RUNS:
        monkeypatch.setattr(f"loopserve_cli.{name}", run)
    folder = profile.profiles_folder().absolute()
    (tmp_path / "mine.toml").write_bytes(profile.profile_path("full").read_bytes())
    monkeypatch.setattr(profile, "profiles_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    given = shlex.split(words)
    assert app.main(given[: given.index(">")] if ">" in given else given) == 0
    assert ran or capsys.readouterr().out


@pytest.mark.parametrize("name", ["chat", "replay", "bench turns", "bench decode"])
def test_the_help_tells_how_a_profile_is_changed_by_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([*name.split(), "--help"]) == 0
    options = capsys.readouterr().out.partition("\n  Examples:\n")[0]
    assert "loopserve+keep.budget=512" in options
