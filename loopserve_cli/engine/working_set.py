"""The small cache that decoding reads: chosen keys and values of one layer, and every token since."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loopserve_cli.policies.keep import Keys
from loopserve_kernels.decode import decode_attention
from loopserve_kernels.gather import gather_keys
from loopserve_kernels.page_index import page_index
from loopserve_kernels.step_place import WorkingPlace

GROWTH = 1.5
ROUND = 64


class WorkingSet:
    """Keys and values [G, C, D] whose first `lengths[g]` rows are valid: chosen ones ascending, then new ones.

    Keys are copied as they were stored, rotated once for good by their position in the dialogue. The buffers stay
    where they are until they must grow, so that a captured step can write and read them; `moves` counts how often
    they did not.
    """

    def __init__(self) -> None:
        """Nothing is allocated until the first choice."""
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.lengths: Tensor | None = None  # [G] int32, on the device
        self.longest = 0  # the largest of the lengths, on the host
        self.even = True  # all lengths are equal
        self.moves = 0
        self.pages: Tensor | None = None  # [G, K] int32, on the device, where whole pages are chosen within a step
        self._chosen: tuple[Keys, int] | None = None  # the choice, and among how many rows it was made
        self._paged: tuple[int, int] | None = None  # for one of `pages`: keys a page, and those rows

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes

    def fill(self, chosen: Keys, key: Tensor, value: Tensor, room: int) -> None:
        """Hold the chosen rows of key and value [G, N, D], which may lie in the host's memory, and room for `room`."""
        width = chosen.index.shape[1]
        self._reserve(key, value, width + room, chosen.index.device)
        assert self.keys is not None and self.values is not None and self.lengths is not None
        gather_keys(key, value, chosen.index, chosen.count, self.keys, self.values, self.lengths)
        self.longest = width
        self.even = chosen.even
        self._chosen, self._paged = (chosen, key.shape[1]), None

    def prepare(self, key: Tensor, value: Tensor, rows: int, pages: int, device: torch.device) -> None:
        """Room on the device for `rows` like those of key and value [G, N, D], and for the numbers of chosen `pages`.

        What it holds is written within a step.
        """
        self._reserve(key, value, rows + 1, device)
        if self.pages is None or self.pages.shape != (key.shape[0], pages):
            self.pages = torch.zeros(key.shape[0], pages, dtype=torch.int32, device=device)
            self.moves += 1

    def note_pages(self, page: int, keys: int, held: int) -> None:
        """A step has chosen among `keys` rows, in pages of so many, and reads `held` of them."""
        self.longest, self.even = held, True
        self._paged = page, keys
        self._chosen = None

    def make_room(self) -> None:
        """See that one more token fits."""
        if self.keys is not None and not self.has_room:
            self._grow(int(self.longest * GROWTH) + 1)

    @property
    def has_room(self) -> bool:
        """Whether one more token fits."""
        return self.keys is not None and self.longest < self.keys.shape[1]

    def place(self) -> WorkingPlace:
        """Where a step's kernel writes one token, if there is room; the host counts it with `advance`."""
        assert self.keys is not None and self.values is not None and self.lengths is not None
        return WorkingPlace(self.keys, self.values, self.lengths)

    def drop(self) -> None:
        """Take back the token that was written and not counted."""
        assert self.lengths is not None
        self.lengths -= 1

    def advance(self) -> None:
        """Count the token that was written."""
        self.longest += 1

    def attend(self, query: Tensor, scaling: float) -> Tensor:
        """Attention of one new row per head, query [H, D], over what is held; returns [H, D]."""
        assert self.keys is not None and self.values is not None and self.lengths is not None
        return decode_attention(query, self.keys, self.values, self.lengths, scaling)

    def between(self, cuts: Sequence[int]) -> list[float]:
        """Keys held of the store's rows between each two of the ascending `cuts`, per head; waits for the device."""
        index, count, rows = self._choice()
        edges = torch.tensor(cuts, dtype=torch.int32)
        below = torch.searchsorted(index, edges.expand(index.shape[0], -1).contiguous())
        below = below.minimum(count[:, None]).double().mean(0)  # padding follows what was chosen
        below += (edges - rows).clamp(0, self.longest - index.shape[1])  # every token since
        found: list[float] = below.diff().tolist()
        return found

    def _choice(self) -> tuple[Tensor, Tensor, int]:
        """What was chosen, index [G, K] and count [G] on the host, and among how many rows; waits for the device."""
        if self._paged is None:
            assert self._chosen is not None
            chosen, rows = self._chosen
            return chosen.index.cpu(), chosen.count.cpu().long(), rows
        assert self.pages is not None
        page, rows = self._paged
        index, count = page_index(self.pages.cpu(), page, torch.tensor([rows]))
        return index[:, : int(count[0])], count.long(), rows

    def _reserve(self, key: Tensor, value: Tensor, rows: int, device: torch.device) -> None:
        """Buffers of at least `rows` on the device, their content of no matter."""
        if self.keys is None or self.keys.shape[1] < rows:
            rows = -(-rows // ROUND) * ROUND
            # All of them or, when memory runs out, none.
            new_keys = key.new_empty(key.shape[0], rows, key.shape[2], device=device)
            new_values = value.new_empty(value.shape[0], rows, value.shape[2], device=device)
            self.lengths = torch.zeros(key.shape[0], dtype=torch.int32, device=device)
            self.keys, self.values = new_keys, new_values
            self.moves += 1

    def _grow(self, rows: int) -> None:
        """Larger buffers with the same content."""
        assert self.keys is not None and self.values is not None and self.lengths is not None
        old_keys, old_values, held, lengths = self.keys, self.values, self.longest, self.lengths
        self._reserve(old_keys, old_values, rows, old_keys.device)
        assert self.keys is not old_keys
        self.keys[:, :held], self.values[:, :held] = old_keys[:, :held], old_values[:, :held]
        self.lengths.copy_(lengths)


def mean_length(one: WorkingSet) -> float:
    """Keys held per head; waits for the device when heads differ."""
    assert one.lengths is not None
    return float(one.longest) if one.even else float(one.lengths.to(torch.float32).mean())
