"""What an engine holds of a dialogue: its tokens, their keys and values, and under whose policies those came about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import torch

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.evict import Eviction
from loopserve_cli.engine.handover import Handover
from loopserve_cli.engine.layer_decoding import LayerBuffers
from loopserve_cli.engine.out_of_memory import memory_told
from loopserve_cli.engine.rope import Rope, check_rope
from loopserve_cli.engine.rotary import LengthDependence
from loopserve_cli.engine.store import Store
from loopserve_cli.engine.tiers import carried, empty_store
from loopserve_cli.policies.keep import keep_policy
from loopserve_cli.profile import Profile


class DialogueState:
    """One dialogue's state. `decode` is the decoding of the turn that is open, or the next one's."""

    def __init__(
        self,
        layers: int,
        profile: Profile,
        handover: Handover | None = None,
        lengths: LengthDependence | None = None,
        rope: Rope | None = None,
    ) -> None:
        """Nothing, for a model of so many layers, to whose attention things are handed so; `rope` are its positions.

        Raises UsageError where the profile needs those and they are not known.
        """
        self.tokens: list[int] = []
        # Which profiles' policies, as text, computed what is stored, and the profiles' names.
        self.made_under: dict[str, str] = {}
        self._layers = layers
        self._lengths = lengths
        self.store = empty_store(profile.retain["tier"], layers, handover, rope)
        self._begin_under(profile)

    @property
    def bytes(self) -> int:
        """Bytes allocated for keys and values, wherever they are."""
        return self.store.device_bytes + self.store.host_bytes

    @property
    def layout(self) -> tuple[int, LengthDependence | None, Store]:
        """What belongs to the model and not to the dialogue: its layers, and the store that it holds things in."""
        return self._layers, self._lengths, self.store

    @property
    def freezes(self) -> bool:
        """Whether what a turn has said is compressed for good when the next begins (tier evict)."""
        return self._eviction is not None

    @property
    def turn_began(self) -> int:
        """How many tokens came before the turn that is not frozen yet; 0 where none ever is."""
        return 0 if self._eviction is None else self._eviction.began

    @property
    def made_otherwise(self) -> list[str]:
        """The names of other profiles under which some of what is stored was computed: its keys are theirs."""
        return [name for policies, name in self.made_under.items() if policies != self._policies]

    def use(self, profile: Profile) -> None:
        """Go on under another profile: in its tier, or, to and from one that evicts, with nothing."""
        check_rope(profile, self.store.rope)
        old, new = self.profile.retain["tier"], profile.retain["tier"]
        if "evict" in (old, new):
            self.reset()
        if old != new:
            try:
                with memory_told(f"moving the cache to tier {new}, so that the next turn prefills anew"):
                    self.store = carried(
                        self.store, empty_store(new, self._layers, self.store.handover, self.store.rope)
                    )
            except BaseException:
                self.reset()  # a part has moved already; what is not there is fed again
                raise
        self._begin_under(profile)

    def _begin_under(self, profile: Profile) -> None:
        """Working sets and frozen segments belong to a profile and a store."""
        check_rope(profile, self.store.rope)
        self.profile = profile
        self._policies = json.dumps([asdict(profile.prefill), asdict(profile.keep)], sort_keys=True)
        self._keep = keep_policy(profile.keep)
        self._eviction = Eviction(self.store) if profile.retain["tier"] == "evict" else None
        self._buffers: dict[int, LayerBuffers] = {}
        self.decode = DecodeTurn(self._keep, self.store, self._buffers, self.freezes)

    @torch.inference_mode()
    def begin_segment(self) -> None:
        """What comes from now on is a turn of its own."""
        if self._eviction is not None:
            with memory_told("compressing the last turn"):
                self._eviction.freeze(self.decode, len(self.tokens))
        self.decode = DecodeTurn(self._keep, self.store, self._buffers, self.freezes)

    def read_between(self, layer: int, cuts: Sequence[int]) -> list[float] | None:
        """As `DecodeTurn.read_between`, of the tokens between the cuts; None also where no row is a cut's."""
        if self._eviction is None:
            return self.decode.read_between(layer, cuts)
        rows = [row for row in (self._eviction.row(layer, cut) for cut in cuts) if row is not None]
        return self.decode.read_between(layer, rows) if len(rows) == len(cuts) else None

    def append(self, ids: list[int]) -> None:
        """Count tokens that the store has taken in under the present profile."""
        self.tokens += ids
        self.made_under[self._policies] = self.profile.name

    @torch.inference_mode()
    def rewind(self, length: int) -> None:
        """Return to the state after `length` tokens, exactly; a tier that evicts may return to one before it.

        Nothing is left where that is short enough for the model to have had other positions then.
        """
        assert 0 <= length <= len(self.tokens)
        if self._lengths is not None:
            length = self._lengths.kept(len(self.tokens), length)
        if self._eviction is None:
            self.store.rewind(length)
        elif length < len(self.tokens):
            length = self._eviction.rewind(length)
            self.decode.rewind()
        del self.tokens[length:]
        if not self.tokens:
            self.made_under.clear()

    def undo_pass(self) -> None:
        """Forget what a forward pass stored that did not end."""
        self.store.rewind(len(self.tokens))
        if self.freezes:
            self.decode.rewind()

    def reset(self) -> None:
        """Forget the dialogue and give its memory back."""
        self.store.reset()
        self._begin_under(self.profile)
        self.tokens.clear()
        self.made_under.clear()
