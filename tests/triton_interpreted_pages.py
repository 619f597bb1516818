"""The page scores' kernel against its twin under the interpreter. test_triton_interpreted.py runs it apart."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import relative_rms, tensors
from triton_interpreted import TYPES, nan_filled

from loopserve_kernels.page_bounds import PageBounds
from loopserve_kernels.page_scores import page_scores_torch
from loopserve_kernels.page_scores_triton import page_scores_triton


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize(
    ("heads", "groups", "keys", "size", "page"),
    [(2, 2, 40, 64, 16), (6, 2, 97, 80, 5), (8, 1, 700, 96, 16), (71, 1, 65, 64, 3), (14, 2, 301, 128, 1),
     (4, 2, 130, 256, 16)],
)  # fmt: skip
def test_page_scores(
    heads: int,
    groups: int,
    keys: int,
    size: int,
    page: int,
    pool: str,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, key, _ = tensors(heads, groups, 1, keys, size, dtype)
    bounds = PageBounds(page)
    bounds.make_room(keys // page + 7, key)
    assert bounds.low is not None and bounds.high is not None
    for part in bounds.tensors:
        part.fill_(float("nan"))
    bounds.append(key)
    rows, known = query[:, 0], slice(bounds.pages)
    for position in (keys, keys - page):  # one page fewer is whole, though its bounds stand there
        place = torch.tensor([position])
        exact = page_scores_torch(rows.double(), bounds.low.double(), bounds.high.double(), place, page, pool)
        with monkeypatch.context() as patch:
            nan_filled(patch)
            scores = page_scores_triton(rows, bounds.low, bounds.high, place, page, pool)
        known = slice(position // page)
        assert scores.shape == exact.shape and relative_rms(scores[:, known], exact[:, known]) < bound
        assert bool((scores[:, position // page :] == float("-inf")).all()) and bool(exact[:, known].isfinite().all())


def test_what_is_no_number_is_the_least() -> None:
    low, high = torch.zeros(1, 3, 16), torch.ones(1, 3, 16)
    low[0, 1] = high[0, 1] = float("nan")
    scores = page_scores_triton(torch.ones(2, 16), low, high, torch.tensor([12]), 4, "max")
    assert scores.tolist() == [[16.0, float("-inf"), 16.0]]
