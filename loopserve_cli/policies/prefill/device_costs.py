"""Which costs a device goes by: the coefficients of `costs.toml`, and those in a file of the user's own.

`loopserve bench device --write-costs` writes that. Times are compared with each other only, so a device that nobody
measured can go by another's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from loopserve_cli.folders import config_folder
from loopserve_cli.policies.prefill.costs import Costs
from loopserve_cli.policies.prefill.costs_file import read_costs
from loopserve_kernels.device import device_name

# Of "NVIDIA H100 80GB HBM3" it is H100, of "NVIDIA GeForce RTX 4090" 4090.
MODEL = re.compile(r"[A-Z]{0,3}[0-9]{2,4}[A-Za-z]{0,2}")


def costs_for(device: torch.device, dtype: torch.dtype) -> Costs:
    """The costs of a device by its name: the user's own file first, then the shipped one, exact before near.

    Near is the same GPU model, and another dtype. A GPU that nobody measured takes a CPU's ratios, and `note` says so.
    Reads the files: ask once per engine or turn, not per layer. Raises UsageError for a file that is wrong.
    """
    own = own_file()
    known = [*(read_costs(own) if own.is_file() else []), *read_costs(shipped_file())]
    return nearest_costs(known, device_name(device), str(dtype).removeprefix("torch."))


def nearest_costs(known: Sequence[Costs], name: str, dtype: str) -> Costs:
    """Of those known, which for a device's name and dtype; the first of those equally near."""

    def distance(costs: Costs) -> tuple[int, bool]:
        if costs.measured_on == name:
            return 0, costs.dtype != dtype
        same = model_of(name) is not None and model_of(costs.measured_on) == model_of(name)
        return (1 if same else 2), costs.dtype != dtype

    fitting = [costs for costs in known if distance(costs)[0] < 2 or costs.measured_on == "cpu"]
    return replace(min(fitting, key=distance), used_for=name)


def model_of(name: str) -> str | None:
    """The word of a GPU's name that says the model, None if none does."""
    words = (word for word in re.split(r"[\s-]", name) if MODEL.fullmatch(word) and not word.endswith("GB"))
    return next(words, None)


def shipped_file() -> Path:
    """The coefficients that come with loopserve."""
    return Path(__file__).with_name("costs.toml")


def own_file() -> Path:
    """Where the user's own are read from, if there are any."""
    return config_folder() / "costs.toml"
