"""What a saved cache says of itself: JSON in its metadata, checked field by field: anybody may have written it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from loopserve_cli import __version__
from loopserve_cli.engine.identity import Identity

FORMAT = 2
# A name or a hash, and a profile's policies as JSON, are shorter.
LONGEST_TEXT = 10_000


class OtherFormatError(ValueError):
    """A file in another format than this program's; its text says which program wrote it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Which model's the rows are, and by which profiles they were computed: policies as text, and their names."""

    identity: Identity
    profiles: Mapping[str, str]

    def to_json(self) -> str:
        """As it stands in the file."""
        facts = {"format": FORMAT, "version": __version__, "identity": asdict(self.identity)}
        return json.dumps({**facts, "profiles": dict(self.profiles)})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Read back; raises OtherFormatError, or ValueError for anything that `to_json` does not write."""
        try:
            facts = _object(json.loads(text))
        except RecursionError:
            raise ValueError("is nested too deeply") from None
        number, version = facts.get("format"), facts.get("version")
        if type(number) is int and number != FORMAT and isinstance(version, str):
            raise OtherFormatError(version[:40] if version.isprintable() else "of unknown version")
        if type(number) is not int or set(facts) != {"format", "version", "identity", "profiles"}:
            raise ValueError("has other fields")
        _text(version)
        identity, profiles = _object(facts["identity"]), _object(facts["profiles"])
        if set(identity) != {f.name for f in fields(Identity)}:
            raise ValueError("has another identity")
        if identity["quant"] is None:
            told = Identity(**{name: _text(value) for name, value in identity.items() if name != "quant"}, quant=None)
        else:
            told = Identity(**{name: _text(value) for name, value in identity.items()})
        return cls(told, {_text(policies): _text(name) for policies, name in profiles.items()})


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("is no object")
    return value


def _text(value: Any) -> str:
    """A text that can be shown in a line: half characters and control characters cannot."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise ValueError("is no text")
    return value
