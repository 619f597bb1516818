"""Profiles: what ships loads, what is wrong is named, overrides are checked and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loopserve_cli import profile as profile_module
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import Profile, Setting, load_profile, parse_profile, profile_names

GOOD: dict[str, Any] = {"description": "x", "prefill": {"policy": "dense"}, "keep": {"policy": "everything"}}


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile whose policies read settings, whatever the shipped ones do."""
    monkeypatch.setitem(profile_module.PREFILL_POLICIES, "some-lines", ("alpha",))
    monkeypatch.setitem(profile_module.KEEP_POLICIES, "some-keys", ("budget", "interval"))
    table = {
        "description": "x",
        "prefill": {"policy": "some-lines", "alpha": 0.95},
        "keep": {"policy": "some-keys", "budget": 1024, "interval": 16},
    }
    return parse_profile("tuned", table, "here")


def test_every_shipped_profile_loads_and_full_is_one_of_them() -> None:
    assert "full" in profile_names()
    for name in profile_names():
        assert load_profile(name).name == name
    full = load_profile("full")
    assert (full.prefill.policy, full.keep.policy, full.retain) == ("dense", "everything", {"tier": "device"})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"speed": 3}, "here: unknown key 'speed'; known: description, prefill, keep, retain"),
        ({"prefill": "dense"}, "here: prefill must be a table, written [prefill]"),
        ({"description": ""}, "here: description is missing"),
        ({"description": 3}, "here: description is missing"),
        ({"prefill": {}}, "here: [prefill] names no policy; known: dense"),
        ({"prefill": {"policy": "fast"}}, "here: unknown prefill policy 'fast'; known: dense"),
        ({"prefill": {"policy": ["dense"]}}, "here: unknown prefill policy ['dense']; known: dense"),
        ({"prefill": {"policy": "dense", "beta": 1}}, "here: unknown key prefill.beta; known: alpha"),
        ({"prefill": {"policy": "dense", "alpha": 2}}, "here: prefill.alpha is 2, but must be from 0.01 to 1"),
        ({"prefill": {"policy": "dense", "alpha": 0.9}}, "here: prefill policy 'dense' has no setting 'alpha'"),
        ({"keep": {"policy": "everything", "budget": -5}}, "here: keep.budget is -5, but must be from 1 to 16777216"),
        ({"keep": {"policy": "everything", "budget": 1.5}}, "here: keep.budget is 1.5, but must be a whole number"),
        ({"prefill": {"policy": "xattention", "block": 96}}, "here: prefill.block is 96, but must be a power of two"),
        ({"keep": {"policy": "everything", "budget": True}}, "here: keep.budget is True, but must be a number"),
        ({"keep": {"policy": "everything", "budget": "many"}}, "here: keep.budget is 'many', but must be a number"),
        ({"keep": {"policy": "everything", "budget": [1]}}, "here: keep.budget is [1], but must be a number"),
        ({"retain": {"tier": "moon"}}, "here: retain.tier is 'moon'; choose one of device"),
    ],
)
def test_a_wrong_profile_is_named(change: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_profile("p", GOOD | change, "here")
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[prefill", "not valid TOML"),
        (b"\xff\xfe\x00", "is not UTF-8 text; save it as UTF-8"),
        (b"", "description is missing"),
    ],
)
def test_a_wrong_profile_file_is_named(content: bytes, line: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_profile(str(file))
    assert str(caught.value).startswith(f"{file}: {line}")


def test_a_missing_profile_says_what_there_is() -> None:
    with pytest.raises(UsageError, match="no profile 'nope'; known: .*full"):
        load_profile("nope")


def test_overrides_replace_settings_and_say_so_in_the_name(tuned: Profile) -> None:
    changed = tuned.with_overrides(["prefill.alpha=0.9", "keep.budget= 256"])
    assert changed.prefill.settings == {"alpha": 0.9}
    assert changed.keep.settings == {"budget": 256, "interval": 16}
    assert changed.name == "tuned+prefill.alpha=0.9+keep.budget=256"
    assert tuned.prefill.settings == {"alpha": 0.95}
    assert tuned.with_overrides(["alpha=0.9", "budget=256"]) == changed


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("prefill.alpha", "--set 'prefill.alpha' is not SECTION.KEY=VALUE"),
        ("policy=dense", "--set 'policy=dense' is not SECTION.KEY=VALUE"),
        ("alpha=2", "--set prefill.alpha=2: prefill.alpha is 2"),
        ("speed.alpha=1", "unknown section 'speed'"),
        ("prefill.beta=1", "--set prefill.beta=1: unknown key prefill.beta"),
        ("prefill.alpha=2", "--set prefill.alpha=2: prefill.alpha is 2, but must be from 0.01 to 1"),
        ("keep.budget=x", "--set keep.budget=x: keep.budget is 'x', but must be a number"),
        ("retain.tier=moon", "--set retain.tier=moon: retain.tier is 'moon'"),
    ],
)
def test_a_wrong_override_is_named(override: str, line: str, tuned: Profile) -> None:
    with pytest.raises(UsageError) as caught:
        tuned.with_overrides([override])
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "inf"])
@pytest.mark.parametrize("setting", [Setting(int, 1), Setting(float, 0.01, 1.0)])
def test_no_setting_is_nan_or_endless(setting: Setting, value: Any) -> None:
    with pytest.raises(UsageError):
        setting.check("x", value)


