"""What the answers say: by length and profile, beside the bound and the full cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from loopserve_cli.bench.decode.bound import Bound
from loopserve_cli.bench.decode.rounds import Answer
from loopserve_cli.measure.ratio import paired, place_of, ratio_of
from loopserve_cli.measure.spread import spread


def summarise(answers: Sequence[Answer], profiles: Sequence[str], bound: Bound) -> list[dict[str, Any]]:
    """One entry per length, with a row for each of `profiles`, of which the first is the baseline."""
    found = []
    for tokens in dict.fromkeys(answer.tokens for answer in answers):
        of = {name: [a for a in answers if (a.tokens, a.record.profile) == (tokens, name)] for name in profiles}
        rows = {name: row_of(own, bound) for name, own in of.items()}
        steps = {name: {place_of(a.record): a.step_ms for a in own} for name, own in of.items()}
        for name in profiles[1:]:
            gains = paired(steps[profiles[0]], steps[name])
            most = rows[profiles[0]]["bound_ms"] / rows[name]["bound_ms"]
            interval = ratio_of(gains)
            rows[name] |= {"gain": spread(gains.values()), "most_gain": most}
            rows[name]["gain_interval"] = None if interval is None else asdict(interval)
        found.append({"tokens": tokens, "profiles": rows})
    return found


def row_of(answers: Sequence[Answer], bound: Bound) -> dict[str, Any]:
    """One profile at one length: times over the rounds, and the last answer's counts and bytes, alike in all.

    `step_ms` is a settled step's, `bound_share` how much of the bound it reaches, `gain` the baseline's step over it in
    the same round, `gain_interval` its mean with the 95% interval, and `most_gain` what their bounds allow; None for
    the baseline. `kv_device_bytes` is None on a CPU.
    """
    record = answers[-1].record
    assert record.keys_read is not None and record.keys_stored is not None
    assert record.kv_store_device_bytes is not None and record.working_set_bytes is not None
    bound_ms = bound.step_ms(record.keys_read)
    full = record.keys_stored * bound.kv_bytes_per_token
    on_device = record.kv_store_device_bytes + record.working_set_bytes if record.peak_device_bytes else None
    return {
        "tpot_ms": spread(answer.record.tpot_ms for answer in answers),
        "step_ms": spread(answer.step_ms for answer in answers),
        "bound_ms": bound_ms,
        "bound_share": spread(bound_ms / answer.step_ms for answer in answers),
        "gain": None,
        "gain_interval": None,
        "most_gain": None,
        "choosing_share": spread(answer.choosing_share for answer in answers),
        "steps": len(record.itl_ms),
        "open_steps": answers[-1].open_steps,
        "graph_replays": record.graph_replays,
        "graph_refusal": record.graph_refusal,
        "step_kernels": record.step_kernels,
        "reselections": record.reselections,
        "keys_read": record.keys_read,
        "keys_stored": record.keys_stored,
        "kv_full_bytes": full,
        "kv_device_bytes": on_device,
        "kv_device_share": None if on_device is None else on_device / full,
        "kv_store_host_bytes": record.kv_store_host_bytes,
        "working_set_bytes": record.working_set_bytes,
    }
