"""What is not the same of two runs, in words: what makes them hard to compare, and what may explain a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loopserve_cli.measure.compare.past_run import PastRun
from loopserve_cli.measure.figures import number
from loopserve_cli.measure.fingerprint import differences

# Hashes of a model tell that it changed, and nothing else that a person could read.
HASHED = {"config": "configuration", "weights": "weights", "tokenizer": "tokenizer or chat template"}
EXPLAINING = ("settings", "versions", "machine")
# Two runs of one machine begin with about as many processes that want to run; from here on others were at work.
LOAD_APART = 1.0
LABELS = {"machine": "the machine's "}
# Of the settings: what the model and the device turned out to be stands in lines of their own.
TOLD_ELSEWHERE = ("model", "dtype", "device", "quant")


@dataclass(frozen=True, slots=True)
class Other:
    """One thing that is not the same; `incomparable` where figures of the two cannot be held against each other."""

    text: str
    incomparable: bool = False


def others(before: PastRun, now: PastRun, names: Mapping[str, str]) -> Iterator[Other]:
    """All of them, those that make the runs incomparable first. What one of the runs does not tell is passed over."""
    yield from _model(_both(before, now, "model"))
    device = before.facts.get("device"), now.facts.get("device")
    if None not in device and device[0] != device[1]:
        yield Other(f"device was {device[0]} and is {device[1]}", incomparable=True)
    yield from _endpoints(_both(before, now, "endpoints"))
    yield from _dialogues(_both(before, now, "dialogues"))
    yield from _profiles(before, now, names)
    for name in EXPLAINING:
        was, is_now = _both(before, now, name)
        shared = [key for key in was if key in is_now and key not in TOLD_ELSEWHERE]
        for text in differences({key: was[key] for key in shared}, {key: is_now[key] for key in shared}):
            yield Other(f"{LABELS.get(name, '')}{text}")
    yield from _load(before.facts.get("load"), now.facts.get("load"))


def _both(before: PastRun, now: PastRun, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A table of facts of both runs; empty where one of them does not tell."""
    was, is_now = before.facts.get(name), now.facts.get(name)
    return (was, is_now) if isinstance(was, Mapping) and isinstance(is_now, Mapping) else ({}, {})


def _model(facts: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[Other]:
    was, now = facts
    shared = [name for name in was if name in now and was[name] != now[name]]
    for name in shared:
        if name not in HASHED:
            label = "model" if name == "model" else f"model's {name}"
            yield Other(f"{label} was {was[name] or 'not set'} and is {now[name] or 'not set'}", incomparable=True)
    if "model" not in shared and "dtype" not in shared and "quant" not in shared:
        for name in shared:
            yield Other(f"the model's {HASHED[name]} changed", incomparable=True)


def _endpoints(facts: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[Other]:
    """Of servers that both runs asked, another model cannot be compared; another address may be the same server."""
    was, now = facts
    shared = [name for name in was if name in now]
    for text in differences({name: was[name] for name in shared}, {name: now[name] for name in shared}):
        yield Other(f"endpoint {text}", incomparable=".model was " in text)


def _dialogues(facts: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Iterator[Other]:
    was, now = facts
    changed = [name for name in now if name in was and was[name] != now[name]]
    if changed:
        yield Other(f"changed, cut elsewhere or of other words: dialogue {some(changed)}", incomparable=True)
    for one, other, said in ((was, now, "earlier"), (now, was, "later")):
        alone = [name for name in one if name not in other]
        if alone:
            yield Other(f"only the {said} run has dialogue {some(alone)}")


def _profiles(before: PastRun, now: PastRun, names: Mapping[str, str]) -> Iterator[Other]:
    was, is_now = _both(before, now, "profiles")
    for name, earlier in names.items():
        if name != earlier:
            yield Other(f"profile {earlier} is {name} now")
        elif name in was and name in is_now:
            yield from (Other(f"profile {name}: {text}") for text in _settings(was[name], is_now[name]))
    for one, known, said in ((before, names.values(), "earlier"), (now, names.keys(), "later")):
        alone = [name for name in one.profiles if name not in known]
        if alone:
            yield Other(f"only the {said} run has {', '.join(alone)}")


def _settings(was: Any, now: Any) -> Iterator[str]:
    for text in differences(was, now):
        yield text.replace(".settings.", ".", 1)


def _load(before: Any, now: Any) -> Iterator[Other]:
    """How busy the machine was over the minute before each run."""
    if isinstance(before, list) and isinstance(now, list) and before and now and abs(before[0] - now[0]) >= LOAD_APART:
        yield Other(f"the machine's load was {number(before[0])} and is {number(now[0])} as the run began")


def some(names: Sequence[str]) -> str:
    """The first of them, and how many there are beside it."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
