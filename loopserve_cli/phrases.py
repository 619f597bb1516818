"""What a policy does, said with its numbers as they are set: what profiles' descriptions are filled with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loopserve_cli.policy_settings import DEFAULTS, POLICIES, SETTINGS

# In a description: {prefill} and {keep} are what the policies do, {keep.budget} is the value of one setting.
PLACE = re.compile(r"\{(prefill|keep|retain)(?:\.([a-z_]+))?\}")
UNSET = "n/a"

PHRASES: dict[str, dict[str, str]] = {
    "prefill": {
        "dense": "dense prefill",
        "a_shape": "prefill sees {sinks} first and {local} nearest keys",
        "tri_shape": "prefill sees {sinks} first and {local} nearest keys, and the last {dense_rows} rows everything",
        "minference": "prefill computes {verticals} verticals and {slashes} slashes a head, by the last {window} rows",
        "online": "prefill computes the lines that hold {alpha} of the attention",
        "flexprefill": "prefill computes blocks of {block} that hold {gamma} of pooled or of the last rows' attention",
        "xattention": "prefill computes blocks of {block} that hold {threshold} of scores by antidiagonals",
    },
    "keep": {
        "everything": "every key read",
        "streaming": "decoding reads {first} first and {latest} recent keys",
        "snapkv": "the prompt's last {window} rows choose {budget} keys per head, once",
        "adakv": "SnapKV's scores choose {budget} keys per head on average, shared out over a layer's heads",
        "h2o": "{hitters} heavy hitters of this turn and {latest} recent keys per head, once",
        "progressive": "{beginning} {budget} keys per head, chosen anew every {interval}",
        "quest": "after {dense_layers} dense layers a token reads the {most} pages of {page} keys it may look at most",
        "expected_attention": "what the next {future} queries can be expected to look at, {budget} keys per head, once",
    },
}


def phrase(section: str, policy: str, settings: Mapping[str, Any]) -> str:
    """What a policy does, in some words; settings not given are the defaults, and an unknown policy is its name."""
    known = {**DEFAULTS.get(section, {}).get(policy, {}), **settings}
    words = {key: written(key, value) for key, value in (known | _derived(policy, known)).items()}
    return PHRASES.get(section, {}).get(policy, policy).format_map(words)


def _derived(policy: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that follow from a policy's settings."""
    match policy:
        case "streaming":
            first = min(settings["sinks"], settings["budget"])
            return {"first": first, "latest": settings["budget"] - first}
        case "h2o":
            latest = settings["budget"] // 2
            return {"hitters": settings["budget"] - latest, "latest": latest}
        case "quest":
            return {"most": max(1, settings["budget"] // settings["page"])}
        case "progressive":
            whole = f"every key read for {written('interval', settings['interval'])} tokens, then"
            return {"beginning": whole if settings["first"] == "full" else "from the prompt's end on"}
    return {}


def written(key: str, value: Any) -> str:
    """A value as a description shows it: thousands are separated, shares of attention are percentages."""
    if key in ("alpha", "gamma", "threshold") and isinstance(value, int | float):
        return f"{100 * value:.6g}%"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def filled(description: str, sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A description with its places filled from the settings of each section, the policy among them.

    A setting that the policy does not read is "n/a". Other braces stay as they are.
    """

    def put(place: re.Match[str]) -> str:
        section, key = place[1], place[2]
        if key is None and section in POLICIES:
            settings = {name: value for name, value in sections[section].items() if name != "policy"}
            return phrase(section, str(sections[section]["policy"]), settings)
        if key is None:
            return place[0]
        return written(key, sections[section][key]) if key in sections[section] else UNSET

    return PLACE.sub(put, description)


def unknown_place(description: str) -> tuple[str, list[str]] | None:
    """The first place that names no setting, and the names that it could have; None where all are known."""
    for place in PLACE.finditer(description):
        section, key = place[1], place[2]
        known = [*(["policy"] if section in POLICIES else []), *SETTINGS[section]]
        if key is not None and key not in known:
            return f"{section}.{key}", [f"{section}.{name}" for name in known]
    return None
