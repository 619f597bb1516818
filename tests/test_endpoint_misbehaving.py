"""Servers that stall, cut off, refuse, lie or are something else: each is one line, and the other dialogues go on."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from endpoint_server import DONE, Reply, Server, delta, event, good, serving, stream, usage

from loopserve_cli.app import main
from loopserve_cli.measure.endpoint import client, sse

WELL = stream(*good("Hel", "lo"))


@pytest.fixture
def dialogues(tmp_path: Path) -> str:
    """Two dialogues, of two turns and of one."""
    path = tmp_path / "d.jsonl"
    ask = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    other = [{"role": "user", "content": "other"}]
    lines = [{"id": "first", "messages": ask}, {"id": "second", "messages": other}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(autouse=True)
def without_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def once(server: list[Server], bad: Callable[[Reply], None]) -> Callable[[Reply], None]:
    """Bad to the first question after the warm-up, and then well."""

    def answers(reply: Reply) -> None:
        (bad if len(server[0].asked) == 1 else WELL)(reply)

    return answers


def replayed(dialogues: str, capsys, bad: Callable[[Reply], None], *words: str) -> tuple[list[dict], str, Server]:
    """The records, what is told, and the server, of a replay whose first question is answered badly."""
    servers: list[Server] = []
    with serving(once(servers, bad)) as server:
        servers.append(server)
        main(["replay", dialogues, "--endpoint", f"it={server.root}", "--json", *words])
    shown = capsys.readouterr()
    return json.loads(shown.out)["records"], shown.err, server


def bad_stream(*parts: bytes) -> Callable[[Reply], None]:
    return stream(delta(content="a"), *parts)


def cut_off(reply: Reply) -> None:
    reply.begin()
    reply.raw(delta(content="a"))
    reply.cut()


def cut_before(reply: Reply) -> None:
    reply.cut()


def stalls(reply: Reply) -> None:
    reply.begin()
    reply.raw(delta(content="a"))
    time.sleep(2)


def only_pings(reply: Reply) -> None:
    reply.begin()
    for _ in range(30):
        reply.raw(b": ping\n\n" + delta(content=""))
        time.sleep(0.1)


def says_nothing(reply: Reply) -> None:
    time.sleep(2)


def no_stream(reply: Reply) -> None:
    reply.whole(200, {"choices": [{"message": {"content": "all at once"}}]})


def page(reply: Reply) -> None:
    reply.whole(200, "<!doctype html><html><title>Sign in</title></html>", "text/html")


def bad_gateway(reply: Reply) -> None:
    reply.whole(502, "<html><head><title>502 Bad Gateway</title></head></html>", "text/html")


def not_gzip(reply: Reply) -> None:
    reply.begin(Content_Encoding="gzip")
    reply.raw(b"this is not gzip at all")
    reply.end()


BROKEN: dict[str, tuple[Callable[[Reply], None], str]] = {
    "cut off": (cut_off, "the connection broke off"),
    "ends early": (stream(delta(content="a")), "the answer was cut off"),
    "closed twice": (cut_before, "the connection broke off"),
    "stalls": (stalls, "it sent no token for 1 s; see what it does, or wait longer with --endpoint-timeout"),
    "only pings": (only_pings, "it sent no token for 1 s"),
    "says nothing": (says_nothing, "it sent no token for 1 s"),
    "500": (lambda reply: reply.whole(500, {"error": {"message": "out of\nmemory"}}), "it answered 500: out of memory"),
    "500 bare": (lambda reply: reply.whole(500, b""), "it answered 500"),
    "400": (lambda reply: reply.whole(400, {"detail": "too long"}), "it answered 400: too long"),
    "400 text": (lambda reply: reply.whole(400, "plain words", "text/plain"), "it answered 400: plain words"),
    "error inside": (bad_stream(event({"error": {"message": "CUDA lost"}})), "the server says: CUDA lost"),
    "error as text": (bad_stream(event({"error": "worker died"})), "the server says: worker died"),
    "no JSON": (bad_stream(event(b'{"choices": [')), 'the server sent what is no JSON: {"choices": ['),
    "no chunk": (bad_stream(event([1, 2])), "the server sent what is no part of an answer: [1, 2]"),
    "wrong types": (bad_stream(event({"choices": [{"delta": {"content": 7}}]})), "no part of an answer"),
    "no UTF-8": (bad_stream(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n'), "no UTF-8 text"),
    "no stream": (no_stream, "it answered without a stream"),
    "page": (page, "it sent a web page, 'Sign in' (200), and no answer; check the URL"),
    "bad gateway": (bad_gateway, "it sent a web page, '502 Bad Gateway' (502)"),
    "not gzip": (not_gzip, "it sent what cannot be unpacked"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_is_one_line_and_the_next_dialogue_goes_on(dialogues, capsys, kind):
    bad, said = BROKEN[kind]
    if kind == "closed twice":  # the first time it may be an old connection, which is tried anew
        records, _, _ = replayed_always(dialogues, capsys, bad)
        assert [said in record["error"] for record in records] == [True, True]
        return
    patience = ["--endpoint-timeout", "1"] if "sent no token" in said else []
    records, err, _ = replayed(dialogues, capsys, bad, *patience)
    assert [(record["conversation_id"], record["turn"]) for record in records] == [("first", 1), ("second", 1)]
    assert said in records[0]["error"]
    assert records[0]["error"].endswith("(1 later turn not run)")
    assert "\n" not in records[0]["error"]
    unknown = ("ttft_ms", "tokens_output", "output_text", "tpot_ms")
    assert [records[0][name] for name in unknown] == [None] * len(unknown)
    assert records[1]["error"] is None
    assert records[1]["output_text"] == "Hello"
    assert f"failed: first, turn 1, it: {records[0]['error']}" in err


def replayed_always(dialogues: str, capsys, bad: Callable[[Reply], None]) -> tuple[list[dict], str, Server]:
    """As `replayed`, with every question answered badly, the warm-up's too."""
    with serving(bad) as server:
        code = main(["replay", dialogues, "--endpoint", f"it={server.root}", "--json"])
    shown = capsys.readouterr()
    assert code == 1
    return json.loads(shown.out)["records"], shown.err, server


