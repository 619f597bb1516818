"""A captured step without a GPU: a pass is recorded operation by operation, and done again on the same tensors.

It behaves as a CUDA graph does: capturing changes nothing, numbers of the host are baked in, tensors are read and
written at their addresses, and waiting for the device (reading a number from a tensor) is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = ("aten::_local_scalar_dense", "aten::item", "aten::nonzero")


def waits(tensor: Tensor) -> None:
    raise RuntimeError("tolist: operation not permitted when stream is capturing")


class Recorder(TorchDispatchMode):
    """Notes every operation, with what it was given and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in WAITING:
            raise RuntimeError(f"{func._schema.name}: operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class RecordedCapture:
    """What the stepper takes for a CUDA graph."""

    made = 0

    def __init__(self, step: Callable[[], Tensor], device: torch.device) -> None:
        self._recorder = Recorder()
        with patch.object(Tensor, "tolist", waits), undone(self), self._recorder:
            self._logits = step()
        type(self).made += 1

    @staticmethod
    def rehearse(step: Callable[[], Tensor]) -> tuple[Tensor, str | None]:
        return step(), None

    def replay(self) -> Tensor:
        for func, args, kwargs, out in self._recorder.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
        return self._logits


class undone:
    """Puts back what the recorded pass wrote over tensors that it did not make: capturing does nothing."""

    def __init__(self, capture: RecordedCapture) -> None:
        self._capture = capture

    def __enter__(self) -> None:
        self._watch = Writes()
        self._watch.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._watch.__exit__(*error)
        for tensor, before in reversed(self._watch.before):
            tensor.copy_(before)


class Writes(TorchDispatchMode):
    """Keeps a copy of every tensor that is about to be written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                self.before.append((value, value.clone()))
        return func(*args, **(kwargs or {}))
