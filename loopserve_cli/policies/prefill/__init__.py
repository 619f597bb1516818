"""Prefill policies: each says which vertical and slash lines of one layer's attention are worth computing.

A policy is one file and one row here; its settings stand in `loopserve_cli.profile`.
"""

from __future__ import annotations

from loopserve_cli.policies.prefill.a_shape import AShape
from loopserve_cli.policies.prefill.base import PrefillPolicy
from loopserve_cli.policies.prefill.chosen import ChosenLines
from loopserve_cli.policies.prefill.dense import Dense
from loopserve_cli.policies.prefill.minference import MInference
from loopserve_cli.policies.prefill.online import Online
from loopserve_cli.policies.prefill.tri_shape import TriShape
from loopserve_cli.policies.prefill.turn import PrefillTurn
from loopserve_cli.profile import PolicyOptions

POLICIES: dict[str, type[PrefillPolicy]] = {
    "dense": Dense,
    "a_shape": AShape,
    "tri_shape": TriShape,
    "minference": MInference,
    "online": Online,
}


def prefill_policy(options: PolicyOptions) -> PrefillPolicy:
    """The policy that a profile names, with the profile's numbers."""
    return POLICIES[options.policy](**options.settings)


__all__ = ["POLICIES", "ChosenLines", "PrefillPolicy", "PrefillTurn", "prefill_policy"]