def test_a_connection_that_was_closed_between_turns_is_no_failure(dialogues, capsys):
    """As llama.cpp does: the end of a stream, and then of the connection, without having said so."""

    def closes(reply: Reply) -> None:
        WELL(reply)
        reply.cut()

    servers: list[Server] = []
    with serving(closes) as server:
        servers.append(server)
        assert main(["replay", dialogues, "--endpoint", f"it={server.root}", "--json"]) == 0
    assert [record["error"] for record in json.loads(capsys.readouterr().out)["records"]] == [None] * 3


@pytest.mark.parametrize(
    "parts",
    [
        (delta(content="Hel"), delta(content="lo"), delta("stop")),
        (delta(content="Hel"), delta(content="lo"), DONE),
        (delta(content="Hel"), delta(content="lo", finish="stop"), DONE, b"data: rubbish after the end\n\n"),
        (b"data:" + delta(content="Hel")[6:-2].strip() + b"\r\n\r\n", delta(content="lo", finish="stop")[:-1]),
        (b"event: message\nid: 7\n", delta(content="Hel"), b"retry: 5\n\n", delta(content="lo", finish="stop")),
    ],
    ids=["no DONE", "no reason", "rubbish at the end", "CRLF, no last line", "other fields"],
)
def test_an_answer_that_is_whole_is_taken_however_it_is_written(dialogues, capsys, parts):
    records, _, _ = replayed(dialogues, capsys, stream(*parts))
    assert [record["error"] for record in records] == [None] * 3
    assert records[0]["output_text"] == "Hello"


