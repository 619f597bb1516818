"""What a server answers in place of an answer, as one line that says what to do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from loopserve_cli.errors import EndpointError, LoopserveError, UsageError
from loopserve_cli.measure.endpoint.chunk import brief, error_text
from loopserve_cli.measure.endpoint.key import Key

# These pass: too many requests, and a server that loads its model or has no room now.
BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
NO_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
WRONG = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)
# A hub has hundreds of models.
MOST_NAMES = 10
CHECK = "check the URL, which ends in /v1 as a rule"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is none, from `url`. The names of `headers` are in small letters."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def is_page(self) -> bool:
        """Whether it is a web page, as a proxy or a site sends it, and no API's."""
        return "html" in self.headers.get("content-type", "") or self.body.lstrip().startswith("<")

    @property
    def said(self) -> str:
        """The server's own words, of a page its title; empty where there are none."""
        if self.is_page:
            title = re.search(r"<title[^>]*>(.*?)</title>", self.body, re.DOTALL | re.IGNORECASE)
            return f"a web page, {brief(title[1])!r}" if title else "a web page"
        return error_text(_json(self.body)) if self.body.strip() else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models, where the body is a list of them."""
        try:
            return tuple(str(row["id"]) for row in _json(self.body)["data"])
        except (KeyError, TypeError):
            return ()

    @property
    def wait_s(self) -> float | None:
        """How many seconds it asks to wait, by Retry-After in seconds or as a date; None where it does not."""
        text = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", text):
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return None

    def error(self, key: Key, models: tuple[str, ...] = ()) -> LoopserveError:
        """The refusal as an error: of use where the user must change the command, else of the server.

        `models` are the names that the server has, told where it does not know the one it was asked for.
        """
        line = f"{self.url}: {self._line(key)}"
        wrong_model = self.status in WRONG and not self.is_page and "model" in self.said.lower()
        if wrong_model and models:
            line += f"; it has {listed(models)}: give one as --endpoint-model"
        of_use = wrong_model or self.status in NO_KEY or 300 <= self.status < 400
        return (UsageError if of_use else EndpointError)(key.hidden_in(line))

    def _line(self, key: Key) -> str:
        said = f": {self.said}" if self.said else ""
        if self.status in NO_KEY:
            variable = f"{key.variable} is {'not set' if key.value is None else 'not the right one'}"
            return f"it wants a key ({self.status}{said}); {variable}: set it, or name another with --api-key-env"
        if 300 <= self.status < 400:
            place = self.headers.get("location", "")
            return f"it is at {place or 'another place'} ({self.status}); give that as --endpoint, without its end"
        if self.is_page:
            return f"it sent {self.said} ({self.status}), and no answer; {CHECK}"
        if self.status == HTTPStatus.OK:
            return f"it answered without a stream{said}; it must know stream: true"
        return f"it answered {self.status}{said}"


def listed(models: Sequence[str]) -> str:
    """The names of models, for a line."""
    more = len(models) - MOST_NAMES
    return ", ".join(models[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _json(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body
