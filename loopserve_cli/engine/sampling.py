"""Drawing the next token, and bringing it to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.finite import healthy

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


def processors(options: SamplingOptions) -> LogitsProcessorList:
    """Transformers' own processors, in the order its `generate` applies them."""
    from transformers.generation import logits_process as lp

    found = lp.LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        found.append(lp.RepetitionPenaltyLogitsProcessor(float(options.repetition_penalty)))
    if options.temperature == 0:
        return found
    if options.temperature != 1.0:
        found.append(lp.TemperatureLogitsWarper(float(options.temperature)))
    if options.top_k:
        found.append(lp.TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        found.append(lp.TopPLogitsWarper(float(options.top_p)))
    if options.min_p > 0.0:
        found.append(lp.MinPLogitsWarper(float(options.min_p)))
    return found


class Sampler:
    """Draws tokens by the options: greedy at temperature 0, else from its own seeded generator."""

    def __init__(self, options: SamplingOptions, device: torch.device, history: list[int]) -> None:
        """A fresh sampler after the ids of `history`; with a seed, the same logits give the same tokens."""
        self.greedy = options.temperature == 0
        self._processors = processors(options)
        self._read = Reader(device)
        # Only the repetition penalty reads the ids so far, [1, N]; a list of them at every token would cost O(N).
        self._penalises = options.repetition_penalty != 1.0
        self._ids = torch.tensor([history if self._penalises else []], dtype=torch.long, device=device)
        self._generator = None if self.greedy else torch.Generator(device)
        if self._generator is not None and options.seed is not None:
            self._generator.manual_seed(options.seed)
        elif self._generator is not None:
            self._generator.seed()

    @property
    def plain(self) -> bool:
        """Whether it draws as `most_likely` does, whatever came before: then a captured step can do it."""
        return self.greedy and not self._processors

    def pick(self, logits: Tensor) -> Tensor:
        """The next token from logits [1, V], int64 [1, 1] on their device, without waiting for it.

        It is -1 where the logits are no numbers, or all minus infinity.
        """
        if self.plain:
            return most_likely(logits)
        scores = logits.float()
        sound = healthy(scores)
        if self._processors:
            scores = self._processors(self._ids, scores)
            sound = sound & healthy(scores)
        if self.greedy:
            token = scores.argmax(-1, keepdim=True)
        else:
            # From no numbers it cannot draw, and on a GPU would end the process.
            scores = torch.where(sound, scores, 0.0)
            token = torch.multinomial(scores.softmax(-1), 1, generator=self._generator)
        if self._penalises:
            self._ids = torch.cat([self._ids, token], dim=1)
        return torch.where(sound, token, -1)

    def read(self, token: Tensor) -> int | None:
        """What `pick` gave, on the host, which waits for it; None for -1."""
        drawn = self._read.number(token)
        return drawn if drawn >= 0 else None

    def draw(self, logits: Tensor) -> int | None:
        """The next token from logits [1, V]; None where they are no numbers, or all minus infinity."""
        return self.read(self.pick(logits))


def most_likely(logits: Tensor) -> Tensor:
    """The largest of logits [1, V], int64 [1, 1], or -1 where that is no number or none is larger than minus infinity.

    A NaN wins every maximum, so the one that is taken tells of all.
    """
    largest, token = logits.max(-1, keepdim=True)
    return torch.where(largest.isfinite(), token, -1)


class Reader:
    """Brings single numbers from a device: on a GPU through pinned memory and one event, the only thing waited for.

    Work that is asked of the device after the number does not delay it.
    """

    def __init__(self, device: torch.device) -> None:
        """Nothing is allocated before the first number from a GPU."""
        self._device = device
        self._pinned: Tensor | None = None

    def number(self, token: Tensor) -> int:
        """The one element of a tensor on the device; waits until it is there."""
        if self._device.type != "cuda":
            return int(token)
        if self._pinned is None:
            self._pinned = torch.empty(1, 1, dtype=torch.int64, pin_memory=True)
        self._pinned.copy_(token, non_blocking=True)
        torch.cuda.current_stream(self._device).record_event().synchronize()
        return int(self._pinned)
