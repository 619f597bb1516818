"""Drawing the next token, and turning tokens into text as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopserve_cli.config import SamplingOptions

if TYPE_CHECKING:
    from transformers import LogitsProcessorList, PreTrainedTokenizerBase

UNFINISHED = "\ufffd"


def processors(options: SamplingOptions) -> LogitsProcessorList:
    """Transformers' own processors, in the order its `generate` applies them."""
    from transformers.generation import logits_process as lp

    found = lp.LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        found.append(lp.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.temperature == 0:
        return found
    if options.temperature != 1.0:
        found.append(lp.TemperatureLogitsWarper(options.temperature))
    if options.top_k:
        found.append(lp.TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        found.append(lp.TopPLogitsWarper(options.top_p))
    if options.min_p > 0.0:
        found.append(lp.MinPLogitsWarper(options.min_p))
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

    def draw(self, logits: Tensor) -> int:
        """The next token from logits [1, V]."""
        scores = logits.float()
        if self._processors:
            scores = self._processors(self._ids, scores)
        if self.greedy:
            token = scores.argmax(-1, keepdim=True)
        else:
            token = torch.multinomial(scores.softmax(-1), 1, generator=self._generator)
        if self._penalises:
            self._ids = torch.cat([self._ids, token], dim=1)
        return int(token)


class TextStream:
    """Tokens in, text out, holding back unfinished characters and what may become a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        """A stream at the start of an answer."""
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []
        self._context = 0
        self._read = 0
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly empty; `stopped` is set once a stop string was met."""
        self._ids.append(token)
        # Decoding from a few tokens back keeps the spaces that tokenizers put between words.
        before = self._decode(self._ids[self._context : self._read])
        now = self._decode(self._ids[self._context :])
        if now.endswith(UNFINISHED):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._emit(now[len(before) :])

    def flush(self) -> str:
        """What was held back, at the end of an answer."""
        rest = self._held
        if not self.stopped:
            before = self._decode(self._ids[self._context : self._read])
            rest += self._decode(self._ids[self._context :])[len(before) :]
        self._held = ""
        self._context = self._read = len(self._ids)
        self.text += rest
        return rest

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _emit(self, new: str) -> str:
        pending = self._held + new
        ends = [at for at in (pending.find(text) for text in self._stop) if at >= 0]
        if ends:
            self.stopped, self._held = True, ""
            pending = pending[: min(ends)]
        else:
            hold = held_back(pending, self._stop)
            self._held = pending[len(pending) - hold :]
            pending = pending[: len(pending) - hold]
        self.text += pending
        return pending


def held_back(text: str, stop: tuple[str, ...]) -> int:
    """How many trailing characters of `text` could be the beginning of a stop string."""
    longest = max((len(s) for s in stop), default=1) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(s.startswith(text[-count:]) for s in stop):
            return count
    return 0
