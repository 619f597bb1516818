"""Whether a model answers through our attention as it does through its own: a short look, when it is loaded.

A prompt, two steps and a second prompt go through the engine's own store and attention, and through the model's eager
attention with transformers' own cache. Where the logits agree the model may run, and how its attention is handed keys
(`Handover`) is known; where they do not, or something fails on the way, it is refused. So is a model that says
something else to all of it at once, as one does that attends to later tokens or routes tokens by their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopserve_cli.engine.attention import ATTENTION_NAME, MASKED_NAME
from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.fused import FusedModel
from loopserve_cli.engine.handover import Handover, Witness
from loopserve_cli.engine.model_call import next_logits, positions
from loopserve_cli.engine.out_of_memory import is_out_of_memory
from loopserve_cli.engine.rotary import length_dependence
from loopserve_cli.engine.store import Store
from loopserve_cli.errors import LoopserveError, ModelError, in_a_line
from loopserve_cli.policies.keep.everything import Everything
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.policies.prefill.dense import Dense

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens of the pieces: a prompt, two steps, a prompt after them.
PIECES = (12, 1, 1, 5)
# Relative RMS of the logits: in full precision, and in half precision or quantised, where rounding differs with how
# many tokens are read at once. There a mixture of experts may choose another one for a token, by chance: what does not
# agree is looked at with other tokens, for a model that attends otherwise does so with all.
EXACT, ROUNDED = 1e-2, 0.1
DRAWS = 5


@dataclass(frozen=True, slots=True)
class AttentionCheck:
    """What was found: the attention implementation to run a model with, and how it is handed keys and values."""

    implementation: str
    handover: Handover


def check_attention(model: PreTrainedModel, layers: int) -> AttentionCheck:
    """Find how a model of so many layers can run, and leave it set to that; raises ModelError with the reason.

    `Store` has a layer for each that the model's own cache has.
    """
    reasons = []
    for draw in range(DRAWS if _rounds(model) else 1):
        found = _looked(model, layers, looked_at(model, draw))
        if isinstance(found, AttentionCheck):
            model.set_attn_implementation(found.implementation)
            return found
        reasons.append(found)
    raise ModelError(reasons[0])


def _looked(model: PreTrainedModel, layers: int, pieces: list[Tensor]) -> AttentionCheck | str:
    """How the model can run by these pieces, or why it cannot; raises ModelError where other pieces would not help."""
    expected = _own_logits(model, pieces)
    why = ""
    for name in (ATTENTION_NAME, MASKED_NAME):
        found = _found(model, layers, pieces, expected, name)
        if isinstance(found, Handover):
            return _differs_at_once(model, pieces, expected) or AttentionCheck(name, found)
        why = why or found
    return why


def _found(model: PreTrainedModel, layers: int, pieces: list[Tensor], expected: Tensor, name: str) -> Handover | str:
    """The handover under which our logits are the `expected` ones, or why there is none by this implementation."""
    try:
        with _implementation(model, name):
            witness = _watched(model, layers, pieces[0])
            handover = witness.handover()
            if name == MASKED_NAME:  # what computes with its mask must be handed everything
                every = frozenset(range(layers))
                handover = Handover(every, every, handover.shared)
            elif any(witness.masked.values()):
                return "its attention has a mask of its own"
            ours = our_logits(model, layers, pieces, handover)
    except Exception as error:
        return _reason(error)
    off = off_by(ours, expected)
    if off <= tolerance(model):
        return handover
    return f"its logits differ from those of transformers' own attention by {off:.0%}"


def tolerance(model: PreTrainedModel) -> float:
    """The relative RMS up to which logits are the same."""
    return ROUNDED if _rounds(model) else EXACT


def _rounds(model: PreTrainedModel) -> bool:
    """Whether its logits are good for a few percent only."""
    return model.dtype != torch.float32 or getattr(model.config, "quantization_config", None) is not None


def off_by(logits: Tensor, expected: Tensor) -> float:
    """The relative RMS of a difference."""
    return float((logits - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def _differs_at_once(model: PreTrainedModel, pieces: list[Tensor], expected: Tensor) -> str:
    """Why no turn can build on those before: the model says something else when the pieces are one. Else empty."""
    tokens = torch.cat(pieces, dim=1)
    lengths = length_dependence(model.config)
    if lengths is not None and lengths.at_once(tokens.shape[1]):
        return ""  # the engine knows what to read again
    off = off_by(_own_logits(model, [tokens]), expected[-1:])
    if off <= tolerance(model):
        return ""
    return f"its logits depend on which tokens are read at once, by {off:.0%}"


def _reason(error: Exception) -> str:
    """What a model's code raised, in one line; what says by itself that the model cannot run goes on."""
    if isinstance(error, LoopserveError) or is_out_of_memory(error):
        raise error
    return in_a_line(error)


