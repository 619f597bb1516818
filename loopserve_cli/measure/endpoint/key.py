"""The key of a server, from the environment. It is shown nowhere: not in records, not in errors, not in a repr."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from loopserve_cli.endpoint_options import EndpointOptions
from loopserve_cli.errors import UsageError

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Key:
    """What the environment variable `variable` holds, None where it is not set."""

    variable: str
    value: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, options: EndpointOptions) -> Key:
        """The key of a server; raises UsageError where one was asked for that is not there, or is no key."""
        value = os.environ.get(options.key_variable, "").strip() or None
        if value is None and options.must_have_key:
            raise UsageError(f"--api-key-env {options.key_variable}: it is not set; export it with the server's key")
        if value is not None and not (value.isascii() and value.isprintable()):
            raise UsageError(f"{options.key_variable} holds what is no key; set it to the server's key alone")
        return cls(options.key_variable, value)

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {} if self.value is None else {"Authorization": f"Bearer {self.value}"}

    def hidden_in(self, text: str) -> str:
        """What a server said, without the key: some repeat it."""
        return text if self.value is None else text.replace(self.value, HIDDEN)
