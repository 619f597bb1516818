"""SnapKV, AdaKV, StreamingLLM and expected attention keep what the presses of kvpress keep, on the same tensors.

`kvpress/chosen.json` holds their choices; `kvpress/ask.py`, which needs an environment of its own, asked for them and
says how settings correspond. No tolerance is needed: a choice whose cut falls between scores closer than 1e-5 (1e-4 for
expected attention) was not written down, and single precision is finer than that.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from kvpress_tensors import Shape, after_rope, checksum, ranges, rope
from torch import Tensor

from loopserve_cli.engine.layer_decoding import spread
from loopserve_cli.policies.keep import ExpectedQueries, ScoringWindow, keep_policy
from loopserve_cli.profile import KEEP_DEFAULTS, PolicyOptions

CHOSEN = json.loads((Path(__file__).parent / "kvpress" / "chosen.json").read_text(encoding="utf-8"))
CHOICES = [(Shape(**{k: v for k, v in one["tensors"].items() if k != "sha256"}), one) for one in CHOSEN["choices"]]
NAMES = [f"{shape.heads}-{shape.kv_heads}-{shape.size}-{shape.keys}" for shape, _ in CHOICES]
POLICIES = ("streaming", "snapkv", "adakv", "expected_attention")
turned = cache(after_rope)


def kept(shape: Shape, policy: str, settings: dict[str, Any], device: str = "cpu") -> list[str]:
    """What our policy keeps of every key-value head."""
    query, key = (part.to(device) for part in turned(shape))
    keep = keep_policy(PolicyOptions(policy, settings))
    rows = torch.arange(shape.keys - keep.window, shape.keys, device=device)
    expected = None
    if keep.expects:

        def at(places: Tensor) -> tuple[Tensor, Tensor]:
            cos, sin = rope(shape, int(places[0]), len(places))
            return cos.to(device), sin.to(device)

        told, half = torch.arange(keep.sinks, shape.keys), shape.keys // 2  # in two chunks
        seen = spread(None, query[:, told[:half]], at(told[:half]))
        expected = ExpectedQueries(spread(seen, query[:, told[half:]], at(told[half:])), at, shape.keys)
    value = torch.arange(shape.keys, device=device)[:, None].expand_as(key)
    window = ScoringWindow(query[:, rows], rows, key, shape.size**-0.5, expected=expected, value=value)
    keys = keep.select(window)
    assert keys is not None
    return [ranges(row[:count]) for row, count in zip(keys.index.tolist(), keys.count.tolist(), strict=True)]


def asked(policy: str) -> list[tuple[Shape, dict[str, Any], list[str]]]:
    """Every question put to one press, with its answer."""
    return [
        (shape, entry["settings"], entry["kept"])
        for shape, choice in CHOICES
        for entry in choice["asked"]
        if entry["policy"] == policy
    ]


@pytest.mark.parametrize(("shape", "choice"), CHOICES, ids=NAMES)
def test_the_tensors_are_those_that_the_presses_saw(shape: Shape, choice: dict[str, Any]) -> None:
    assert checksum(*turned(shape)) == choice["tensors"]["sha256"]


def test_every_press_was_asked_every_setting() -> None:
    """The file is whole: all four presses, groups of 1, 2 and 4 heads, odd lengths, several windows and widths."""
    assert {shape.heads // shape.kv_heads for shape, _ in CHOICES} == {1, 2, 4}
    assert {shape.keys for shape, _ in CHOICES} == {97, 333, 1000}
    assert [len(asked(policy)) for policy in POLICIES] == [27, 27, 162, 27]
    for policy in POLICIES:
        for setting in KEEP_DEFAULTS[policy]:
            assert len({settings[setting] for _, settings, _ in asked(policy)}) >= 4, (policy, setting)
    assert all(entry["gap"] >= 1e-5 for _, choice in CHOICES for entry in choice["asked"] if entry["gap"] is not None)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("policy", POLICIES)
def test_our_policy_keeps_what_the_press_keeps(policy: str, device: str) -> None:
    for shape, settings, theirs in asked(policy):
        assert kept(shape, policy, settings, device) == theirs, (shape, settings)


@pytest.mark.parametrize(
    ("policy", "setting", "step"),
    [("streaming", "sinks", 1), ("streaming", "budget", -1)]
    + [(policy, *change) for policy in ("snapkv", "adakv") for change in (("window", -1), ("pool_width", 2))]
    + [("snapkv", "budget", -1), ("adakv", "budget", -1), ("adakv", "floor", -0.1)]
    + [("expected_attention", *change) for change in (("budget", -1), ("sinks", 1), ("epsilon", 0.05), ("future", 9))],
)
def test_a_policy_that_is_a_little_off_would_be_seen(policy: str, setting: str, step: float) -> None:
    """In most of the questions; a floor is felt only where a head would win less, and a few places more hardly ever."""
    questions = asked(policy)
    seen = 0
    for shape, settings, theirs in questions:
        value = settings[setting] + step
        if 0 <= value <= (1 if setting == "floor" else shape.keys):
            seen += kept(shape, policy, {**settings, setting: value}) != theirs
    assert seen > len(questions) * (0.1 if setting in ("floor", "future") else 0.7), f"{seen} of {len(questions)}"
