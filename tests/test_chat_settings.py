"""`/set` shows and explains, `/reset` goes back."""

from __future__ import annotations

import io

import pytest
from chat_fakes import engine_of, make_session, printed
from rich.console import Console

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.resetting import put_back, reset_choices
from loopserve_cli.chat.commands.settings import keys
from loopserve_cli.chat.initial_settings import InitialSettings
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError
from loopserve_cli.meanings import MEANINGS
from loopserve_cli.output import CleanConsole
from loopserve_cli.profile import Profile, load_profile


def begun(profile: str = "loopserve", width: int = 120) -> Session:
    """A chat that began with that profile, on a screen so wide."""
    session = make_session("ok")
    engine_of(session).profile = load_profile(profile)
    session.initial = InitialSettings(session.sampling, load_profile(profile), {"thinking": "show", "turn_line": "on"})
    session.out = CleanConsole(file=io.StringIO(), width=width)
    return session


def now(session: Session) -> Profile:
    return engine_of(session).profile


@pytest.mark.parametrize("width", [60, 80, 120])
def test_all_settings_stand_with_value_range_and_meaning_at_every_width(width: int) -> None:
    session = begun(width=width)
    dispatch(session, "/set")
    lines = printed(session)[0].splitlines()
    assert max(map(len, lines)) <= width
    for key in keys(session):
        assert sum(line.split()[:1] == [key] for line in lines) == 1
    at = next(number for number, line in enumerate(lines) if line.split()[0] == "keep.budget")
    first, second = (" ".join(line.split()) for line in lines[at : at + 2])
    if width == 60:
        assert (first, second) == ("keep.budget 1024", "keys per key-value head that decoding reads (1 or more)")
    elif width == 80:
        assert lines[0].split() == ["setting", "value", "meaning"]
        assert f"{first} {second}" == "keep.budget 1024 keys per key-value head that decoding reads (1 or more)"
    else:
        assert lines[0].split() == ["setting", "value", "range", "meaning"]
        assert first == "keep.budget 1024 1 or more keys per key-value head that decoding reads"
    # No word is broken, and no mark stands where nothing was changed.
    words = {word for key in keys(session) for word in MEANINGS[key].split()}
    assert words <= set(" ".join(lines).split())
    assert "*" not in "".join(lines)


def test_what_was_changed_is_marked_and_the_mark_is_explained() -> None:
    session = begun()
    dispatch(session, "/set temperature 0.5")
    dispatch(session, "/set keep.budget 64")
    printed(session)
    dispatch(session, "/set")
    lines = printed(session)[0].splitlines()
    marked = [line.split()[0] for line in lines[:-1] if " * " in line]
    assert marked == ["temperature", "keep.budget"]
    assert lines[-1] == "* changed since the chat began; /reset puts all of them back, /reset KEY one"


def test_the_mark_is_coloured_where_there_are_colours() -> None:
    session = begun()
    session.out = Console(file=io.StringIO(), width=120, color_system="standard", force_terminal=True, _environ={})
    dispatch(session, "/set seed 3")
    dispatch(session, "/set")
    assert "\x1b[33m3 *" in printed(session)[0]


def test_one_setting_is_explained() -> None:
    session = begun()
    dispatch(session, "/set keep.budget 64")
    printed(session)
    dispatch(session, "/set budget")
    lines = [line.rstrip() for line in printed(session)[0].splitlines()]
    assert lines[0] == "keep.budget = 64  * the chat began with 1024"
    assert lines[1] == "keys per key-value head that decoding reads"
    told = {line[:14].strip(): line[14:] for line in lines[2:] if line[:14].strip()}
    assert told["range"] == "1 to 16,777,216"
    assert told["default"] == "1024 (of policy progressive)"
    assert told["read by"] == "keep policy streaming, snapkv, adakv, h2o, progressive, quest, expected_attention"
    assert told["its profile"].startswith("Keys per key-value head; a dialogue that is not longer is read whole.")
    assert told["to change it"] == "/set keep.budget VALUE; back: /reset keep.budget"


def test_a_policy_is_explained_by_what_each_does() -> None:
    session = begun()
    dispatch(session, "/set keep.policy")
    lines = [line.rstrip() for line in printed(session)[0].splitlines()]
    assert lines[:2] == ["keep.policy = progressive", "which keys decoding reads"]
    assert "streaming           decoding reads 4 first and 1,020 recent keys" in lines


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            "temperature",
            ["range         0 to 100", "default       0.0 (of demo; a chat with another model varies more)"],
        ),
        ("seed", ["seed = none", "range         a whole number, or none"]),
        ("stop", ["default       none"]),
        ("thinking", ["thinking = show", "range         show, hide"]),
        (
            "tier",
            ["retain.tier = device", "range         device, host, evict", "default       device (of every profile)"],
        ),
        ("prefill.alpha", ["range         0.01 to 1", "read by       prefill policy online"]),
    ],
)
def test_every_kind_of_setting_is_explained(key: str, expected: list[str]) -> None:
    session = begun()
    dispatch(session, f"/set {key}")
    lines = [line.rstrip() for line in printed(session)[0].splitlines()]
    assert all(line in lines for line in expected), lines


