"""What every setting means, each in a line."""

from __future__ import annotations

# What a chat's `/set` changes beside the profile.
CHAT = {
    "temperature": "0 always takes the likeliest token; larger is more varied",
    "top_p": "draw from the likeliest tokens that hold this much probability",
    "top_k": "draw from this many likeliest tokens; 0 is off",
    "min_p": "drop tokens below this share of the likeliest one's probability",
    "repetition_penalty": "above 1 discourages repetition",
    "max_new_tokens": "the longest answer, in tokens",
    "seed": "makes sampled answers repeatable",
    "stop": "end the answer before one of these texts",
    "thinking": "show what a model thinks before it answers, or fold it to a line",
    "turn_line": "say in a line after each turn what it measured",
}
PROFILE = {
    "prefill.policy": "how new tokens attend to the dialogue",
    "prefill.alpha": "share of the sampled attention that chosen lines must hold",
    "prefill.sample_rows": "rows of an input whose attention is looked at",
    "prefill.candidates": "most lines per head that are ranked",
    "prefill.share": "lines for every query head, or for those of a group together",
    "prefill.objective": "what the choice of lines makes small",
    "prefill.verticals": "vertical lines per head",
    "prefill.slashes": "slash lines per head",
    "prefill.window": "last rows, whose attention ranks the lines",
    "prefill.sinks": "first keys that are always computed",
    "prefill.local": "nearest keys that are always computed",
    "prefill.dense_rows": "last rows of a turn that see everything",
    "prefill.min_new": "with fewer new tokens prefill is dense",
    "prefill.min_keys": "with fewer keys prefill is dense",
    "prefill.most_density": "a head that would compute more than this share is dense",
    "keep.policy": "which keys decoding reads",
    "keep.budget": "keys per key-value head that decoding reads",
    "keep.interval": "output tokens between two choices of keys",
    "keep.first": "before any output: read everything, or choose from the prompt",
    "keep.group": "how the query heads of a key-value head are brought together",
    "keep.follow": "keys after one that was looked at, which count as looked at",
    "keep.sinks": "first keys that are always read",
    "keep.recent": "most recent keys that are always read",
    "keep.window": "last rows of the prompt, whose attention judges",
    "keep.pool_width": "neighbours over which a key's score is averaged",
    "keep.floor": "share of the budget that no head can lose",
    "keep.page": "keys of a page, which is read whole or not at all",
    "keep.dense_layers": "first layers, which read everything",
    "keep.future": "positions to come, over which the expected queries are averaged",
    "keep.epsilon": "added to the expected attention before the value's size counts",
    "retain.tier": "where the full history stays, or whether it is let go of",
}
MEANINGS = CHAT | PROFILE
