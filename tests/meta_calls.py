"""Calls of the kernels' public seams on tensors of the meta device, at the sizes that an 8B model has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.coverage import bucket_mass, coverage_histogram
from loopserve_kernels.decode import decode_attention
from loopserve_kernels.gather import gather_keys
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.lines import line_mass


@dataclass(frozen=True)
class Case:
    """A model's attention: heads, key-value heads, head size and dtype; a call is made at a length in tokens."""

    size: int = 128
    dtype: torch.dtype = torch.bfloat16
    heads: int = 32
    groups: int = 8

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} D={self.size} {self.heads}/{self.groups}"

    def floats(self, *shape: int) -> Tensor:
        return torch.empty(*shape, self.size, dtype=self.dtype, device="meta")


def integers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def sampled(case: Case, length: int) -> tuple[Tensor, Tensor, Tensor, float]:
    return case.floats(case.heads, 64), integers(64, dtype=torch.int64), case.floats(case.groups, length), 0.1


def masses(case: Case, length: int) -> None:
    line_mass(*sampled(case, length))


def histogram(case: Case, length: int) -> None:
    ranks = integers(2, case.heads, length)
    coverage_histogram(*sampled(case, length), torch.empty(case.heads, 64, device="meta"), *ranks, 100)


def buckets(case: Case, length: int) -> None:
    lse = torch.empty(case.heads, 64, device="meta")
    bucket_mass(*sampled(case, length), lse, integers(case.heads, length), 32)


def decoding(case: Case, length: int) -> None:
    store = case.floats(2, case.groups, length)
    decode_attention(case.floats(case.heads), store[0], store[1], integers(case.groups), 0.1)


def masses_of_keys(case: Case, length: int) -> None:
    query, positions = case.floats(case.heads, 16), integers(16, dtype=torch.int64)
    key_mass(query, positions, case.floats(case.groups, length), 0.1, count=integers(1))


def gathering(case: Case, length: int) -> None:
    """As many keys as were chosen of a history of this length."""
    chosen = min(length, 1023)
    store, room = case.floats(2, case.groups, length), case.floats(2, case.groups, 1056)
    index, count = integers(case.groups, chosen), integers(case.groups)
    gather_keys(store[0], store[1], index, count, room[0], room[1])


CALLS: dict[str, Callable[[Case, int], None]] = {
    "line mass": masses,
    "coverage": histogram,
    "buckets": buckets,
    "decode attention": decoding,
    "key mass": masses_of_keys,
    "gather": gathering,
}
