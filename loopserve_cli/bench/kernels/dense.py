"""Dense attention as others do it: SDPA's backends, lower-right causal, keys and values never repeated in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.bench.kernels.problem import Problem, disagreement
from loopserve_cli.errors import LoopserveError, first_line
from loopserve_kernels.dense_gpu import Partial, cudnn_partial, flash_partial
from loopserve_kernels.dense_gpu import history_and_own as merged

Attend = Callable[[], Tensor]
TRIALS = 3


@dataclass(frozen=True, slots=True)
class Baseline:
    """The fastest way to dense attention here. `tried` has each one's milliseconds, or why it is out."""

    name: str
    attend: Attend
    tried: Mapping[str, float | str]


def pick_baseline(candidates: Mapping[str, Attend], ours: Tensor, clock: Clock) -> Baseline:
    """Run each once, refuse what fails or differs from our own dense answer [H, n, D], time the rest.

    Raises LoopserveError when none is left: then there is nothing to compare with.
    """
    tried: dict[str, float | str] = {}
    for name, attend in candidates.items():
        try:
            answers: list[Tensor] = []
            first = clock.ms(lambda attend=attend, answers=answers: answers.append(attend()))  # type: ignore[misc]
            wrong = disagreement(ours, answers.pop())
            alone = len(candidates) == 1  # nothing to choose: its first time will do
            tried[name] = wrong or (first if alone else min(clock.ms(attend) for _ in range(TRIALS)))
        except RuntimeError as error:  # what torch raises for a kernel that does not take these tensors
            tried[name] = first_line(error)
    times = {name: ms for name, ms in tried.items() if isinstance(ms, float)}
    if not times:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in tried.items())
        raise LoopserveError(f"no dense attention to compare with: {reasons}")
    best = min(times, key=lambda name: times[name])
    return Baseline(best, candidates[best], tried)


def dense_candidates(problem: Problem) -> dict[str, Attend]:
    """Every way to try, by name.

    On a CPU there is one: `dense_attention` is SDPA itself where rows and keys are as many, and SDPA has no lower-right
    causal kernel where they are not.
    """
    from torch.nn.attention import SDPBackend

    if problem.query.device.type == "cpu":
        name = "SDPA" if problem.rows == problem.keys else "dense_attention"
        return {name: problem.dense}
    flash = {"SDPA flash": sdpa_call(problem, SDPBackend.FLASH_ATTENTION)}
    cudnn = sdpa_call(problem, SDPBackend.CUDNN_ATTENTION)
    if problem.rows < problem.keys:
        cudnn = history_and_own(problem, cudnn_partial(problem.scaling))
        flash["SDPA flash, merged"] = history_and_own(problem, flash_partial(problem.scaling))
    return flash | {
        "SDPA cuDNN": cudnn,
        "SDPA memory-efficient": sdpa_call(problem, SDPBackend.EFFICIENT_ATTENTION, folded=True),
    }


def sdpa_call(problem: Problem, backend: object, folded: bool = False) -> Attend:
    """SDPA held to one backend.

    `folded` is for one that knows no groups: groups become the batch, and each group's keys a view with stride 0 over
    its query heads.
    """
    from torch.nn.attention import sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right

    query, key, value = _folded(problem) if folded else problem.batched
    square = problem.rows == problem.keys
    bias = None if square else causal_lower_right(problem.rows, problem.keys)

    def attend() -> Tensor:
        with sdpa_kernel(backend):  # type: ignore[arg-type]
            out = F.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, is_causal=square, scale=problem.scaling, enable_gqa=not folded
            )
        return out.reshape(problem.query.shape)

    return attend


def history_and_own(problem: Problem, partial: Partial) -> Attend:
    """For a kernel without lower-right causality: all of the history, the causal part, merged by log-sum-exp.

    `partial(query, key, value, causal)` gives the output [1, H, n, D] and the log-sum-exp, H n numbers.
    """
    return lambda: merged(*problem.batched, partial)[0]


def _folded(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Query [G, H / G, n, D]; key and value as views of the same shape but N for n."""
    groups = problem.key.shape[0]
    query = problem.query.unflatten(0, (groups, -1))
    key, value = (part[:, None].expand(-1, query.shape[1], -1, -1) for part in (problem.key, problem.value))
    return query, key, value
