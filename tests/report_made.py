"""Documents of runs that nobody measured, for the report: every figure in them is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loopserve_cli.replay.document import document
from loopserve_cli.stats import TurnRecord

ENVIRONMENT = {"timestamp": "2026-01-02T03:04:05+00:00", "cpu": None, "memory_bytes": 2**30, "versions": {"torch": "2"}}


def record(dialogue: str, turn: int, profile: str, repeat: int = 1, **rest: Any) -> TurnRecord:
    """TTFT is 100 ms and 10 for each turn, half of it for any but `full`, and a millisecond more for each repeat."""
    known: dict[str, Any] = {
        "model": "made",
        "device": "cpu",
        "ttft_ms": (100.0 + 10 * turn) / (1 if profile == "full" else 2) + repeat,
        "tpot_ms": 8.0,
        "keys_read": 50 * turn,
        "keys_stored": 100 * turn,
        "tokens_logical": 100 * turn,
        "kv_store_device_bytes": 0,
        "kv_store_host_bytes": turn * 2**20,
        "working_set_bytes": 0,
        "output_text": "Yes.",
    }
    if profile != "full" and repeat == 1:
        known |= {"kl_mean": 0.00123 * turn, "tokens_forced": 3}
    return TurnRecord(conversation_id=dialogue, turn=turn, profile=profile, repeat=repeat, **{**known, **rest})


def made(
    profiles: Sequence[str] = ("full", "loopserve"),
    dialogues: Sequence[str] = ("talk",),
    turns: int = 4,
    repeats: int = 2,
    more: Sequence[TurnRecord] = (),
) -> dict[str, Any]:
    """The document of a run with all of these."""
    records = [
        record(dialogue, turn, profile, repeat)
        for repeat in range(1, repeats + 1)
        for dialogue in dialogues
        for profile in profiles
        for turn in range(1, turns + 1)
    ]
    settings = {"prefill": {"policy": "dense", "settings": {}}, "keep": {"policy": "everything", "settings": {"a": 1}}}
    options = {
        "sampling": {"temperature": 0.0, "seed": None},
        "profiles": [{"name": name, "about": "", **settings} for name in profiles],
    }
    command = {
        "name": "replay",
        "argv": ["replay", "a talk.jsonl"],
        "options": options,
        "histories": dict.fromkeys(dialogues, "recorded"),
    }
    return document(command, ENVIRONMENT, [*records, *more])


def chosen(dialogue: str, profile: str, turn: int, density: float, coverage: float | None = 0.95) -> dict[str, Any]:
    """A line of heads.jsonl: two layers of three heads, the second layer dense; decoding read everything."""
    return left_out(dialogue, profile, turn) | {
        "layers": [0, 1],
        "density": [[density] * 3, [1.0] * 3],
        "coverage": [[coverage] * 3, [1.0 if coverage is not None else None] * 3],
    }


def left_out(dialogue: str, profile: str, turn: int, read: float | None = None) -> dict[str, Any]:
    """A line of heads.jsonl in which decoding read that share of one layer's keys; prefill left nothing out."""
    return {
        "conversation_id": dialogue,
        "profile": profile,
        "repeat": 1,
        "turn": turn,
        "layers": [],
        "density": [],
        "coverage": [],
        "read_layers": [] if read is None else [4],
        "read": [] if read is None else [[read, 1.0]],
    }
