"""What goes wrong on the way to a server and back, as one line that says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from loopserve_cli.errors import EndpointError, UsageError
from loopserve_cli.measure.endpoint.chunk import brief


class BrokenOff(EndpointError):
    """A connection that ended before the answer did."""


@contextlib.contextmanager
def told(url: str, patience_s: float) -> Iterator[None]:
    """Inside, what httpx2 raises of `url` becomes an EndpointError."""
    import httpx2

    try:
        yield
    except (httpx2.ConnectTimeout, httpx2.PoolTimeout):
        raise EndpointError(f"{url}: nothing answered; see that the server runs, and the address is right") from None
    except httpx2.TimeoutException:
        raise silent(url, patience_s) from None
    except httpx2.ConnectError as error:
        reason = brief(str(error)) or "no connection"
        raise EndpointError(f"{url}: {reason}; see that the server runs, and the address is right") from None
    except httpx2.DecodingError as error:
        raise EndpointError(f"{url}: it sent what cannot be unpacked: {brief(str(error))}") from None
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise UsageError(f"{url}: is no URL: {brief(str(error))}; correct --endpoint") from None
    except httpx2.HTTPError as error:
        reason = brief(str(error)) or type(error).__name__
        raise BrokenOff(f"{url}: the connection broke off: {reason}") from None


def silent(url: str, patience_s: float) -> EndpointError:
    """The error of a server that says nothing for too long."""
    return EndpointError(
        f"{url}: it sent no token for {patience_s:g} s; see what it does, or wait longer with --endpoint-timeout"
    )
