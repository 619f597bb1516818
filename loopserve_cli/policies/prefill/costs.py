"""What attention and choosing cost on a device, as measured: it says beforehand whether choosing lines can pay.

The coefficients stand in `costs.toml`, and in a file of the user's own that `loopserve bench device --write-costs`
writes. Times are compared with each other only, so a device that nobody measured can go by another's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loopserve_cli.folders import config_folder

if TYPE_CHECKING:
    import torch

# What choosing may take of a chunk's time where it then finds nothing to leave out.
MOST_LOSS = 0.03
# By then it has been asked for: a first chunk's layers are looked at when a third of them has chosen.
ASKED = 1 / 3
# What a head with few lines executes of its cells. One with more than most_density executes all.
GOOD_DENSITY = 0.1
# Multiply-adds per row of a layer's projections and feed-forward, in squares of (heads x head size), about.
LAYER_PRODUCTS = 12
# Of "NVIDIA H100 80GB HBM3" it is H100, of "NVIDIA GeForce RTX 4090" 4090.
MODEL = re.compile(r"[A-Z]{0,3}[0-9]{2,4}[A-Za-z]{0,2}")


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on one device in one dtype. The first three go by head size, for one head.

    `dense_cell`: a causal query-key pair of dense attention; `sparse_cell`: one that sparse attention executes;
    `sampled_pair`: a sampled row and a key, in choosing and making the index. `product`: a multiply-add of a large
    matrix product. `fixed`: choosing in one layer and chunk, however small. `measured_on` is the device that was
    measured, `used_for` the one that asks, None where nobody asked yet.
    """

    measured_on: str
    dtype: str
    dense_cell: Mapping[int, float]
    sparse_cell: Mapping[int, float]
    sampled_pair: Mapping[int, float]
    product: float
    fixed: float
    where: str
    torch: str
    date: str
    used_for: str | None = None

    def pays(self, new: int, keys: int, heads: int, size: int, sampled: int) -> bool:
        """Whether choosing can pay for `new` rows over `keys` keys of one layer, looking at `sampled` of the rows.

        It does not where choosing and a good density's cells together take longer than dense attention, nor where
        finding nothing would lose more than MOST_LOSS of the layer's time.
        """
        cells = heads * (new * (keys - new) + new * (new + 1) / 2)
        choosing = self.fixed + heads * sampled * keys * at(self.sampled_pair, size)
        dense = cells * at(self.dense_cell, size)
        sparse = GOOD_DENSITY * cells * at(self.sparse_cell, size)
        rest = new * LAYER_PRODUCTS * (heads * size) ** 2 * self.product
        return choosing + sparse < dense and ASKED * choosing <= MOST_LOSS * (dense + rest)

    def most_density(self, size: int | None = None) -> float:
        """The share of a head's cells above which dense attention is cheaper, from 0 to 1; at worst over all sizes."""
        sizes = self.dense_cell if size is None else (size,)
        return min(1.0, *(at(self.dense_cell, one) / at(self.sparse_cell, one) for one in sizes))

    def note(self) -> str | None:
        """In a line, that another device's figures stand in; None where this very one was measured."""
        if self.used_for in (None, self.measured_on):
            return None
        return f"{self.used_for} was never measured: it goes by {self.measured_on}'s costs; see bench device"


def at(by_size: Mapping[int, float], size: int) -> float:
    """The coefficient of a head size: the nearest measured one's, in proportion to the size."""
    nearest = min(by_size, key=lambda known: (abs(known - size), known))
    return by_size[nearest] * size / nearest


def costs_for(device: torch.device, dtype: torch.dtype) -> Costs:
    """The costs of a device by its name: the user's own file first, then the shipped one, exact before near.

    Near is the same GPU model, and another dtype. A GPU that nobody measured takes a CPU's ratios, and `note` says so.
    Reads the files: ask once per engine or turn, not per layer. Raises UsageError for a file that is wrong.
    """
    from loopserve_cli.policies.prefill.costs_file import read_costs

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


def device_name(device: torch.device) -> str:
    """A GPU's name as its driver tells it; else the kind of device, for example cpu."""
    if device.type != "cuda":
        return device.type
    import torch

    return torch.cuda.get_device_name(device)


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
