"""What was undone leaves no trace: random dialogues with detours give the answers of dialogues without them."""

from __future__ import annotations

from functools import cache

import pytest
import tiny
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.profile import load_profile

PROFILES = ("full", "loopserve", "loopserve-prefill", "snapkv", "adakv", "h2o", "streaming-llm", "quest")
TIERS = ("device", "host", "evict")
TEXTS = ("The room of Miro Falk is 417.", "Hello.", "The code of Lena Dorn is 8823, and of Ari Holt it is 19.", "Why?")
# A turn is a text, how many tokens may come, and after how many it is cancelled.
ASK = st.tuples(st.just("ask"), st.sampled_from(TEXTS), st.integers(1, 20), st.integers(0, 25))
STEPS = st.lists(st.one_of(ASK, ASK, st.just(("undo",)), st.just(("retry",))), min_size=2, max_size=7)


@cache
def model() -> LoadedModel:
    return tiny.loaded("llama")


def conversation(profile: str, tier: str) -> Conversation:
    changes = [f"retain.tier={tier}"]
    changes += [] if profile in ("full", "loopserve-prefill") else ["keep.budget=20"]
    if profile.startswith("loopserve"):
        changes += ["prefill.min_new=4", "prefill.min_keys=8", "prefill.sample_rows=4", "prefill.dense_rows=1"]
    changes += ["keep.interval=3", "keep.recent=4"] if profile == "loopserve" else []
    changes += ["keep.page=4", "keep.dense_layers=0"] if profile == "quest" else []
    changes += ["keep.window=12"] if profile in ("snapkv", "adakv") else []
    return Conversation(Engine(model(), load_profile(profile).with_overrides(changes)))


def ask(talk: Conversation, text: str, most: int, stop_at: int) -> None:
    seen: list[int] = []
    for event in talk.ask(text, SamplingOptions(max_new_tokens=most), cancelled=lambda: len(seen) >= stop_at):
        if isinstance(event, Token):
            seen.append(event.id)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("profile", PROFILES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
@example(steps=[("ask", TEXTS[2], 8, 8), ("ask", TEXTS[0], 1, 0), ("ask", TEXTS[0], 1, 0), ("undo",)])
@example(steps=[("ask", TEXTS[0], 2, 2), ("ask", TEXTS[0], 1, 0), ("ask", TEXTS[0], 1, 0), ("undo",)])
def test_detours_leave_no_trace(profile: str, tier: str, steps: list[tuple]) -> None:
    if tier == "evict" and profile in ("full", "loopserve-prefill", "adakv", "quest"):
        return
    astray, kept = conversation(profile, tier), []
    for name, *turn in steps:
        if name == "ask":
            ask(astray, *turn)
            kept.append(turn)
        elif kept:
            astray.undo()
            if name == "retry":
                ask(astray, *kept[-1])
            else:
                kept.pop()
    straight = conversation(profile, tier)
    for turn in kept:
        ask(straight, *turn)
    assert [(m.role, m.content, m.partial) for m in astray.messages] == [
        (m.role, m.content, m.partial) for m in straight.messages
    ]
    ask(astray, TEXTS[0], 12, 99), ask(straight, TEXTS[0], 12, 99)
    assert astray.messages[-1].content == straight.messages[-1].content
