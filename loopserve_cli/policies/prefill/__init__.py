"""Prefill policies: each says which lines, or which blocks, of one layer's attention are worth computing.

A policy is one file and one row here; its settings stand in `loopserve_cli.profile`.
"""

from __future__ import annotations

from loopserve_cli.policies.prefill.a_shape import AShape
from loopserve_cli.policies.prefill.base import BlockPolicy, LinePolicy, PrefillPolicy
from loopserve_cli.policies.prefill.chosen import ChosenLines
from loopserve_cli.policies.prefill.dense import Dense
from loopserve_cli.policies.prefill.flexprefill import FlexPrefill
from loopserve_cli.policies.prefill.minference import MInference
from loopserve_cli.policies.prefill.online import Online
from loopserve_cli.policies.prefill.tri_shape import TriShape
from loopserve_cli.policies.prefill.turn import PrefillTurn
from loopserve_cli.policies.prefill.xattention import XAttention
from loopserve_cli.profile import PolicyOptions

POLICIES: dict[str, type[LinePolicy] | type[BlockPolicy]] = {
    "dense": Dense,
    "a_shape": AShape,
    "tri_shape": TriShape,
    "minference": MInference,
    "online": Online,
    "flexprefill": FlexPrefill,
    "xattention": XAttention,
}


def prefill_policy(options: PolicyOptions) -> LinePolicy | BlockPolicy:
    """The policy that a profile names, with the profile's numbers."""
    return POLICIES[options.policy](**options.settings)


def line_policy(options: PolicyOptions) -> LinePolicy:
    """The same, for those who measure lines; the policy must be one that chooses them."""
    policy = prefill_policy(options)
    assert not isinstance(policy, BlockPolicy), f"{options.policy} chooses blocks"
    return policy


__all__ = [
    "POLICIES",
    "BlockPolicy",
    "ChosenLines",
    "LinePolicy",
    "PrefillPolicy",
    "PrefillTurn",
    "line_policy",
    "prefill_policy",
]
