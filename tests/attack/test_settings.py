"""Settings: what is out of range is refused in one line that gives the range; the extremes that remain run."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
from chat_fakes import make_session
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import run, some_ids

from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.settings import SAMPLING
from loopserve_cli.config import SAMPLING_RANGES, SamplingOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.profile import DEFAULTS, SETTINGS, Profile, load_profile

NUMBERED = [
    (section, policy, key)
    for section, policies in DEFAULTS.items()
    for policy, keys in policies.items()
    for key in keys
    if not SETTINGS[section][key].choices
]


def profile_with(section: str, policy: str, *overrides: str) -> Profile:
    sparse = ["prefill.min_new=8", "prefill.min_keys=8"] if section == "prefill" and policy != "dense" else []
    return load_profile("full").with_overrides([f"{section}.policy={policy}", *sparse, *overrides])


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize(("section", "policy", "key"), NUMBERED)
def test_the_ends_of_every_range_run(section: str, policy: str, key: str, end: str) -> None:
    value = getattr(SETTINGS[section][key], end)
    profile = profile_with(section, policy, f"{section}.{key}={value:.0f}" if value % 1 == 0 else f"{key}={value}")
    engine = Engine(replace(tiny.loaded("llama"), stop_ids=frozenset()), profile)
    for seed in (1, 2):
        assert len(run(engine, some_ids(40, seed=seed), max_new_tokens=6)[0]) == 6


@pytest.mark.parametrize(
    "given",
    [{key: end} for key, ends in SAMPLING_RANGES.items() for end in ends if key != "max_new_tokens"]
    + [{"temperature": 1e-6}, {"temperature": 1e-6, "repetition_penalty": 100}, {"seed": 2**63 - 1}, {"top_k": 1}],
)
def test_the_ends_of_sampling_run(given: dict[str, float]) -> None:
    engine = Engine(replace(tiny.loaded("llama"), stop_ids=frozenset()), load_profile("full"))
    options = {"temperature": 0.7, "max_new_tokens": 6} | {
        key: int(value) if key in ("top_k", "seed") else value for key, value in given.items()
    }
    assert len(run(engine, some_ids(40), **options)[0]) == 6


@pytest.mark.parametrize(
    "value", ["99999999999999", "-1", "1e300", "9" * 5000, "nan", "-inf", "", "1_0e", "٣٣٣٣٣٣٣٣٣٣"]
)
@pytest.mark.parametrize(("section", "policy", "key"), NUMBERED)
def test_what_no_engine_can_live_with_is_refused(section: str, policy: str, key: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        profile_with(section, policy, f"{section}.{key}={value}")
    assert "\n" not in str(caught.value) and "must be" in str(caught.value)


def test_a_penalty_near_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^repetition_penalty is 1e-300, but must be from 0\.01 to 100$"):
        SamplingOptions(repetition_penalty=1e-300)


NAMES = [*SAMPLING, "thinking", *(f"{section}.{key}" for section in SETTINGS for key in (*SETTINGS[section], "policy"))]
values = (
    st.text()
    | st.floats().map(str)
    | st.integers().map(str)
    | st.sampled_from([*DEFAULTS["prefill"], *DEFAULTS["keep"], "none", "9" * 5000, "\\ud800", '"a', "\\x", "\ud800"])
)
names = st.sampled_from(NAMES) | st.text()


def never_but_one_line(name: str, value: str) -> None:
    session = make_session()
    for act in (
        lambda: dispatch(session, f"/set {name} {value}"),
        lambda: load_profile("loopserve").with_overrides([f"{name}={value}"]),
        lambda: load_profile(f"full+{name}={value}") if "/" not in name + value and "\0" not in name + value else None,
    ):
        try:
            act()
        except LoopserveError as error:
            assert isinstance(str(error), str)


@settings(deadline=None, max_examples=300)
@given(names, values)
def test_set_never_raises_anything_else(name: str, value: str) -> None:
    never_but_one_line(name, value)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000)
@given(names, values)
def test_set_never_raises_anything_else_long(name: str, value: str) -> None:
    never_but_one_line(name, value)
