"""A mistyped name is answered by the nearest one, wherever names are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopserve_cli import app
from loopserve_cli.nearest import hint, hint_file, nearest


def test_nearest_knows_slips_in_any_case_and_no_more() -> None:
    known = ["loopserve", "loopserve-prefill", "SnapKV", "full"]
    assert nearest("lopserve", known) == "loopserve"
    assert nearest("snapkv", known) == nearest("SNAPVK", known) == "SnapKV"
    assert nearest("h2o", known) is None and hint("h2o", known) == ""
    assert hint("fulll", known) == "; did you mean full?"


def test_a_file_of_the_same_kind_is_near_also_without_its_suffix(tmp_path: Path) -> None:
    for name in ("talk.jsonl", "talks.md", "notes.txt"):
        (tmp_path / name).touch()
    assert hint_file(tmp_path / "tlak.jsonl") == f"; did you mean {tmp_path / 'talk.jsonl'}?"
    assert hint_file(tmp_path / "note") == f"; did you mean {tmp_path / 'notes.txt'}?"
    assert hint_file(tmp_path / "talk.json") == hint_file(tmp_path / "other.jsonl") == ""
    assert hint_file(tmp_path / "nowhere" / "talk.jsonl") == ""


@pytest.mark.parametrize(
    ("words", "code", "meant"),
    [
        ("chat --profile loopsrve", 2, "did you mean loopserve?"),
        ("chat --profile loopserve+keep.bugdet=3", 2, "did you mean budget?"),
        ("chat --set kepp.budget=3", 2, "did you mean keep?"),
        ("chat --set keep.policy=snapvk", 2, "did you mean snapkv?"),
        ("chat --resume tlak.jsonl hi", 1, "did you mean talk.jsonl?"),
        ("chat --model dmeo hi", 1, "did you mean demo?"),
        ("chat --model random:llama-3.1-8 hi", 2, "did you mean Llama-3.1-8B?"),
        ("replay demo:lng", 2, "did you mean demo:long?"),
        ("replay demolong", 1, "did you mean demo:long?"),
        ("replay tlak.jsonl", 1, "did you mean talk.jsonl?"),
        ("replay talk", 1, "did you mean talk.jsonl?"),
        ("convert tlak.jsonl new.jsonl", 1, "did you mean talk.jsonl?"),
        ("bench turns --dialogue demo:lng", 2, "did you mean demo:long?"),
        ("bench turns --against transfomers", 2, "did you mean transformers?"),
        ("bench turns --against snapvk+budget=3", 2, "did you mean snapkv?"),
        ("bench turns --profile snapvk", 2, "did you mean snapkv?"),
        ("bench decode --profile snapvk", 2, "did you mean snapkv?"),
        ("profiles show snapvk", 2, "did you mean snapkv?"),
        ("profiles check mien.toml", 2, "did you mean mine.toml?"),
        ("profils list", 2, "Did you mean 'profiles'?"),
        ("profiles lsit", 2, "Did you mean 'list'?"),
    ],
)
def test_every_mistyped_name_is_asked_back(
    words: str,
    code: int,
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "talk.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "mine.toml").touch()
    from loopserve_cli import profile

    folder = profile.profiles_folder().absolute()
    monkeypatch.setattr(profile, "profiles_folder", lambda: folder)
    monkeypatch.setattr("loopserve_cli.engine.loader.load", None)
    monkeypatch.chdir(tmp_path)
    assert app.main(words.split()) == code
    out, err = capsys.readouterr()
    assert out == "" and meant in err.splitlines()[-1] and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--profile snapkv+keep.budget=64", ["snapkv+keep.budget=64"]),
        ("--profile mine.toml+budget=64 --profile full", ["mine+keep.budget=64", "full"]),
        ("--profile all+retain.tier=host --tokens 64", ["full+retain.tier=host", "a-shape+retain.tier=host"]),
    ],
)
def test_a_changed_profile_is_named_wherever_profiles_are(
    words: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopserve_cli import profile
    from loopserve_cli.bench.comparison import profiles_by_name
    from loopserve_cli.bench.options import TurnsOptions

    asked: list[TurnsOptions] = []
    folder = profile.profiles_folder().absolute()
    (tmp_path / "mine.toml").write_bytes((folder / "snapkv.toml").read_bytes())
    monkeypatch.setattr(profile, "profiles_folder", lambda: folder)
    monkeypatch.setattr("loopserve_cli.bench.run_turns", lambda options: asked.append(options) or 0)
    monkeypatch.chdir(tmp_path)
    assert app.main(["bench", "turns", *words.split()]) == 0
    [options] = asked
    if options.profiles:
        assert list(profiles_by_name(options))[: len(names)] == names
    else:
        assert [profile.load_profile(options.profile).name] == names
