"""The rotary positions of a model, for whoever must turn queries back, or to places where none stands yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopserve_cli.engine.fused_parts import KINDS
from loopserve_cli.engine.rotary import length_dependence
from loopserve_cli.errors import UsageError
from loopserve_cli.policies.keep import POLICIES
from loopserve_cli.profile import Profile

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The architectures that turn the queries of every layer as `loopserve_kernels.rotate` does, by their decoder's
# `rotary_emb`; Gemma 3 has one for each kind of layer.
TURNING = KINDS | {"gemma", "gemma2", "gemma3_text"}


@dataclass(frozen=True, slots=True)
class Rope:
    """A model's `rotary_emb`, and of every layer the kind that it is told, where it is told one."""

    module: Any
    kinds: tuple[str, ...] | None

    def at(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, fp32 [n, R], of int64 positions [n], on their device."""
        kind = () if self.kinds is None else (self.kinds[layer],)
        like = torch.empty(0, device=positions.device)
        cos, sin = self.module(like, positions[None], *kind)
        return cos[0].to(positions.device), sin[0].to(positions.device)


def find_rope(model: PreTrainedModel) -> Rope | None:
    """The rotary positions of a model of these kinds; None for another, and where they depend on the whole length."""
    config: Any = model.config
    if config.model_type not in TURNING or length_dependence(config) is not None:
        return None
    decoder: Any = model.get_decoder()
    kinds = tuple(config.layer_types) if config.model_type == "gemma3_text" else None
    return Rope(decoder.rotary_emb, kinds)


def check_rope(profile: Profile, rope: Rope | None) -> None:
    """Raise UsageError where a profile must know a model's rotary positions, and they are not known."""
    if rope is None and POLICIES[profile.keep.policy].expects:
        kinds = ", ".join(sorted(TURNING))
        raise UsageError(
            f"profile {profile.name} turns queries by their rotary positions, which it knows of {kinds}, without "
            "longrope and dynamic scaling; choose another profile"
        )
