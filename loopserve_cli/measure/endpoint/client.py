"""Asks a server over HTTP. httpx2, since huggingface-hub brings it: proxies, TLS, gzip and time limits are its work."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any

from loopserve_cli.endpoint_options import ASKED, EndpointOptions
from loopserve_cli.errors import EndpointError
from loopserve_cli.measure.endpoint.chunk import Chunk, parse_chunk
from loopserve_cli.measure.endpoint.failures import BrokenOff, silent, told
from loopserve_cli.measure.endpoint.key import Key
from loopserve_cli.measure.endpoint.refusal import BUSY, Refusal
from loopserve_cli.measure.endpoint.sse import Stamped, events

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 10.0
# Compressing would hold chunks back.
HEADERS = {"Accept": "text/event-stream, application/json", "Accept-Encoding": "identity"}
# Nobody wants a server on this machine to be asked through a proxy.
LOCAL = ("localhost", "127.0.0.1", "[::1]")
STREAM = "text/event-stream"
DONE = "[DONE]"
MOST_BODY = 2**22
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
# What a server without a list of models answers.
NO_LIST = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way: when it was submitted (`time.perf_counter`), and what comes back."""

    submitted: float
    chunks: Iterator[Chunk]


class Client:
    """A connection to one server, kept open between turns. Close it, or use it in a `with`."""

    def __init__(
        self,
        options: EndpointOptions,
        key: Key,
        warn: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect at the first request. `warn` is told of a server that is busy, `sleep` waits so many seconds."""
        import httpx2

        self.options = options
        self._key = key
        self.warn = warn
        self._sleep = sleep
        # Of the models that the server has, as far as it told.
        self.names: tuple[str, ...] = ()
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(options.patience_s, connect=CONNECT_S),
            limits=httpx2.Limits(keepalive_expiry=None),
            headers=HEADERS | key.headers,
            mounts=dict.fromkeys(f"all://{host}" for host in LOCAL),
        )

    def __enter__(self) -> Client:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._http.close()

    def models(self) -> tuple[str, ...]:
        """The names of the models that the server has; none where it does not tell. Leaves the connection open.

        Raises EndpointError where nothing answers or a web page does, and UsageError where it wants a key or is
        elsewhere.
        """
        url = f"{self.options.url}/models"
        with told(url, self.options.patience_s), self._http.stream("GET", url) as response:
            refusal = _refusal(response, url)
        if refusal.is_page or refusal.status not in (HTTPStatus.OK, *NO_LIST):
            raise refusal.error(self._key)
        self.names = refusal.names
        return self.names

    @contextlib.contextmanager
    def asked(self, body: Mapping[str, Any]) -> Iterator[Asked]:
        """Ask for an answer; inside, it streams in. Leaving before its end closes the connection.

        A server that is busy is asked again, when it says or after a while that doubles; one that had closed the
        connection, as llama.cpp does after an answer without a word, is asked again at once. The time until then is
        none of the answer's. Raises EndpointError and UsageError, as iterating does.
        """
        url, busy, closed = self.options.url + ASKED, 0, False
        while True:
            answers = False
            submitted = time.perf_counter()
            try:
                with told(url, self.options.patience_s), self._http.stream("POST", url, json=body) as response:
                    answers = True
                    if response.status_code == HTTPStatus.OK and STREAM in response.headers.get("content-type", ""):
                        yield Asked(submitted, _chunks(response, url, submitted, self.options.patience_s))
                        return
                    refusal = _refusal(response, url)
            except BrokenOff:
                if answers or closed:
                    raise
                closed = True
                self.models()
                continue
            busy += 1
            if refusal.status not in BUSY or busy == TRIES:
                raise refusal.error(self._key, self.names)
            self._wait(refusal, FIRST_WAIT_S * 2 ** (busy - 1))

    def _wait(self, refusal: Refusal, otherwise_s: float) -> None:
        """Until the server may have time; raises what it answered where that is too long."""
        asked_s = refusal.wait_s
        seconds = otherwise_s if asked_s is None else asked_s
        if seconds > LONGEST_WAIT_S:
            raise refusal.error(self._key)
        self.warn(f"{self.options.called}: the server is busy ({refusal.status}), asking again in {seconds:g} s")
        self._sleep(seconds)


def _refusal(response: httpx2.Response, url: str) -> Refusal:
    """The whole answer, as far as anything in it matters."""
    body = b""
    for read in response.iter_bytes():
        body += read
        if len(body) > MOST_BODY:
            break
    return Refusal(url, response.status_code, response.headers, body[:MOST_BODY].decode("utf-8", "replace"))


def _chunks(response: httpx2.Response, url: str, submitted: float, patience_s: float) -> Iterator[Chunk]:
    """The answer's chunks until it is whole; what happens to the connection after that is no matter.

    Raises EndpointError for one that breaks off, and for a silence that is too long, in which comments may come.
    """
    import httpx2

    heard = submitted
    whole = ended = False

    def reads() -> Iterator[Stamped]:
        for read in response.iter_bytes():
            at = time.perf_counter()
            if at - heard > patience_s:
                raise silent(url, patience_s)
            yield at, read

    try:
        for at, data in events(reads()):
            ended = ended or data == DONE
            if not ended:
                chunk = parse_chunk(data, at)
                heard = at if chunk.holds_tokens else heard
                whole = whole or chunk.finish is not None
                yield chunk
    except httpx2.HTTPError:
        if not (whole or ended):
            raise
    if not (whole or ended):
        raise EndpointError(f"{url}: the answer was cut off")
