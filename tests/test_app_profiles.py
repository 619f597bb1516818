"""`loopserve profiles`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from loopserve_cli import app
from loopserve_cli.meanings import PROFILE
from loopserve_cli.policy_settings import every_setting
from loopserve_cli.profile import KEEP_POLICIES, load_profile, parse_profile, profile_names, profile_text
from loopserve_cli.profile_file import explanations
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


def test_show_keeps_the_files_explanations(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["profiles", "show", "loopserve", "--set", "keep.budget=64"]) == 0
    shown = capsys.readouterr().out.splitlines()
    file = Path("profiles/loopserve.toml").read_text(encoding="utf-8").splitlines()
    assert shown[0].startswith("# loopserve+keep.budget=64, read from ")
    assert shown[1].startswith("# With these values: LoopServe: ") and "then 64 keys per head" in shown[1]
    assert shown[2:] == ["budget = 64" if line == "budget = 1024" else line for line in file]


def test_show_takes_a_name_with_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["profiles", "show", "snapkv+budget=64"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].endswith("profiles/snapkv.toml") and "\nbudget = 64\n" in shown


def test_show_says_what_a_file_leaves_out_and_nothing_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "# mine\ndescription = 'x'  # dark\n[prefill]\npolicy = 'dense'\n\n[keep] # here\n"
        '# How many.\nbudget = 7 # few\npolicy = "streaming"\n',
        encoding="utf-8",
    )
    assert app.main(["profiles", "show", str(file), "--set", "budget=8"]) == 0
    once = capsys.readouterr().out
    assert once.splitlines()[1:] == [
        "# mine",
        "description = 'x'  # dark",
        "[prefill]",
        "policy = 'dense'",
        "",
        "[keep] # here",
        "# How many.",
        "budget = 8 # few",
        'policy = "streaming"',
        "# First keys that are always read.",
        "sinks = 4",
        "",
        "[retain]",
        "# Where the full history stays, or whether it is let go of.",
        'tier = "device"',
    ]
    file.write_text(once, encoding="utf-8")
    assert app.main(["profiles", "show", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == once.splitlines()[1:]


def test_a_file_that_no_line_can_change_is_written_anew_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'description = "x"\nprefill = {policy = "dense"}\nkeep = {policy = "streaming"}\n', encoding="utf-8"
    )
    assert app.main(["profiles", "show", str(file), "--set", "budget=8"]) == 0
    shown = capsys.readouterr().out
    assert "could not be changed line by line" in shown.splitlines()[1]
    assert tomllib.loads(shown)["keep"] == {"policy": "streaming", "budget": 8, "sinks": 4}


def test_another_policys_section_is_written_anew_with_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["profiles", "show", "snapkv", "--set", "keep.policy=h2o"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(
        '[keep]\n# Which keys decoding reads.\npolicy = "h2o"\n# Keys per key-value head that decoding reads.\n'
        'budget = 1024\n\n[retain]\ntier = "device"\n'
    )
    assert "pool_width" not in shown


def test_every_setting_of_a_profile_has_a_meaning_and_every_shipped_one_an_explanation() -> None:
    assert set(PROFILE) == set(every_setting())
    for name in profile_names():
        profile, explained = load_profile(name), explanations(profile_text(name))
        for section, options in (("prefill", profile.prefill), ("keep", profile.keep)):
            for key in options.settings:
                assert explained[f"{section}.{key}"], (name, section, key)
