"""The user's config.toml: what it may hold, what wins over it, and what is said of a wrong one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loopserve_cli import app
from loopserve_cli.config import ChatOptions, ReplayOptions
from loopserve_cli.defaults import KEYS, line_of, read_defaults
from loopserve_cli.doctor import report
from loopserve_cli.doctor.defaults import defaults_check
from loopserve_cli.errors import UsageError

EVERYTHING = """
model = "some/model"
profile = "snapkv"
tier = "host"
ui = "simple"
thinking = "hide"

[sampling]
temperature = 0.25
top_p = 0.9
top_k = 40
min_p = 0.05
repetition_penalty = 1.1
max_new_tokens = 64
seed = 3
stop = ["END", "###"]
"""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "loopserve").mkdir()
    return tmp_path / "loopserve" / "config.toml"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ChatOptions]:
    """What chat is asked for by some words."""
    calls: list[ChatOptions] = []
    monkeypatch.setattr("loopserve_cli.chat.run", lambda options: calls.append(options) or 0)

    def ask(*words: str) -> ChatOptions:
        assert app.main(["chat", *words]) == 0
        return calls[-1]

    return ask


def test_the_file_wins_over_what_is_built_in(config: Path, asked: Callable[..., ChatOptions]) -> None:
    built_in = asked()
    config.write_text(EVERYTHING)
    options = asked()
    assert (options.model.model, options.ui, options.thinking) == ("some/model", "simple", "hide")
    assert options.profile.name == "snapkv+retain.tier=host"
    sampling = options.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.25, 0.9, 40, 0.05)
    assert (sampling.repetition_penalty, sampling.max_new_tokens) == (1.1, 64)
    assert (sampling.seed, sampling.stop) == (3, ("END", "###"))
    config.unlink()
    assert asked() == built_in


def test_the_command_line_wins_over_the_file(config: Path, asked: Callable[..., ChatOptions]) -> None:
    config.write_text(EVERYTHING)
    words = "-m demo --profile full --ui none --thinking show --temperature 0 --top-p 1 --top-k 0 --min-p 0"
    words += " --repetition-penalty 1 --max-new-tokens 512 --seed 4 --stop STOP --set tier=device"
    options = asked(*words.split())
    assert (options.model.model, options.ui, options.thinking) == ("demo", "none", "show")
    assert options.profile.name == "full+retain.tier=device"
    sampling = options.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0, 1, 0, 0)
    assert (sampling.repetition_penalty, sampling.max_new_tokens) == (1, 512)
    assert (sampling.seed, sampling.stop) == (4, ("STOP",))


def test_a_model_of_the_file_is_drawn_from_as_any_other(config: Path, asked: Callable[..., ChatOptions]) -> None:
    config.write_text('model = "some/model"\n')
    assert asked().sampling.temperature == 0.7
    assert asked("-m", "demo").sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("text", "words", "name"),
    [
        ('tier = "host"', "", "loopserve+retain.tier=host"),
        ('tier = "host"', "--profile full", "full+retain.tier=host"),
        ('tier = "host"', "--set alpha=0.9", "loopserve+retain.tier=host+prefill.alpha=0.9"),
        ('tier = "host"', "--set retain.tier=evict", "loopserve+retain.tier=evict"),
        ('tier = "host"', "--profile snapkv+retain.tier=evict", "snapkv+retain.tier=evict"),
        ('tier = "device"', "", "loopserve"),
        ('tier = "evict"', "--profile full --set keep.policy=snapkv", "full+retain.tier=evict+keep.policy=snapkv"),
        ('tier = "device"\nprofile = "snapkv+retain.tier=evict"', "", "snapkv+retain.tier=evict+retain.tier=device"),
    ],
)
def test_a_tier_changes_the_profile_unless_the_words_say_one(
    text: str, words: str, name: str, config: Path, asked: Callable[..., ChatOptions]
) -> None:
    config.write_text(text)
    profile = asked(*words.split()).profile
    assert profile.retain["tier"] == name.rpartition("tier=")[2].partition("+")[0] if "tier=" in name else "device"
    assert profile.name == name.replace("+retain.tier=evict+retain.tier=device", "+retain.tier=device")


def test_a_profiles_file_is_looked_for_beside_it(config: Path, asked: Callable[..., ChatOptions]) -> None:
    mine = 'description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n'
    (config.parent / "mine.toml").write_text(mine)
    config.write_text('profile = "mine.toml"\n')
    assert asked().profile.name == "mine"


def test_what_measures_does_not_read_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[ReplayOptions] = []
    monkeypatch.setattr("loopserve_cli.replay.run", lambda options: calls.append(options) or 0)
    config.write_text(EVERYTHING)
    assert app.main(["replay", "demo"]) == 0
    assert (calls[0].model.model, calls[0].profiles[0].name, calls[0].sampling.temperature) == ("demo", "loopserve", 0)


WRONG = {
    'ui = "pretty"': ":1: ui is 'pretty'; choose one of dashboard, simple, none",
    'tier = "moon"': ":1: tier is 'moon'; choose one of device, host, evict",
    "thinking = true": ":1: thinking is True; choose one of show, hide",
    "model = 3": ":1: model is 3, but must be text in quotes",
    'model = " "': ":1: model is ' ', but must be text in quotes",
    'profile = "nope"': ":1: no profile 'nope'; known: a-shape, adakv, ",
    'profile = "nope.toml"': ":1: {folder}/nope.toml: no such file; check the path",
    "\n\nmodle = 3": ":3: unknown key 'modle'; known: model, profile, tier, ui, thinking, on_full, [sampling]",
    "temperature = 1": ":1: unknown key 'temperature'; known: model, profile, tier, ui, thinking, on_full, [sampling]",
    "[chat]\nui = 'none'": ":1: unknown key 'chat'; known: model, profile, tier, ui, thinking, on_full, [sampling]",
    "sampling = 3": ":1: sampling must be a table, written [sampling]",
    "[sampling]\n\ntop = 3": ":3: unknown key 'top' in [sampling]; known: temperature, top_p, top_k, min_p, ",
    "[sampling]\ntop_p = 2": ":2: sampling.top_p is 2, but must be from 0 to 1",
    "sampling.top_p = 2": ":1: sampling.top_p is 2, but must be from 0 to 1",
    "sampling = {top_p = 2}": ": sampling.top_p is 2, but must be from 0 to 1",
    "[sampling]\ntop_k = 1.5": ":2: sampling.top_k is 1.5, but must be a whole number",
    '[sampling]\ntop_p = "1"': ":2: sampling.top_p is '1', but must be a number, without quotes",
    "[sampling]\ntop_p = true": ":2: sampling.top_p is True, but must be a number",
    "[sampling]\ntop_p = nan": ":2: sampling.top_p is nan, but must be a number",
    "[sampling]\ntemperature = 1e-9": ":2: temperature is 1e-09, too close to 0; give 0 for the likeliest token",
    "[sampling]\nseed = -1": ":2: sampling.seed is -1, but must be from 0 to ",
    "[sampling]\nstop = 'END'": ":2: sampling.stop is 'END', but must be a list of texts, for example ['END']",
    "[sampling]\nstop = ['']": ":2: sampling.stop is [''], but must be a list of texts, for example ['END']",
    "ui = \n": ":1: not valid TOML at column 6: Invalid value",
    "ui = 'none'\nui =": ":2: not valid TOML: Invalid value (at end of document)",
    "tier = 'evict'\nprofile = 'full'": ":1: tier is 'evict', but profile full+retain.tier=evict: retain.tier ",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_one_line_and_two(text: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(text)
    assert app.main(["chat", "hi"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"loopserve: {config}{WRONG[text].format(folder=config.parent)}")
    assert (out, err.count("\n")) == ("", 1)
    # Neither the help nor what does not read it ends there.
    assert app.main(["chat", "--help"]) == app.main(["profiles", "list"]) == 0


def test_what_is_wrong_in_the_words_is_not_the_files(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text('tier = "host"\n')
    assert app.main(["chat", "hi", "--set", "alpha=9"]) == 2
    assert "config.toml" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (Path.mkdir, "is a folder; remove it, or write the defaults in a file there"),
        (lambda path: path.write_bytes(b"caf\xe9"), "is not UTF-8 text; save it as UTF-8"),
        (os.mkfifo, "is a device or a pipe; give a regular file"),
    ],
)
def test_a_file_that_is_none(make: Callable[[Path], object], line: str, config: Path) -> None:
    make(config)
    with pytest.raises(UsageError) as caught:
        read_defaults()
    assert str(caught.value) == f"{config}: {line}"


def test_an_empty_file_sets_nothing(config: Path, asked: Callable[..., ChatOptions]) -> None:
    config.write_text("\ufeff# nothing yet\n", encoding="utf-8")
    assert read_defaults().values == {} and read_defaults().exists
    assert asked().model.model == "demo"


def test_every_key_stands_for_a_flag_of_chat() -> None:
    [chat] = [command for command in app.app.registered_commands if command.callback.__name__ == "chat"]  # type: ignore[union-attr]
    flags = {parameter for parameter in chat.callback.__annotations__}  # type: ignore[union-attr]
    assert {key.removeprefix("sampling.") for key in KEYS} - {"tier"} <= flags


def test_lines_are_found_in_their_sections() -> None:
    text = '# ui = "x"\n"ui" = "none"\n [ sampling ] # here\n  top_p=1\nui = 2\n'
    assert line_of(text, "ui") == ":2"
    assert line_of(text, "sampling.top_p") == ":4"
    assert line_of(text, "sampling.ui") == ":5"
    assert line_of(text, "sampling") == ":3"
    assert line_of(text, "model") == ""


def test_doctor_shows_where_it_is_and_what_it_holds(config: Path) -> None:
    check = defaults_check()
    assert (check.status, check.found) == ("ok", f"built-in; those of your own would stand in {config}")
    config.write_text('ui = "none"\n[sampling]\nstop = ["ü"]\n')
    check = defaults_check()
    assert (check.status, check.found) == ("ok", f'{config}: ui = "none", sampling.stop = ["ü"]')
    config.write_text("ui = 3\n")
    check = defaults_check()
    assert (check.status, check.found) == ("problem", f"{config}:1: ui is 3; choose one of dashboard, simple, none")
    assert check.advice == "mend the file, or move it away"


def test_doctors_document_holds_them(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "software_checks", list)
    monkeypatch.setattr(report, "find_gpus", list)
    monkeypatch.setattr(report, "device_checks", lambda _: [])

    def document(code: int) -> dict[str, object]:
        assert app.main(["doctor", "--json"]) == code
        return json.loads(capsys.readouterr().out)["defaults"]

    assert document(0) == {"file": str(config), "exists": False, "values": {}, "problem": None}
    config.write_text('tier = "host"\n[sampling]\ntop_k = 3\n')
    assert document(0)["values"] == {"tier": "host", "sampling.top_k": 3}
    config.write_text("tier = 1\n")
    problem = f"{config}:1: tier is 1; choose one of device, host, evict"
    assert document(1) == {"file": str(config), "exists": True, "values": None, "problem": problem}


def test_the_help_mentions_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["chat", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "Defaults of your own stand in config.toml; `loopserve doctor` says where" in words
