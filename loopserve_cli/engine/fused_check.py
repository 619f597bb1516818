"""Whether a model's fused pass says what its own code says: a short look, when it is loaded onto a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from loopserve_cli.engine.attention_check import looked_at, off_by, our_logits, tolerance
from loopserve_cli.engine.fused import FusedModel
from loopserve_cli.engine.fused_parts import find_parts
from loopserve_cli.engine.handover import Handover

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def fused_model(model: PreTrainedModel, layers: int, handover: Handover, join: bool = True) -> FusedModel | None:
    """A model's fused pass, or None where its layers have other parts, or its logits are not the model's own.

    A prompt, two steps and a second prompt go through both, from the same store and attention. With `join` weights of
    one input come to lie together, which the model's own modules then see in parts.
    """
    parts = find_parts(model, join) if handover == Handover() else None
    if parts is None:
        return None
    fused = FusedModel(parts)
    pieces = looked_at(model)
    own, ours = (our_logits(one, layers, pieces, handover) for one in (model, fused))
    return fused if off_by(ours, own) <= tolerance(model) else None