def test_what_is_cut_into_single_bytes_and_packed_is_the_same(dialogues, capsys):
    def in_bytes(reply: Reply) -> None:
        reply.begin()
        for place in (whole := delta(content="Hel ✓") + delta("stop")):
            reply.raw(bytes([place]))
        assert whole
        reply.end()

    def packed(reply: Reply) -> None:
        reply.begin(Content_Encoding="gzip")
        reply.raw(gzip.compress(delta(content="Hel ✓") + delta("stop")))
        reply.end()

    for answers in (in_bytes, packed):
        records, _, _ = replayed(dialogues, capsys, answers)
        assert records[0]["output_text"] == "Hel ✓"


def test_a_count_that_is_a_lie_is_told_and_counted_here(dialogues, capsys):
    lying = stream(*(delta(content=word) for word in "a b c d".split()), delta("stop"), usage(10, 2), DONE)
    records, err, _ = replayed(dialogues, capsys, lying)
    assert (records[0]["tokens_output"], records[0]["tokens_counted_by"]) == (4, "chunks")
    assert "it: the server counts 2 tokens in 4 chunks of text, so they are counted here" in err


@pytest.mark.parametrize("count", [-3, "7", None, 1e400, True])
def test_a_count_that_is_no_number_is_none(dialogues, capsys, count):
    counts = event({"choices": [], "usage": {"completion_tokens": count, "prompt_tokens_details": 5}})
    records, _, _ = replayed(dialogues, capsys, stream(delta(content="a"), delta("stop"), counts, DONE))
    assert (records[0]["tokens_output"], records[0]["tokens_counted_by"]) == (1, "chunks")
    assert records[0]["tokens_cached"] is None


def test_nothing_said_is_an_empty_answer(dialogues, capsys):
    records, _, _ = replayed(dialogues, capsys, stream(delta(role="assistant"), delta("stop"), usage(9, 1), DONE))
    assert (records[0]["output_text"], records[0]["ttft_ms"], records[0]["tokens_output"]) == ("", None, 1)
    assert records[0]["error"] is None


def busy_twice(status: int, **headers: str) -> Callable[[Reply], None]:
    def answers(reply: Reply) -> None:
        if sum(one.method == "POST" for one in reply.server.seen) in (2, 3):
            return reply.whole(status, {"error": {"message": "slow down"}}, **headers)
        return WELL(reply)

    return answers


@pytest.mark.parametrize(
    ("status", "headers", "least"),
    [(429, {"Retry_After": "0.3"}, 0.6), (503, {}, 0.75), (429, {"Retry_After": formatdate(0, usegmt=True)}, 0)],
    ids=["seconds", "no word", "a date gone by"],
)
def test_a_busy_server_is_waited_for_and_the_wait_is_not_timed(dialogues, capsys, monkeypatch, status, headers, least):
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.25)
    began = time.monotonic()
    with serving(busy_twice(status, **headers)) as server:
        assert main(["replay", dialogues, "--endpoint", f"it={server.root}", "--json"]) == 0
    took = time.monotonic() - began
    assert took >= least
    shown = capsys.readouterr()
    records = json.loads(shown.out)["records"]
    assert [record["error"] for record in records] == [None] * 3
    assert records[0]["e2e_ms"] < 1e3 * (took - least)
    assert f"it: the server is busy ({status}), asking again in" in shown.err


def test_a_server_that_stays_busy_fails_after_some_tries(dialogues, capsys, monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.001)
    busy = lambda reply: reply.whole(429, {"error": {"message": "never"}})  # noqa: E731
    records, _, server = replayed_always(dialogues, capsys, busy)
    assert "it answered 429: never" in records[0]["error"]
    assert len([one for one in server.seen if one.method == "POST"]) == 3 * client.TRIES


def test_a_wait_that_is_too_long_is_not_waited_for(dialogues, capsys):
    busy = lambda reply: reply.whole(429, {"error": "tomorrow"}, Retry_After="86400")  # noqa: E731
    records, _, _ = replayed_always(dialogues, capsys, busy)
    assert "it answered 429: tomorrow" in records[0]["error"]


