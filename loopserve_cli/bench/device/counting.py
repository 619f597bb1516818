"""Counts what a GPU would be asked to do, on tensors of the meta device: launches, and waits for the device.

An operation of torch that computes something counts as one launch, though a few (a sort, a top-k) are several kernels;
views and allocations count as none. A Triton kernel is counted and not run. A number that is read from a tensor of the
meta device is an error of torch's own, so it cannot be missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Counted(TorchDispatchMode):
    """`torch` and `triton` count launches by name; `waits` those copies between host and device that block."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        super().__init__()
        self.torch: Counter[str] = Counter()
        self.triton: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def launches(self) -> int:
        """Torch's and Triton's together."""
        return self.torch.total() + self.triton.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and count it where a tensor of the meta device takes part."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = {part.device.type for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)}
        made = {part.device.type for part in tree_leaves(out) if isinstance(part, torch.Tensor)}
        if "meta" not in given | made:
            return out
        name = str(func)
        if "cpu" in given and copies(func) and not blocks_not(args, kwargs):
            self.waits[name] += 1
        if not (free(func) or (copies(func) and "cpu" in given)):
            self.torch[name] += 1
        return out


def copies(func: Any) -> bool:
    """Whether it may move a tensor from one device to another."""
    return func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.lift_fresh)


def blocks_not(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a copy was asked not to block; `copy_` is told so by its third argument."""
    return bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))


def free(func: Any) -> bool:
    """Whether it is a view or an allocation: no kernel."""
    returns = [value.alias_info for value in func._schema.returns]
    if returns and all(alias is not None and not alias.is_write for alias in returns):
        return True
    return bool(func._schema.name.startswith(("aten::empty", "aten::new_empty")))


@contextmanager
def counted() -> Iterator[Counted]:
    """Count what is asked for inside. Raises ImportError where Triton is not there."""
    import triton.runtime.autotuner
    import triton.runtime.jit

    found = Counted()

    def run(kernel: Any, *args: Any, **kwargs: Any) -> None:
        found.triton[getattr(kernel, "fn", kernel).__name__] += 1

    made = torch.tensor

    def tensor(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Numbers of the host that go to a device: a copy that waits, and that no operation shows."""
        out = made(data, *args, **kwargs)
        if out.device.type == "meta":
            found.waits["torch.tensor"] += 1
        return out

    with ExitStack() as stack:
        stack.enter_context(replaced(torch, "tensor", tensor))
        stack.enter_context(replaced(triton.runtime.jit.JITFunction, "run", run))
        stack.enter_context(replaced(triton.runtime.autotuner.Autotuner, "run", run))
        with found:
            yield found


@contextmanager
def replaced(owner: Any, name: str, other: object) -> Iterator[None]:
    """Inside, another attribute stands for the owner's."""
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)
