"""A loaded model with all that it is run and measured by: the same for every dialogue and under every profile."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loopserve_cli.engine.finite import numbers_error
from loopserve_cli.engine.limits import Limits
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.markup import find_markup
from loopserve_cli.engine.prefiller import Prefiller
from loopserve_cli.engine.stepper import CudaCapture
from loopserve_cli.errors import NumbersError
from loopserve_cli.memory_meter import Meter
from loopserve_cli.stats import versions
from loopserve_kernels.device import device_name


class Runtime:
    """What an engine is built on; it holds nothing of a dialogue."""

    def __init__(self, loaded: LoadedModel) -> None:
        """For a model that was just loaded."""
        self.loaded = loaded
        self.runs = loaded.runs
        self.device = loaded.device
        self.stop_ids = loaded.stop_ids
        self.limits = Limits(loaded)
        self.markup = find_markup(loaded.tokenizer)
        # More than one when the model is spread.
        parameters = loaded.model.parameters()
        self.gpus = tuple(dict.fromkeys(p.device for p in parameters if p.device.type == "cuda"))
        self.meter = Meter(self.gpus)
        self.prefiller = Prefiller(loaded)
        self._versions = versions()

    @property
    def device_name(self) -> str:
        """The device that holds the model's input layer, by name."""
        return device_name(self.device)

    @property
    def dtype(self) -> str:
        """The dtype the model computes in."""
        return str(self.loaded.model.dtype).removeprefix("torch.")

    @property
    def capture(self) -> type[CudaCapture] | None:
        """What captures a decode step; none on a CPU, nor on several GPUs: what moves between them is not captured."""
        return CudaCapture if len(self.gpus) == 1 else None

    def no_numbers(self) -> NumbersError:
        """The error of a turn whose logits are no numbers."""
        return numbers_error(self.loaded.name, self.dtype, self.loaded.quant)

    def facts(self) -> dict[str, Any]:
        """The record's fields that are the same whatever was said and held, and the memory in use now."""
        memory = asdict(self.meter.read())
        del memory["free_device_bytes"]
        return memory | {
            "model": self.loaded.name,
            "device": self.device_name,
            "dtype": self.dtype,
            "quant": self.loaded.quant,
            "step_kernels": "eager" if self.runs is self.loaded.model else "fused",
            "versions": self._versions,
        }
