"""What a model's attention is handed, beside what its cache holds: found out once, by looking.

Most models attend to the very keys and values that the cache gives back. Then a decode step needs only its own token
from the cache, and attention reads the store's buffers, or a working set chosen from them. Others expand latents
(DeepSeek's MLA), repeat heads (JetMoE), rearrange values (DiffLlama), or read another layer's (Gemma 3n and 4 share
keys between layers). Those must get everything back at every step, and attend to what they are handed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from loopserve_cli.engine.masks import window_of
from loopserve_cli.errors import ModelError

# Which of their tensors say where something stands, and do not change what is attended to.
HARMLESS = ("position_ids", "cache_position", "input_ids", "attention_mask", "cu_seq_lens_q", "cu_seq_lens_k")


@dataclass(frozen=True, slots=True)
class Handover:
    """Layers by number. By default all attend to what the store holds.

    `foreign` layers attend to something else; `whole` ones get everything back from the store in a decode step;
    `shared` are those of them whose keys and values another layer reads later.
    """

    foreign: frozenset[int] = frozenset()
    whole: frozenset[int] = frozenset()
    shared: frozenset[int] = frozenset()

    def to_json(self) -> dict[str, list[int]]:
        """As JSON types."""
        return {name: sorted(layers) for name, layers in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Sequence[int]]) -> Handover:
        """As it was; raises KeyError or TypeError for something else."""
        return cls(*(frozenset(map(int, data[name])) for name in ("foreign", "whole", "shared")))


Pair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(slots=True)
class Witness:
    """Watches one prefill: what the store gave back, and what the attention function was handed then.

    `masked` are the layers with a mask; true where it is more than a window.
    """

    given: dict[int, Pair] = field(default_factory=dict)
    called: dict[int, list[Pair]] = field(default_factory=dict)
    masked: dict[int, bool] = field(default_factory=dict)

    def gave(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """The store's layer gave these back."""
        self.given[layer] = _pair(keys, values)

    def handed(self, layer: int, keys: Tensor, values: Tensor, mask: Tensor | None, further: Mapping[str, Any]) -> None:
        """Attention of the layer was called with these; raises ModelError where it is told more than it can heed."""
        if mask is not None:
            self.masked[layer] = window_of(mask) is None
        unknown = sorted(k for k, v in further.items() if isinstance(v, Tensor) and k not in HARMLESS)
        if unknown:
            raise ModelError(f"its attention is also told {', '.join(unknown)}, which loopserve does not heed")
        self.called.setdefault(layer, []).append(_pair(keys, values))

    def handover(self) -> Handover:
        """What was seen."""
        foreign, whole, shared = set(), set(), set()
        for layer, calls in self.called.items():
            own = self.given.get(layer)
            if calls == [own]:
                continue
            foreign.add(layer)
            if own is not None:
                whole.add(layer)
            for source, pair in self.given.items():
                if source != layer and pair in calls:
                    shared.add(source)
        return Handover(frozenset(foreign), frozenset(whole | shared), frozenset(shared))


def _pair(keys: Tensor, values: Tensor) -> Pair:
    """Which memory two tensors are, seen how."""
    one, other = ((part.data_ptr(), *part.shape, *part.stride()) for part in (keys, values))
    return one, other