@pytest.mark.parametrize(
    "profile",
    "full loopserve minference tri-shape flexprefill xattention adakv h2o quest expected-attention".split(),
)
def test_no_setting_lacks_a_meaning_or_a_range(profile: str) -> None:
    session = begun(profile)
    for key in keys(session):
        dispatch(session, f"/set {key}")
        lines = printed(session)[0].splitlines()
        assert lines[1] == MEANINGS[key]
        assert lines[2].startswith("range ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/set temprature", "did you mean temperature?"),
        ("/set keep.bugdet 3", "did you mean keep.budget?"),
        ("/set aplha 0.9", "did you mean alpha?"),
        ("/set pool_width", "keep policy progressive has no keep.pool_width; it belongs to snapkv, adakv"),
        ("/reset temprature", "did you mean temperature?"),
        ("/reset seed now", "no setting 'seed now'"),
        ("/profile loopsrve", "did you mean loopserve?"),
        ("/reste", "did you mean /reset?"),
        ("/show all", "/show takes no argument"),
    ],
)
def test_the_nearest_name_is_asked_for(line: str, expected: str) -> None:
    session = begun()
    with pytest.raises(UsageError) as caught:
        dispatch(session, line)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert now(session).name == "loopserve"


def test_reset_puts_everything_back() -> None:
    session = begun("loopserve+keep.budget=512")
    for line in ("/set temperature 0.5", "/set seed 3", "/set thinking hide", "/set alpha 0.9", "/set budget 64"):
        dispatch(session, line)
    printed(session)
    dispatch(session, "/reset")
    assert now(session) == load_profile("loopserve+keep.budget=512") == session.initial.profile
    assert session.sampling == session.initial.sampling and session.view.shows_thinking
    said = printed(session)[1]
    assert said.splitlines()[-1] == "as the chat began: profile, temperature = 0.0, seed = none, thinking = show"
    assert reset_choices(session, []) == []
    dispatch(session, "/reset")
    assert printed(session)[1] == "all is as the chat began\n"


def test_reset_of_one_setting_leaves_the_others() -> None:
    session = begun("loopserve+keep.budget=512")
    for line in ("/set temperature 0.5", "/set seed 3", "/set thinking hide", "/set alpha 0.9", "/set budget 64"):
        dispatch(session, line)
    assert reset_choices(session, []) == ["temperature", "seed", "thinking", "prefill.alpha", "keep.budget"]
    dispatch(session, "/reset seed")
    assert (session.sampling.seed, session.sampling.temperature) == (None, 0.5)
    dispatch(session, "/reset budget")
    assert now(session).name == "loopserve+keep.budget=512+prefill.alpha=0.9"
    assert now(session).keep.settings["budget"] == 512
    dispatch(session, "/reset prefill.alpha")
    assert now(session) == session.initial.profile
    dispatch(session, "/reset thinking")
    assert session.view.shows_thinking
    assert printed(session)[1].splitlines()[-1] == "thinking = show"


def test_reset_of_a_policy_takes_its_settings_along() -> None:
    began = load_profile("loopserve")
    changed = began.with_overrides(["alpha=0.9", "keep.policy=snapkv", "keep.window=8"])
    assert put_back(changed, began, "keep.policy") == began.with_overrides(["alpha=0.9"])
    assert put_back(changed, began, "keep.window") == began.with_overrides(["alpha=0.9", "keep.policy=snapkv"])


def test_reset_of_one_setting_under_another_profile() -> None:
    session = begun("snapkv+keep.budget=77")
    dispatch(session, "/profile streaming-llm")
    dispatch(session, "/reset keep.budget")
    assert now(session).name == "streaming-llm+keep.budget=77"
    with pytest.raises(UsageError, match=r"the chat began with profile snapkv\+keep\.budget=77, which has no keep\.si"):
        dispatch(session, "/reset keep.sinks")
    dispatch(session, "/reset")
    assert now(session).name == "snapkv+keep.budget=77"


def test_a_profile_that_is_refused_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session = begun()
    dispatch(session, "/set seed 3")
    dispatch(session, "/set budget 64")

    def refuse(profile: Profile) -> None:
        raise UsageError("not now")

    monkeypatch.setattr(engine_of(session), "set_profile", refuse)
    with pytest.raises(UsageError, match="not now"):
        dispatch(session, "/reset")
    assert session.sampling.seed == 3


def test_the_profile_says_what_it_does_now() -> None:
    session = begun("streaming-llm")
    dispatch(session, "/set budget 64")
    assert "4 first and 60 recent keys" in printed(session)[1]
    dispatch(session, "/profile")
    text = printed(session)[0]
    assert "4 first and 60 recent keys" in text and "1,020" not in text


def test_a_setting_that_must_be_a_power_of_two_says_so() -> None:
    session = begun("xattention")
    dispatch(session, "/set block")
    lines = [line.rstrip() for line in printed(session)[0].splitlines()]
    assert "range         16 to 1,024, a power of two" in lines
    assert "read by       prefill policy flexprefill, xattention" in lines
    with pytest.raises(UsageError, match=r"prefill\.block is '?96'?, but must be a power of two"):
        dispatch(session, "/set block 96")
