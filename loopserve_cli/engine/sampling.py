"""Drawing the next token."""

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
        # Only the repetition penalty reads the ids so far, [1, N]; a list of them at every token would cost O(N).
        self._penalises = options.repetition_penalty != 1.0
        self._ids = torch.tensor([history if self._penalises else []], dtype=torch.long, device=device)
        self._generator = torch.Generator(device)
        if options.seed is not None:
            self._generator.manual_seed(options.seed)
        else:
            self._generator.seed()

    def draw(self, logits: Tensor) -> int | None:
        """The next token from logits [1, V]; None where they are no numbers, or all minus infinity.

        Both come over in one transfer: the host waits for the device once per token.
        """
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
        drawn = int(torch.where(sound, token, -1))
        return drawn if drawn >= 0 else None