def test_an_installed_packages_profiles_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loopserve_cli"
    (tmp_path / "profiles").mkdir(parents=True)
    package.mkdir()
    monkeypatch.setattr(profile_module, "__file__", str(package / "profile.py"))
    assert profile_module.profiles_folder() == tmp_path / "profiles"
    (package / "profiles").mkdir()
    assert profile_module.profiles_folder() == package / "profiles"


def test_a_changed_setting_stands_in_the_name_once(tuned: Profile) -> None:
    twice = tuned.with_overrides(["prefill.alpha=0.9", "keep.budget=9", "prefill.alpha=0.8"])
    assert twice.name == "tuned+keep.budget=9+prefill.alpha=0.8"
    assert twice.prefill.settings["alpha"] == 0.8


def test_a_name_with_settings_loads_as_it_was_made() -> None:
    assert load_profile("full+retain.tier=device") == load_profile("full").with_overrides(["retain.tier=device"])
    with pytest.raises(UsageError, match=r"prefill\.alpha is 2, but must be from 0\.01 to 1"):
        load_profile("full+prefill.alpha=2")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("streaming-llm", ["keep.budget=64"], "StreamingLLM: decoding reads 4 first and 60 recent keys; dense prefill"),
        ("streaming-llm", ["keep.budget=3"], "StreamingLLM: decoding reads 3 first and 0 recent keys; dense prefill"),
        ("h2o", ["budget=65"], "H2O: 33 heavy hitters of this turn and 32 recent keys per head, once; dense prefill"),
        ("loopserve-prefill", ["alpha=0.875"], "LoopServe phase 1: prefill computes the lines that hold 87.5%"),
        ("loopserve", ["interval=8"], "attention; every key read for 8 tokens, then 1,024 keys per head, chosen anew"),
        (
            "loopserve",
            ["first=prompt"],
            "; from the prompt's end on 1,024 keys per head, chosen anew every 16",
        ),
        ("loopserve", ["keep.policy=everything"], "the lines that hold 95% of the attention; every key read"),
        ("minference", ["prefill.window=9", "slashes=7"], "1,000 verticals and 7 slashes a head, by the last 9 rows"),
        (
            "flexprefill",
            ["gamma=0.9", "block=64"],
            "prefill computes blocks of 64 that hold 90% of pooled or of the last",
        ),
        ("xattention", ["threshold=0.8"], "prefill computes blocks of 128 that hold 80% of scores by antidiagonals"),
        ("tri-shape", ["local=9"], "128 first and 9 nearest keys, and the last 100 rows everything; every key read"),
        ("snapkv", ["budget=5"], "SnapKV: the prompt's last 32 rows choose 5 keys per head, once; dense prefill"),
        ("adakv", ["budget=5"], "AdaKV: SnapKV's scores choose 5 keys per head on average"),
        (
            "quest",
            ["budget=100"],
            "Quest: after 2 dense layers a token reads the 6 pages of 16 keys it may look at most; dense",
        ),
        (
            "expected-attention",
            ["future=9"],
            "expected attention: what the next 9 queries can be expected to look at, 1,024 keys per head, once; dense",
        ),
        ("full", ["keep.policy=h2o"], "full attention: dense prefill, 512 heavy hitters of this turn and 512 recent"),
    ],
)
def test_a_description_has_the_numbers_of_now(name: str, changes: list[str], said: str) -> None:
    assert said in load_profile(name).with_overrides(changes).description


