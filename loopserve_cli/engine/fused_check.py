"""Whether a model's fused pass says what its own code says: a short look, when it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from loopserve_cli.engine.attention_check import looked_at, off_by, our_logits, tolerance
from loopserve_cli.engine.handover import Handover

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from loopserve_cli.engine.fused import FusedModel


@torch.inference_mode()
def says_the_same(model: PreTrainedModel, fused: FusedModel, layers: int) -> bool:
    """Whether a prompt, two steps and a second prompt give the same logits, from a store and attention of ours."""
    pieces = looked_at(model)
    own, ours = (our_logits(one, layers, pieces, Handover()) for one in (model, fused))
    return off_by(ours, own) <= tolerance(model)
