"""Fidelity without labels: what a profile would have said at every place of an answer that is given.

An answer is forced token by token (teacher forcing), under full attention and under a profile, after the same history;
their next-token distributions are compared. Free-running answers say little: one token that differs changes all that
comes after it, and both answers may be good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loopserve_cli.engine.distributions import Rows, Sums, log_probabilities
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from torch import Tensor

Force = Callable[[Sequence[int], "Callable[[Tensor], None]"], int]


def first_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    """The first place where two answers part, or where the shorter ends; None where they are the same."""
    if len(left) == len(right) and all(a == b for a, b in zip(left, right, strict=True)):
        return None
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


@dataclass(slots=True)
class Reference:
    """One turn under full attention: its history, the answer that is forced, and what was likely at its places.

    That is in `rows` from row `first` on, which other turns share.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    rows: Rows
    first: int
    nll: float | None = None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The record's fields of one forced answer; means over its tokens, None where unknown."""

    tokens_forced: int | None = None
    nll: float | None = None
    nll_change: float | None = None
    kl_mean: float | None = None
    agreement: float | None = None

    def within(self, record: TurnRecord) -> TurnRecord:
        """The record with these."""
        return replace(
            record,
            tokens_forced=self.tokens_forced,
            nll=self.nll,
            nll_change=self.nll_change,
            kl_mean=self.kl_mean,
            agreement=self.agreement,
        )


def note(reference: Reference, force: Force) -> Fidelity:
    """Force the reference's own answer and keep what was likely; raises OSError when the disk is full.

    Of the answer is kept what could be forced: the context may end within it.
    """
    sums = Sums()

    def see(logits: Tensor) -> None:
        row = log_probabilities(logits)
        sums.add(row, reference.answer[sums.tokens])
        reference.rows.append(row)

    force(reference.answer, see)
    reference.answer = reference.answer[: sums.tokens]
    reference.nll = sums.mean(sums.nll, sums.tokens)
    return Fidelity(sums.tokens or None, reference.nll)


def compare(answer: Sequence[int], reference: Reference | None, force: Force) -> Fidelity:
    """Force an answer, the reference's where there is one, and compare token by token."""
    sums = Sums()

    def see(logits: Tensor) -> None:
        place = sums.tokens
        sums.add(
            log_probabilities(logits),
            answer[place],
            None if reference is None else reference.rows[reference.first + place],
        )

    force(answer, see)
    nll = sums.mean(sums.nll, sums.tokens)
    fulls = None if reference is None or len(reference.answer) > sums.tokens else reference.nll
    return Fidelity(
        tokens_forced=sums.tokens or None,
        nll=nll,
        nll_change=None if nll is None or fulls is None else nll - fulls,
        kl_mean=sums.mean(sums.kl, sums.compared),
        agreement=sums.mean(sums.equal, sums.compared),
    )