def test_no_shipped_description_has_a_number_of_its_own() -> None:
    for name in profile_names():
        assert not any(
            letter.isdigit() for letter in load_profile(name).about.replace("H2O", "").replace("phase 1", "")
        )


def test_a_users_description_may_name_settings() -> None:
    table = {
        "description": "{keep.budget} of {prefill.policy}, {keep.interval}, {tea} {keep}",
        "prefill": {"policy": "dense"},
        "keep": {"policy": "streaming", "budget": 2048},
    }
    profile = parse_profile("p", table, "here")
    assert profile.description == "2,048 of dense, n/a, {tea} decoding reads 4 first and 2,044 recent keys"
    assert profile.with_overrides(["budget=9"]).description.startswith("9 of dense")
    with pytest.raises(UsageError, match=r"\{keep\.bugdet\}, which is no setting; did you mean keep\.budget\?"):
        parse_profile("p", table | {"description": "{keep.bugdet}"}, "here")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("loopsrve", "; did you mean loopserve?"),
        ("SnapKV", "; did you mean snapkv?"),
        ("full+keep.bugdet=3", "; did you mean budget?"),
        ("loopserve+kep.budget=3", "; did you mean keep?"),
        ("loopserve+aplha=3", "; did you mean alpha?"),
        ("loopserve+keep.policy=snap_kv", "; did you mean snapkv?"),
        ("loopserve+first=ful", "; did you mean full?"),
    ],
)
def test_the_nearest_name_is_asked_for(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_profile(name)
    assert str(caught.value).endswith(meant)


def test_the_nearest_file_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(profile_module.profile_path("full").read_bytes())
    with pytest.raises(UsageError, match=r"no such file; check the path; did you mean .*mine\.toml\?$"):
        load_profile(str(tmp_path / "mein.toml"))
    changed = load_profile(f"{tmp_path}/mine.toml+retain.tier=host")
    assert (changed.name, changed.retain) == ("mine+retain.tier=host", {"tier": "host"})


def test_a_plus_in_a_number_or_a_folder_parts_no_name(tmp_path: Path) -> None:
    assert profile_module.parted("snapkv+keep.budget=1e+3") == ("snapkv", ["keep.budget=1e+3"])
    assert profile_module.parted("a+b/mine.toml+budget=3") == ("a+b/mine.toml", ["budget=3"])
    assert profile_module.parted("a+b/c+d.toml") == ("a+b/c+d.toml", [])


def test_another_policy_takes_its_sections_settings_out_of_the_name() -> None:
    changed = load_profile("loopserve").with_overrides(["budget=9", "alpha=0.9", "keep.policy=snapkv"])
    assert changed.name == "loopserve+prefill.alpha=0.9+keep.policy=snapkv"
    assert load_profile(changed.name) == changed