def refused(capsys, dialogues: str, code: int, *words: str, lists=None, answers=WELL) -> str:
    """What a server says that cannot be replayed at all."""
    with serving(answers, *([lists] if lists else [])) as server:
        assert main(["replay", dialogues, "--endpoint", f"it={server.root}", *words]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()[-1]


def lists(*names: str) -> Callable[[Reply], None]:
    return lambda reply: reply.whole(200, {"data": [{"id": name} for name in names]})


def test_what_is_wrong_from_the_start_ends_the_run_with_a_line(dialogues, capsys):
    line = refused(capsys, dialogues, 2, lists=lists("one", "two"))
    assert line.endswith("/v1 has one, two; give one as --endpoint-model")
    line = refused(capsys, dialogues, 2, lists=lambda reply: reply.whole(404, {"detail": "Not Found"}))
    assert line.endswith("does not tell what models it has; give --endpoint-model NAME")
    line = refused(capsys, dialogues, 1, lists=page)
    assert "it sent a web page, 'Sign in' (200), and no answer; check the URL" in line
    line = refused(capsys, dialogues, 2, lists=lambda reply: reply.whole(401, {"error": {"message": "no key"}}))
    assert "it wants a key (401: no key); OPENAI_API_KEY is not set: set it, or name another with --api-key-env" in line
    line = refused(capsys, dialogues, 2, lists=lambda reply: reply.whole(308, b"", Location="https://other/v1/models"))
    assert "it is at https://other/v1/models (308); give that as --endpoint" in line


def test_a_model_that_it_does_not_have_is_told_with_those_that_it_has(dialogues, capsys):
    unknown = lambda reply: reply.whole(404, {"error": {"message": "The model `x` does not exist."}})  # noqa: E731
    line = refused(capsys, dialogues, 2, "--model", "x", lists=lists("one", "two"), answers=unknown)
    assert "it answered 404: The model `x` does not exist.; it has one, two: give one as --endpoint-model" in line


def test_of_several_models_the_one_that_is_run_here_is_meant(dialogues, capsys):
    with serving(WELL, lists("one", "two")) as server:
        words = ["--endpoint", server.root, "--model", "two"]
        assert main(["replay", dialogues, *words, "--json"]) == 0
    assert {body["model"] for body in server.asked} == {"two"}


def test_nobody_there(dialogues, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert main(["replay", dialogues, "--endpoint", f"http://127.0.0.1:{port}"]) == 1
    err = capsys.readouterr().err
    assert "refused; see that the server runs, and the address is right" in err
    assert err.count("\n") == 1


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(dialogues, capsys, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    records, _, _ = replayed(dialogues, capsys, WELL)
    assert [record["error"] for record in records] == [None] * 3


def test_a_line_without_an_end_is_given_up(dialogues, capsys, monkeypatch):
    monkeypatch.setattr(sse, "LONGEST_EVENT", 2**20)
    endless = stream(delta(content="a"), b"data: ", *[b"x" * 2**16] * 40)
    records, _, _ = replayed(dialogues, capsys, endless)
    assert "the server sent a line of more than 1 MiB, which is no answer" in records[0]["error"]
    assert records[1]["error"] is None


def test_a_name_that_the_server_does_not_list_is_asked_for_and_told(dialogues, capsys):
    names = [f"m{number}" for number in range(12)]
    with serving(WELL, lists(*names)) as server:
        words = ["--endpoint", f"it={server.root}", "--endpoint-model", "other", "--json"]
        assert main(["replay", dialogues, *words]) == 0
    assert {body["model"] for body in server.asked} == {"other"}
    assert "it: the server has m0, m1, m2, m3, m4, m5, m6, m7, m8, m9 and 2 more, not other" in capsys.readouterr().err
