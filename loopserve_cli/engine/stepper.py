"""Feeds the model one token at a time: eagerly, or, on a GPU, by replaying the captured step.

Below about 32k tokens a decode step of eager transformers waits for kernel launches; one replay launches them all.
A capture bakes in every address and every number of the host, so a step's inputs stand in tensors that are set
before it (`Cursor`), and `DecodeTurn.state` says when another capture is needed: after a buffer grew, or when the
layers turn from reading everything to reading their working sets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.model_call import next_logits
from loopserve_cli.engine.sampling import most_likely
from loopserve_cli.engine.store import Store

# Reading everything, reading working sets, and what growth has made of each: older captures are let go.
MOST_CAPTURES = 4
# How torch's warnings begin: that something waited, and, once in a process, that looking for it is new.
WAITED = "called a synchronizing CUDA operation"
PROTOTYPE = "Synchronization debug mode is a prototype"


class Drawer(Protocol):
    """Who says which token comes after logits; see `Sampler`."""

    @property
    def plain(self) -> bool:
        """Whether it is the most likely one, whatever came before."""

    def pick(self, logits: Tensor) -> Tensor:
        """The next token from logits [1, V], int64 [1, 1] on their device."""


class Captured(Protocol):
    """A step that can be done again."""

    def __init__(self, step: Callable[[], Tensor], device: torch.device) -> None:
        """Capture it, without doing it; raises RuntimeError where that is impossible."""

    @staticmethod
    def rehearse(step: Callable[[], Tensor]) -> tuple[Tensor, str | None]:
        """Do it once; its logits, and why it cannot be captured, if that shows."""

    def replay(self) -> Tensor:
        """Do it; the same tensor of logits [1, V] every time."""


class CudaCapture:
    """A step as a CUDA graph. Capturing does nothing of it yet."""

    def __init__(self, step: Callable[[], Tensor], device: torch.device) -> None:
        """Raises RuntimeError when the step waits for the device somewhere."""
        self._device = device
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(device)
        try:
            with torch.cuda.device(device), torch.cuda.graph(self._graph):
                self._logits = step()
        except RuntimeError:
            torch.cuda.set_stream(stream)  # which a capture that fails does not put back
            raise

    @staticmethod
    def rehearse(step: Callable[[], Tensor]) -> tuple[Tensor, str | None]:
        """Do the step once, and say where it waited for the device: capturing that would fail, and leave traces."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                logits = step()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for one in told:
            if not str(one.message).startswith((WAITED, PROTOTYPE)):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return logits, next((WAITED for one in told if str(one.message).startswith(WAITED)), None)

    def replay(self) -> Tensor:
        """Launch the whole step."""
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self._logits


class Stepper:
    """One model and store. `replays` counts tokens of this turn that came from a captured step.

    A step is rehearsed when its state is new, captured when that comes again, and replayed from then on. Token and
    position stand on the device: a step leaves there what the next one reads, so that a captured one can be launched
    before the host has seen its token. `refusal` is why the model's steps cannot be captured, once that was found.
    """

    def __init__(
        self,
        model: Any,
        store: Store,
        device: torch.device,
        capture: type[Captured] | None,
        refusal: str | None = None,
    ) -> None:
        """Without `capture`, or with a `refusal` that is known already, every step is run eagerly."""
        self.replays = 0
        self.refusal = refusal
        self._model = model
        self._store = store
        self._capture = capture
        self._device = device
        self._token = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._position: int | None = None  # what stands in `_positions`, if that is known
        self._launched: DecodeTurn | None = None  # whose step is neither counted nor let go
        self._replayed = False
        self._captures: dict[object, Captured | None] = {}

    def ready(self, decode: DecodeTurn, sampler: Drawer) -> bool:
        """Whether the next step is a replay that can be let go again: nothing but the device would know of it."""
        return decode.steady and self._captures.get((decode.state, sampler.plain)) is not None

    @torch.inference_mode()
    def launch(self, token: Tensor, position: int, decode: DecodeTurn, sampler: Drawer) -> Tensor:
        """Feed a token, int64 [1, 1] on the device, that stands at `position`; the next one, drawn but not read.

        What comes back is valid until the next launch. The step counts only with `count`.
        """
        decode.begin_step()
        if token is not self._token:
            self._token.copy_(token)
        if position != self._position:
            self._positions.fill_(position)
        self._position = None  # unless all goes well
        logits = self._run(decode, sampler.plain)
        decode.count_advance()
        self._position = position + 1
        if not sampler.plain:
            self._token.copy_(sampler.pick(logits))
        self._launched = decode
        return self._token

    def count(self) -> None:
        """The step that was launched last is part of the dialogue."""
        assert self._launched is not None
        self._launched.end_step()
        self._launched = None

    @torch.inference_mode()
    def let_go(self) -> None:
        """A step that was launched and not counted is no part of it: the turn ends where it was before."""
        if self._launched is None:
            return
        self.replays -= self._replayed
        self._position = None
        self._launched.drop_step()
        self._launched = None

    def _run(self, decode: DecodeTurn, draws: bool) -> Tensor:
        """The step's pass, in the way that is right for it; the logits [1, V]."""
        self._replayed = False
        if self._capture is None or self.refusal or not (decode.captures and decode.resident):
            return self._forward(decode, draws)
        state = decode.state, draws
        if state not in self._captures:
            while len(self._captures) >= MOST_CAPTURES:
                del self._captures[next(iter(self._captures))]
            self._captures[state] = None
            # compiles what is new, too
            logits, self.refusal = self._capture.rehearse(lambda: self._forward(decode, draws))
            return logits
        captured = self._captures[state]
        if captured is None:
            try:
                captured = self._captures[state] = self._capture(lambda: self._forward(decode, draws), self._device)
            except RuntimeError as error:
                cause = error.__context__ or error  # ending a capture that failed is an error of its own
                self.refusal = str(cause).partition("\n")[0]
                return self._forward(decode, draws)
        self._replayed = True
        self.replays += 1
        decode.count_replay()
        return captured.replay()

    def _forward(self, decode: DecodeTurn, draws: bool) -> Tensor:
        """One pass: it leaves the next step's numbers on the device, and with `draws` its token."""
        logits = next_logits(self._model, self._token, self._positions, self._store, decode=decode)
        decode.advance()
        self._positions.add_(1)
        if draws:
            self._token.copy_(most_likely(logits))
        return logits
