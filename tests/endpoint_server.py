"""A server in this process that speaks as much of OpenAI's interface as a test lets it, and misbehaves as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}


class Reply(BaseHTTPRequestHandler):
    """One request; a test's function writes what comes back."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self.server.seen.append(Seen("GET", self.path, dict(self.headers), {}))
        self.server.lists(self)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(Seen("POST", self.path, dict(self.headers), body))
        self.server.answers(self)

    def whole(self, status: int, body: Any, kind: str = "application/json", **headers: str) -> None:
        """A whole answer: bytes, text, or what is JSON."""
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self, **headers: str) -> None:
        """The head of a stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def raw(self, data: bytes) -> None:
        """Bytes of a stream, as one piece."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def end(self) -> None:
        """The end of a stream."""
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """The connection is gone."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    answers: Callable[[Reply], None]
    lists: Callable[[Reply], None]
    seen: list[Seen]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error here."""


@dataclass(slots=True)
class Server:
    """Where it listens, and what it was asked."""

    root: str
    seen: list[Seen] = field(default_factory=list)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the questions, without the warm-up's."""
        return [one.body for one in self.seen if one.method == "POST" and one.body["max_tokens"] > 4]


def lists_tiny(reply: Reply) -> None:
    reply.whole(200, MODELS)


@contextmanager
def serving(answers: Callable[[Reply], None], lists: Callable[[Reply], None] = lists_tiny) -> Iterator[Server]:
    """A server that answers so, on a free port, until the end of the block."""
    http = _Http(("127.0.0.1", 0), Reply)
    http.answers, http.lists, http.seen = answers, lists, []
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{http.server_port}", http.seen)
    finally:
        http.shutdown()
        http.server_close()


def event(value: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(finish: str | None = None, usage: Any = None, **said: Any) -> bytes:
    """A chunk that adds this to the answer."""
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}
    return event(chunk | ({"usage": usage} if usage is not None else {}))


def usage(prompt: int, output: int, cached: int | None = None) -> bytes:
    """The chunk that counts."""
    counted: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output}
    if cached is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": cached}
    return event({"choices": [], "usage": counted})


DONE = event(b"[DONE]")


def stream(*parts: bytes) -> Callable[[Reply], None]:
    """An answer of these events, each a piece of its own, ended as it should be."""

    def answers(reply: Reply) -> None:
        reply.begin()
        for part in parts:
            reply.raw(part)
        reply.end()

    return answers


def good(*words: str) -> tuple[bytes, ...]:
    """What a well-made server streams: the role, the words, why it ended, the count, and that it is done."""
    said = [delta(content=word) for word in words]
    return (delta(role="assistant", content=""), *said, delta("stop"), usage(10, len(words) + 1, 4), DONE)
