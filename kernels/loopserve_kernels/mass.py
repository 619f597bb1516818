"""The mass of lines: how much attention of the sampled rows lies on each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from loopserve_kernels.weights import SampledWeights


@dataclass(frozen=True, slots=True)
class LineMass:
    """Masses of every line over m sampled rows; P is H line heads (share "head") or G (share "group")."""

    lse: Tensor  # [H, m] fp32, natural log
    vertical: Tensor  # [P, N] fp32, by key
    slash: Tensor  # [P, N] fp32, by offset position - key
    weights: SampledWeights | Tensor  # what they were summed from; on a GPU [H, m, N] fp32
