"""Which dtype a CPU computes a model in fastest: products of the model's own shape, in float32 and in bfloat16.

A CPU with bfloat16 in its instructions (AVX512_BF16, AMX) takes about half of float32's time for many rows; one
without takes longer. Nothing is kept: the few milliseconds are spent at every load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ROWS = 64  # a prompt's rows, as many as show the rate
MOST_WEIGHTS = 1 << 20  # of one product; more take longer and show the same
LEAST_WEIGHTS = 1 << 19  # below, a model is so small that overhead decides, and float32 is exact
REPEATS = 4
# bfloat16 must gain this much on a prompt and may lose this much on a token, whose weights here lie in the cache: from
# memory, half the bytes take half the time.
GAIN, LOSS = 1.2, 2.0


@dataclass(frozen=True, slots=True)
class DtypeTimes:
    """Seconds of one linear layer over a prompt's rows and over one row, in float32 and in bfloat16."""

    prompt: tuple[float, float]
    token: tuple[float, float]

    @property
    def gain(self) -> float:
        """float32's time of a prompt over bfloat16's."""
        return self.prompt[0] / self.prompt[1]

    @property
    def prefers_bfloat16(self) -> bool:
        """Whether bfloat16 is faster by a margin that noise does not reach."""
        return self.gain >= GAIN and self.token[1] <= LOSS * self.token[0]


def linear_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """Inputs and outputs of a product like the model's own largest ones, cut to a million weights."""
    text = config.get_text_config()
    inputs = int(text.hidden_size)
    outputs = getattr(text, "intermediate_size", None)
    outputs = int(outputs) if isinstance(outputs, int) else 4 * inputs
    return inputs, max(1, min(outputs, MOST_WEIGHTS // inputs))


def measured(inputs: int, outputs: int) -> DtypeTimes:
    """Both dtypes in turn on one thread, the lowest of a few: other work on the machine only ever adds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights = [torch.full((outputs, inputs), 0.01, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
        return DtypeTimes(_lowest(weights, ROWS), _lowest(weights, 1))
    finally:
        torch.set_num_threads(threads)


def _lowest(weights: list[torch.Tensor], rows: int) -> tuple[float, float]:
    inputs = [torch.ones(rows, weight.shape[1], dtype=weight.dtype) for weight in weights]
    lowest = [float("inf"), float("inf")]
    for _ in range(1 + REPEATS):  # the first prepares the product, and is never the lowest
        for place, (rows_in, weight) in enumerate(zip(inputs, weights, strict=True)):
            started = time.perf_counter()
            F.linear(rows_in, weight)
            lowest[place] = min(lowest[place], time.perf_counter() - started)
    return lowest[0], lowest[1]


def has_bfloat16() -> bool:
    """Whether the CPU's library has products in bfloat16 at all, fast or slow."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cpu_dtype(config: PreTrainedConfig, progress: Callable[[str], None]) -> torch.dtype:
    """float32, or bfloat16 where that was just measured to be faster; `progress` is then told by how much."""
    inputs, outputs = linear_shape(config)
    if inputs * outputs < LEAST_WEIGHTS or not has_bfloat16():
        return torch.float32
    with torch.inference_mode():
        times = measured(inputs, outputs)
    if not times.prefers_bfloat16:
        return torch.float32
    progress(f"in bfloat16, whose products this CPU computes {times.gain:.1f} times as fast (--dtype float32 is exact)")
    return torch.bfloat16
