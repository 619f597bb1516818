"""Keep policies: each says which keys of the full store a decode step reads.

A policy is one file and one row here; its settings stand in `loopserve_cli.profile`.
"""

from __future__ import annotations

from loopserve_cli.policies.keep.adakv import AdaKV
from loopserve_cli.policies.keep.base import KeepPolicy, Keys, ScoringWindow
from loopserve_cli.policies.keep.everything import Everything
from loopserve_cli.policies.keep.expected_attention import ExpectedAttention
from loopserve_cli.policies.keep.expected_queries import ExpectedQueries
from loopserve_cli.policies.keep.h2o import H2O
from loopserve_cli.policies.keep.progressive import Progressive
from loopserve_cli.policies.keep.quest import Quest
from loopserve_cli.policies.keep.snapkv import SnapKV
from loopserve_cli.policies.keep.stepwise import StepwisePolicy
from loopserve_cli.policies.keep.streaming import Streaming
from loopserve_cli.profile import PolicyOptions

POLICIES: dict[str, type[KeepPolicy]] = {
    "everything": Everything,
    "streaming": Streaming,
    "snapkv": SnapKV,
    "adakv": AdaKV,
    "h2o": H2O,
    "progressive": Progressive,
    "quest": Quest,
    "expected_attention": ExpectedAttention,
}


def keep_policy(options: PolicyOptions) -> KeepPolicy:
    """The policy that a profile names, with the profile's numbers."""
    return POLICIES[options.policy](**options.settings)


__all__ = ["POLICIES", "ExpectedQueries", "KeepPolicy", "Keys", "ScoringWindow", "StepwisePolicy", "keep_policy"]
