"""A dialogue's store to a file and back, for the one model that it belongs to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from loopserve_cli.engine.dialogue_state import DialogueState
from loopserve_cli.engine.identity import Identity, identify
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.out_of_memory import is_out_of_memory
from loopserve_cli.engine.placement import layer_devices
from loopserve_cli.engine.prefiller import Prefiller
from loopserve_cli.engine.saved import Forms, RowForm, SavedStore, Told
from loopserve_cli.engine.saved_write import write
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.policies.prefill import PrefillTurn, prefill_policy
from loopserve_cli.profile import PolicyOptions, Profile

PLAIN = Profile("full", "full attention", PolicyOptions("dense"), PolicyOptions("everything"))


class Archive:
    """Writes and reads what is held under one model."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Nothing is read of the model yet; the identity of a quantised one was, before its first use."""
        self._loaded = loaded
        self._identity = loaded.identity
        self._forms: Forms | None = None

    @property
    def identity(self) -> Identity:
        """What a saved store must agree with to be this model's."""
        if self._identity is None:
            loaded = self._loaded
            self._identity = identify(loaded.model, loaded.tokenizer, loaded.name, loaded.quant)
        return self._identity

    @torch.inference_mode()
    def save(self, path: Path, state: DialogueState, told: Told | None = None) -> int:
        """Write what is held, all of it or nothing; returns the file's bytes. `told` hears how far that is.

        Raises LoopserveError where there is nothing to save or something else would be lost, OSError when the disk
        refuses.
        """
        if state.freezes:
            raise UsageError("retain.tier is evict: what it has dropped could not be loaded, so its cache is not saved")
        if not state.tokens:
            raise UsageError("there is nothing in the cache yet; ask something first")
        return write(path, state.store, state.tokens, self.identity, state.made_under, told)

    def open(self, path: Path, state: DialogueState) -> SavedStore:
        """The store in a file, for `restore`; raises LoopserveError, in one line, for one that does not belong here."""
        if state.freezes:
            raise UsageError(f"{path}: retain.tier is evict, which loads no saved cache")
        difference = SavedStore.facts(path).identity.difference(self.identity)
        if difference is not None:
            raise LoopserveError(f"{path} was saved {difference}")
        return SavedStore.read(path, self.forms, self._loaded.vocabulary)

    @property
    def forms(self) -> Forms:
        """What this model's layers store, seen from one token that is fed to it, and forgotten."""
        if self._forms is None:
            state = DialogueState(self._loaded.layers, PLAIN, self._loaded.handover)
            Prefiller(self._loaded).feed(state, [0], PrefillTurn(prefill_policy(PLAIN.prefill)), None)
            pairs = [layer.rows() for layer in state.store.layers]
            self._forms = [(_form(keys), _form(values)) for keys, values in pairs]
        return self._forms

    @torch.inference_mode()
    def restore(self, saved: SavedStore, state: DialogueState, told: Told | None = None) -> None:
        """Hold what a file holds where nothing is held; raises LoopserveError, and holds nothing, if that fails."""
        assert not state.tokens
        try:
            saved.into(state.store, layer_devices(self._loaded.model), told)
        except BaseException as error:
            state.reset()
            if is_out_of_memory(error):
                raise LoopserveError(f"{saved.path}: out of memory at {len(saved.tokens)} tokens") from error
            raise
        state.tokens += saved.tokens
        state.made_under |= saved.profiles


def _form(rows: Tensor) -> RowForm:
    return RowForm(rows.dtype, rows.shape[1], rows.shape[3])
