"""Server-sent events, as far as servers of language models send them: what stands after "data:", each with its time.

By hand, since what matters here is hidden by a reader of events: the time at which bytes came, comments that only keep
a connection open, and bytes that are no UTF-8. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loopserve_cli.errors import EndpointError

# Far above any chunk of an answer; without it a server that never ends a line would fill the memory.
LONGEST_EVENT = 2**24
Stamped = tuple[float, bytes]


def events(reads: Iterable[Stamped]) -> Iterator[tuple[float, str]]:
    """The data of every event, and when the read came that ended it, in the clock of `reads`.

    Raises EndpointError for an endless one and for what is no UTF-8.
    """
    data: list[str] = []
    at = 0.0
    for at, line in _lines(reads):
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield at, "\n".join(data)
            data = []
    if data:  # a server that leaves out the last empty line
        yield at, "\n".join(data)


def _lines(reads: Iterable[Stamped]) -> Iterator[tuple[float, str]]:
    """Every line without its end, whatever the reads cut; what comes after the last line's end counts as one."""
    rest = b""
    at = 0.0
    for at, read in reads:
        *whole, rest = (rest + read).split(b"\n")
        for line in whole:
            yield at, _text(line.removesuffix(b"\r"))
        if len(rest) > LONGEST_EVENT:
            raise EndpointError(f"the server sent a line of more than {LONGEST_EVENT // 2**20} MiB, which is no answer")
    if rest:
        yield at, _text(rest.removesuffix(b"\r"))


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise EndpointError("the server sent what is no UTF-8 text") from None
