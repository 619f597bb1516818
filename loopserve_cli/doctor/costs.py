"""Whose costs the choice of sparse or dense attention goes by."""

from __future__ import annotations

from loopserve_cli.doctor.check import Check
from loopserve_cli.errors import LoopserveError

ADVICE = "loopserve bench device --write-costs measures this machine"


def cost_check(device: str, dtype: str) -> Check:
    """Whether a device, "cpu" or "cuda:N", was measured in the dtype that models run in there."""
    import torch

    from loopserve_cli.policies.prefill.device_costs import costs_for

    try:
        costs = costs_for(torch.device(device), getattr(torch, dtype))
    except LoopserveError as error:
        return Check("costs", "problem", str(error), ADVICE)
    note = costs.note()
    if note is not None:
        return Check("costs", "note", note.partition(";")[0], ADVICE)
    return Check("costs", "ok", f"of attention and choosing, measured on {costs.where}, {costs.dtype}, {costs.date}")
