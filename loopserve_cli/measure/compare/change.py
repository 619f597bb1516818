"""What a profile's turns changed by since an earlier run of the same turns. Unknown is None, never invented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from loopserve_cli.measure.compare.shift import Shift, kl_shift
from loopserve_cli.measure.ratio import Ratio, by_place, paired, ratio_of
from loopserve_cli.measure.verdict import Verdict, verdict_of
from loopserve_cli.stats import TurnRecord, spread_of

TIMES = {"first_token": "ttft_ms", "next_tokens": "tpot_ms"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both runs, over the turns that both have."""

    before: float | None
    now: float | None


@dataclass(frozen=True, slots=True)
class Beside:
    """A time beside the reference's of the same run: how many times faster it was and is, and the ratio of these."""

    before: float
    now: float
    change: Ratio


@dataclass(frozen=True, slots=True)
class Change:
    """One profile, called `before` in the earlier run, over `turns` that ended well in both.

    `first_token` and `next_tokens` are how many times faster it became: the earlier TTFT and TPOT over the later, turn
    by turn. The two `beside` it are the same of the profile's gain on the reference, which a machine that was slower as
    a whole leaves as it is. `keys` is the earlier keys read over the later. `failed` are turns that both runs tried.
    KV bytes and keys read are those of the longest turn; `ttft_ms` and `tpot_ms` medians, `kl_mean` and `agreement`
    means. `changed_answers` of `answers` are not the earlier ones word for word; None when sampling.
    """

    profile: str
    before: str
    turns: int
    first_token: Ratio | None
    next_tokens: Ratio | None
    first_token_beside: Beside | None
    next_tokens_beside: Beside | None
    keys: Ratio | None
    kl: Shift | None
    ttft_ms: Figure
    tpot_ms: Figure
    kv_bytes: Figure
    keys_read: Figure
    kl_mean: Figure
    agreement: Figure
    failed: Figure
    changed_answers: int | None
    answers: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """The same turns of a profile in two runs, place by place; `failed` those of them that failed in each."""

    before: Sequence[TurnRecord]
    now: Sequence[TurnRecord]
    failed: Figure


def change_of(names: tuple[str, str], pair: Pair, reference: Pair | None, greedy: bool) -> Change:
    """The change of a profile, `names` being the later one and the earlier one.

    `reference` are the turns of full attention in both runs, None where they are unknown or these are they.
    """
    now = verdict_of(names[0], pair.now, names[1], pair.before, greedy)
    was = verdict_of(names[1], pair.before, None, pair.before, greedy)
    same, answers = now.same_answers, now.answers
    beside = {name: None if reference is None else _beside(pair, reference, TIMES[name]) for name in TIMES}
    return Change(
        *names,
        turns=len(pair.now),
        first_token=now.first_token,
        next_tokens=now.next_tokens,
        first_token_beside=beside["first_token"],
        next_tokens_beside=beside["next_tokens"],
        keys=ratio_of(paired(by_place(pair.before, "keys_read"), by_place(pair.now, "keys_read")), timed=False),
        kl=kl_shift(pair.now, pair.before),
        ttft_ms=_of_both(was, now, "ttft_ms"),
        tpot_ms=_of_both(was, now, "tpot_ms"),
        kv_bytes=_of_both(was, now, "kv_bytes"),
        keys_read=_of_both(was, now, "keys_read"),
        kl_mean=_means(pair, "kl_mean"),
        agreement=_means(pair, "agreement"),
        failed=pair.failed,
        changed_answers=None if same is None or answers is None else answers - same,
        answers=answers,
    )


def _beside(pair: Pair, reference: Pair, measure: str) -> Beside | None:
    now = paired(by_place(reference.now, measure), by_place(pair.now, measure))
    was = paired(by_place(reference.before, measure), by_place(pair.before, measure))
    change = ratio_of(paired(now, was))
    shared = now.keys() & was.keys()
    had, has = (geometric_mean(gains[place] for place in shared) if shared else 0.0 for gains in (was, now))
    return None if change is None else Beside(had, has, change)


def _of_both(was: Verdict, now: Verdict, figure: str) -> Figure:
    return Figure(getattr(was, figure), getattr(now, figure))


def _means(pair: Pair, measure: str) -> Figure:
    was, now = spread_of(pair.before, measure), spread_of(pair.now, measure)
    return Figure(was.mean if was else None, now.mean if now else None)
