"""Calls of the kernels' public seams on tensors of the meta device, at the sizes that an 8B model has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.block_index import make_block_index
from loopserve_kernels.block_sparse import block_sparse
from loopserve_kernels.blocks import BlockGrid, Blocks
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.decode import decode_attention
from loopserve_kernels.gated import silu_mul
from loopserve_kernels.gather import gather_keys
from loopserve_kernels.index import make_index
from loopserve_kernels.key_mass import key_mass
from loopserve_kernels.lines import line_mass
from loopserve_kernels.norm import add_rms_norm
from loopserve_kernels.page_scores import page_scores
from loopserve_kernels.rotate import rotate
from loopserve_kernels.rotation import Rotation
from loopserve_kernels.rules import Rules
from loopserve_kernels.sample import make_sample
from loopserve_kernels.step_place import RingPlace, StorePlace, WorkingPlace
from loopserve_kernels.step_write import step_write
from loopserve_kernels.tile_index import Index
from loopserve_kernels.vertical_slash import block_shape, vertical_slash


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


def choosing(case: Case, length: int, objective: str = "latency") -> None:
    """All rows of a chunk that begins a dialogue."""
    device = torch.device("meta")
    rules = Rules(candidates=8192, objective=objective, wide=True, most_columns=length / 2)
    sample = make_sample(length, length, min(64, length), case.heads, device, None)
    sample.lines(case.floats(case.heads, length), case.floats(case.groups, length), 0.1, "head", rules)


def choosing_greedily(case: Case, length: int) -> None:
    choosing(case, length, "lines")


def choosing_the_fewest(case: Case, length: int) -> None:
    choosing(case, length, "optimal")


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


def indexing(case: Case, length: int, plans: int | None = None) -> Index:
    """The index of an eighth of a history, of every head's own lines or of each group's."""
    plans, most = plans or case.heads, min(length, 2048)
    counts, flags = integers(2, plans), integers(2, plans, dtype=torch.bool)
    mass = torch.empty(plans, device="meta")
    lines = Lines(integers(plans, most), counts[0], integers(plans, most), counts[1], mass, flags[0], flags[1])
    shape = block_shape(case.size, case.dtype, torch.device("meta"))
    return make_index(lines, -(-length // 8), length, *shape, 64, length**2 / 32)


def attending(case: Case, length: int, plans: int | None = None) -> None:
    index = indexing(case, length, plans)
    query = case.floats(-(-length // 8), case.heads).transpose(0, 1)
    store = case.floats(2, case.groups, length)
    vertical_slash(query, store[0], store[1], index, 0.1, 64)


def attending_in_pairs(case: Case, length: int) -> None:
    attending(case, length, case.groups)


def attending_by_blocks(case: Case, length: int) -> None:
    """An eighth of a history, in blocks of 128."""
    grid = BlockGrid(-(-length // 8), length, 128)
    chosen = integers(case.heads, grid.rows, grid.columns, dtype=torch.bool)
    index = make_block_index(Blocks(grid, chosen, torch.empty(case.heads, device="meta")), length**2 / 32)
    store = case.floats(2, case.groups, length)
    block_sparse(case.floats(grid.new, case.heads).transpose(0, 1), store[0], store[1], index, 0.1)


def normed(case: Case, length: int) -> None:
    rows = case.floats(length, case.heads).flatten(1)
    add_rms_norm(rows, rows, rows[0], 1e-6)


def gating(case: Case, length: int) -> None:
    both = case.floats(length, 2, case.heads).flatten(2)
    silu_mul(both[:, 0], both[:, 1])


def rotation(case: Case, rows: int) -> Rotation:
    return Rotation(case.floats(rows), case.floats(rows), case.floats(), case.floats(), 1e-6)


def rotating(case: Case, length: int) -> None:
    rotate(case.floats(length, case.heads), case.floats(length, case.groups), rotation(case, length))


def writing(case: Case, length: int) -> None:
    """One token into a store of this length, its ring and its working set."""
    here, row = case.floats(2, case.groups), integers(1, dtype=torch.int64)
    store, working = case.floats(2, case.groups, length), case.floats(2, case.groups, 1024)
    ring = RingPlace(case.floats(case.heads, 16), integers(16, dtype=torch.int64), row, row)
    held = WorkingPlace(working[0], working[1], integers(case.groups))
    step_write(case.floats(case.heads), *here, StorePlace(*store, row), ring, held, rotation(case, 1))


def scoring_pages(case: Case, length: int) -> None:
    """The pages of a store with room for this many keys."""
    low, high = case.floats(2, case.groups, -(-length // 16))
    page_scores(case.floats(case.heads), low, high, integers(1, dtype=torch.int64), 16)


CALLS: dict[str, Callable[[Case, int], object]] = {
    "line mass": masses,
    "choosing": choosing,
    "choosing, lines": choosing_greedily,
    "choosing, optimal": choosing_the_fewest,
    "decode attention": decoding,
    "key mass": masses_of_keys,
    "gather": gathering,
    "page scores": scoring_pages,
    "index": indexing,
    "norm": normed,
    "gate": gating,
    "rotation": rotating,
    "step write": writing,
    "attention": attending,
    "attention in pairs": attending_in_pairs,
    "attention by blocks": attending_by_blocks,
}
