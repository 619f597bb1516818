"""How many tokens a model reads at most: its own limit, and the one asked for.

The limit of scaled rotary positions is derived as vLLM and SGLang do it (`_get_and_verify_max_len`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loopserve_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# What architectures call their longest dialogue; where several stand, the first counts.
LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "max_sequence_length")
# Scaled by a factor over the trained length. The other kinds state the long length in max_position_embeddings.
SCALED = ("yarn", "linear", "dynamic")
ORIGINAL = "original_max_position_embeddings"


def own_limit(config: PreTrainedConfig) -> int | None:
    """The most tokens that the configuration says the model reads; None where it says none, as with ALiBi.

    YaRN, linear and dynamic scaling reach factor x the trained length, whether or not max_position_embeddings was
    raised as well: model cards tell users to add YaRN and leave it as it is.
    """
    text = config.get_text_config()
    named = (getattr(text, name, None) for name in LIMITS)
    stated = next((number for number in named if isinstance(number, int) and number > 0), None)
    if stated is None:
        return None
    # Every layer reads the whole dialogue, so the layers of the shortest reach set the limit.
    return max(stated, min((_reach(rope, stated, nested) for rope, nested in _ropes(text)), default=stated))


def _ropes(text: Any) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """The rotary settings of the layers that read everything; with it whether they stand under a kind of layer."""
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = {name: value for name, value in rope.items() if isinstance(value, Mapping)}
    for name, settings in kinds.items():
        if name != "sliding_attention":
            yield settings, True
    if rope and not kinds:
        yield rope, False


def _reach(rope: Mapping[str, Any], stated: int, nested: bool) -> int:
    kind, factor, original = rope.get("rope_type") or rope.get("type"), rope.get("factor"), rope.get(ORIGINAL)
    if kind not in SCALED or not isinstance(factor, int | float):
        return stated
    if original is None and nested:
        return stated  # Gemma 3 scales its global layers alone, and states the scaled length
    return int(factor * (original or stated))


def context_limit(
    config: PreTrainedConfig, asked: int | None, name: str, warn: Callable[[str], None] = lambda _: None
) -> int | None:
    """The limit to run with: `asked` if given, else the model's own; `warn` is told when it is above the own.

    Raises ModelError where positions are looked up in a table, which has no row for a later one.
    """
    own = own_limit(config)
    if asked is None or own is None or asked <= own:
        return asked or own
    if not getattr(config.get_text_config(), "rope_parameters", None):
        raise ModelError(
            f"--context {asked:,} is above the {own:,} tokens of {name}, whose positions are a table of that length; "
            "give at most that"
        )
    warn(f"--context {asked:,} is above the {own:,} tokens that {name} is made for: past them its answers may be wrong")
    return asked
