"""A server that speaks OpenAI's chat completions, as it is asked for on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from loopserve_cli.errors import UsageError

KEY_VARIABLE = "OPENAI_API_KEY"
PATIENCE_S = 120.0
LONGEST_PATIENCE_S = 86_400.0
# What people paste is often the whole address of what is asked.
ASKED = "/chat/completions"
EXAMPLE = "http://localhost:8000/v1"


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """One server. `url` is what "/chat/completions" is put after; `model` None is found out from the server.

    `name` is what its turns are called, None: host and model. `key_variable` is the environment variable that holds
    the key, which stands nowhere else; `must_have_key` refuses to go without. `patience_s` is the longest silence in
    seconds.
    """

    url: str
    model: str | None = None
    name: str | None = None
    key_variable: str = KEY_VARIABLE
    must_have_key: bool = False
    patience_s: float = PATIENCE_S

    def __post_init__(self) -> None:
        """Refuse a silence that no clock measures."""
        if not (math.isfinite(self.patience_s) and 0 < self.patience_s <= LONGEST_PATIENCE_S):
            raise UsageError(f"--endpoint-timeout must be above 0 and at most {LONGEST_PATIENCE_S:,.0f} seconds")

    @property
    def called(self) -> str:
        """Its name in tables and conditions, without the folders of the model; known once the model is."""
        return self.name or f"{urlsplit(self.url).netloc}/{(self.model or '').rstrip('/').rpartition('/')[2]}"


def endpoints(
    given: Sequence[str], models: Sequence[str], key_variables: Sequence[str], patience_s: float
) -> tuple[EndpointOptions, ...]:
    """The servers of the command line, from "URL" or "NAME=URL"; raises UsageError.

    `models` and `key_variables` are one for all or one for each; none leaves them open.
    """
    each = zip(
        map(parted, given),
        _for_each("--endpoint-model", models, len(given)),
        _for_each("--api-key-env", key_variables, len(given)),
        strict=True,
    )
    return tuple(
        EndpointOptions(url, model, name, variable or KEY_VARIABLE, variable is not None, patience_s)
        for (name, url), model, variable in each
    )


def _for_each(flag: str, values: Sequence[str], count: int) -> list[str | None]:
    """One value for every server."""
    if any(not value.strip() for value in values):
        raise UsageError(f"{flag} is empty; give a name")
    if values and not count:
        raise UsageError(f"{flag} is for a server; give its --endpoint, such as {EXAMPLE}")
    if len(values) <= 1:
        return [*values, None][:1] * count
    if len(values) != count:
        raise UsageError(f"{flag} is given {len(values)} times for {count} endpoints; give it once, or once for each")
    return list(values)


def parted(text: str) -> tuple[str | None, str]:
    """The name, if one stands before "=", and the URL without what is asked of it; raises UsageError."""
    match = re.fullmatch(r"(?:([^:/=?#]*)=)?(.*)", text.strip(), re.DOTALL)
    assert match is not None
    name, url = match[1], match[2]
    if name is not None and not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
        raise UsageError(f"--endpoint: {name!r} is no name; write letters, digits, _ . - before the =")
    return name, _address(url)


def _address(url: str) -> str:
    """The URL with /v1 where it has no path, as every such server has it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"--endpoint: {_shown(url)!r} is no URL; write for example {EXAMPLE}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r"[\s\x00-\x20]", url):
        raise UsageError(f"--endpoint: {_shown(url)!r} is no URL; write for example {EXAMPLE}")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"--endpoint: a password does not belong on the command line; put the key in {KEY_VARIABLE}")
    if parts.query or parts.fragment:
        raise UsageError("--endpoint: the URL goes on after ? or #; give only what stands before it")
    path = parts.path.rstrip("/").removesuffix(ASKED) or "/v1"
    return SplitResult(parts.scheme, parts.netloc, path, "", "").geturl()


def _shown(url: str) -> str:
    """The start of what was given, without what may be a password."""
    return url.rpartition("@")[2][:80]
