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
from loopserve_cli.engine.store import Store

# Reading everything, reading working sets, and what growth has made of each: older captures are let go.
MOST_CAPTURES = 4


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
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                logits = step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
        waits = [str(one.message).partition("\n")[0] for one in told if "synchroniz" in str(one.message)]
        return logits, waits[0] if waits else None

    def replay(self) -> Tensor:
        """Launch the whole step."""
        with torch.cuda.device(self._device):
            self._graph.replay()
        return self._logits


class Stepper:
    """One model and store. `replays` counts tokens of this turn that came from a captured step.

    A step is rehearsed when its state is new, captured when that comes again, and replayed from then on.
    `refusal` is why the model's steps cannot be captured, once that was found.
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
        self._ids = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros(1, 1, dtype=torch.int64, device=device)
        self._captures: dict[object, Captured | None] = {}

    @torch.inference_mode()
    def step(self, token: int, position: int, decode: DecodeTurn) -> Tensor:
        """Feed one token that stands at `position`; the next one's logits [1, V], valid until the next step."""
        decode.begin_step()
        self._ids.fill_(token)
        self._positions.fill_(position)
        logits = self._run(decode)
        decode.end_step()
        return logits

    def _run(self, decode: DecodeTurn) -> Tensor:
        if self._capture is None or self.refusal or not (decode.captures and decode.resident):
            return self._forward(decode)
        state = decode.state
        if state not in self._captures:
            while len(self._captures) >= MOST_CAPTURES:
                del self._captures[next(iter(self._captures))]
            self._captures[state] = None
            logits, self.refusal = self._capture.rehearse(lambda: self._forward(decode))  # compiles what is new, too
            return logits
        captured = self._captures[state]
        if captured is None:
            try:
                captured = self._captures[state] = self._capture(lambda: self._forward(decode), self._device)
            except RuntimeError as error:
                cause = error.__context__ or error  # ending a capture that failed is an error of its own
                self.refusal = str(cause).partition("\n")[0]
                return self._forward(decode)
        self.replays += 1
        return captured.replay()

    def _forward(self, decode: DecodeTurn) -> Tensor:
        return next_logits(self._model, self._ids, self._positions, self._store, decode=decode)
