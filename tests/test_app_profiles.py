"""`loopserve profiles`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from loopserve_cli import app
from loopserve_cli.profile import KEEP_POLICIES, load_profile, parse_profile, profile_names
from loopserve_cli.profiles_view import to_toml


def test_list_has_a_line_for_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["profiles", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == profile_names()
    assert any(line.startswith("full ") and "dense prefill, every key read" in line for line in lines)


@pytest.mark.parametrize("name", profile_names())
def test_show_prints_a_profile_that_reads_back(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert app.main(["profiles", "show", name]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].endswith(f"profiles/{name}.toml")
    copy = tmp_path / f"{name}.toml"
    copy.write_text(text, encoding="utf-8")
    assert load_profile(str(copy)) == load_profile(name)


def test_a_description_survives_quotes_and_umlauts() -> None:
    table = {"description": 'a "Größe" \\ b', "prefill": {"policy": "dense"}, "keep": {"policy": "everything"}}
    profile = parse_profile("p", table, "here")
    assert tomllib.loads(to_toml(profile))["description"] == 'a "Größe" \\ b'


def test_check_says_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n')
    assert app.main(["profiles", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok (dense prefill, everything keep)\n"


def test_check_names_the_file_and_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "every"\n')
    assert app.main(["profiles", "check", str(file)]) == 2
    known = ", ".join(KEEP_POLICIES)
    assert capsys.readouterr().err == f"loopserve: {file}: unknown keep policy 'every'; known: {known}\n"