def _watched(model: PreTrainedModel, layers: int, prompt: Tensor) -> Witness:
    """One prefill, and how attention is handed keys, values and masks in it."""
    store = Store(layers)
    store.witness = witness = Witness()
    prefill = PrefillTurn(Dense())
    next_logits(model, prompt, positions(0, prompt.shape[1], prompt.device), store, prefill=prefill, witness=witness)
    if not witness.called or not prefill.layers:
        raise ModelError("it keeps keyword arguments from its attention")
    if len(witness.given) < layers:
        raise ModelError(f"only {len(witness.given)} of its {layers} layers keep keys and values")
    blind = _windows(model) - witness.masked.keys()
    if blind:
        raise ModelError(f"the sliding window of layer {min(blind)} stands in its cache alone")
    return witness


def _windows(model: PreTrainedModel) -> set[int]:
    """Layers of which transformers' own cache keeps a window only."""
    from transformers import DynamicCache

    return {number for number, slides in enumerate(DynamicCache(config=model.config).is_sliding) if slides}


def our_logits(model: PreTrainedModel | FusedModel, layers: int, pieces: list[Tensor], handover: Handover) -> Tensor:
    """The logits after every piece, [pieces, V], through a store."""
    store = Store(layers, handover)
    decode = DecodeTurn(Everything(), store)
    logits = []
    for piece in pieces:
        places = positions(store.get_seq_length(), piece.shape[1], piece.device)
        if piece.shape[1] == 1:
            decode.begin_step()
            logits.append(next_logits(model, piece, places, store, decode=decode))
            decode.end_step()
        else:
            logits.append(next_logits(model, piece, places, store, prefill=PrefillTurn(Dense()), decode=decode))
    return torch.cat(logits).float()


def _own_logits(model: PreTrainedModel, pieces: list[Tensor]) -> Tensor:
    """The same through transformers' own cache."""
    from transformers import DynamicCache

    logits = []
    held = 0
    try:
        with _implementation(model, "eager"):
            cache = DynamicCache(config=model.config)
            for piece in pieces:
                logits.append(next_logits(model, piece, positions(held, piece.shape[1], piece.device), cache))
                held += piece.shape[1]
    except Exception as error:
        raise ModelError(f"it fails under transformers' own attention ({_reason(error)})") from error
    return torch.cat(logits).float()


def looked_at(model: PreTrainedModel, draw: int = 0) -> list[Tensor]:
    """Ids [1, n] of ordinary words, the same ones every time for a draw."""
    embedding: Any = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(draw)
    size = embedding.weight.shape[0]  # special tokens, such as those of pictures, stand at either end
    ids = torch.randint(size // 8, size // 2, (1, sum(PIECES)), generator=generator)
    return list(ids.to(embedding.weight.device).split(PIECES, dim=1))


@contextmanager
def _implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model with another attention for a while, and nothing recorded for a backward pass."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.set_attn_implementation(before)
