"""Next-token distributions: full attention's, kept on the disk row by row, and another's compared with them."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopserve_cli.errors import LoopserveError

if TYPE_CHECKING:
    from torch import Tensor

# Of one dialogue on the disk.
MOST_BYTES = 8 * 2**30


class Rows:
    """Log-probabilities [N, V], float32, in a temporary file that nobody else sees and that goes with this object.

    A row is in memory only while it is written or read, so what is measured as resident memory does not grow; the
    disk holds 4 N V bytes, at most 8 GiB.
    """

    def __init__(self) -> None:
        """No row yet."""
        # Without a buffer, so that a full disk is met by the row that it has no room for, and never on closing.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._size = 0
        self.count = 0

    def append(self, row: Tensor) -> None:
        """Keep one more row [V]; raises OSError when the disk is full, LoopserveError when it would be too much."""
        data = row.numpy().tobytes()
        self._size = len(data)
        if (self.count + 1) * self._size > MOST_BYTES:
            raise LoopserveError(
                f"what full attention said of a dialogue takes more than {MOST_BYTES // 2**30} GiB; "
                "give fewer --max-turns or --max-new-tokens"
            )
        self._file.seek(self.count * self._size)
        if self._file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.count += 1

    def __getitem__(self, place: int) -> Tensor:
        """Row `place`, [V]."""
        import torch

        self._file.seek(place * self._size)
        return torch.frombuffer(bytearray(self._file.read(self._size)), dtype=torch.float32)

    def close(self) -> None:
        """Give the disk's room back."""
        self._file.close()


@dataclass(slots=True)
class Sums:
    """What is summed over an answer's tokens; of those, `compared` have a row of full attention's beside them."""

    tokens: int = 0
    nll: float = 0.0
    compared: int = 0
    kl: float = 0.0
    equal: int = 0

    def add(self, row: Tensor, token: int, reference: Tensor | None = None) -> None:
        """Count one token: log-probabilities [V] before it, and full attention's."""
        self.tokens += 1
        self.nll -= float(row[token])
        if reference is not None:
            self.compared += 1
            self.kl += divergence(reference, row)
            self.equal += int(reference.argmax()) == int(row.argmax())

    def mean(self, total: float, count: int) -> float | None:
        """A mean over tokens; None without any, and where it is no number: a masked token's log-probability."""
        return total / count if count and math.isfinite(total) else None


def log_probabilities(logits: Tensor) -> Tensor:
    """Of logits [1, V] on any device and of any dtype: [V], float32, on the host."""
    return logits[0].double().log_softmax(-1).float().cpu()


def divergence(reference: Tensor, other: Tensor) -> float:
    """KL(reference || other) in nats of two distributions given as log-probabilities [V]; at least 0.

    What the reference never says counts nothing. Rounding alone would make it negative.
    """
    import torch

    left, right = reference.double(), other.double()
    shares = left.exp()
    return max(0.0, float(torch.where(shares > 0, shares * (left - right), 0.0).sum()))
