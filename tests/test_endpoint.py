"""A server as one of a replay's profiles: what it is asked, what is recorded, beside whom it stands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from endpoint_server import DONE, Reply, delta, good, serving, stream, usage

from loopserve_cli.app import main
from loopserve_cli.endpoint_options import EndpointOptions, endpoints, parted
from loopserve_cli.errors import UsageError
from loopserve_cli.replay import run

TWO_TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "ANSWER1"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "ANSWER2"},
]
WELL = stream(*good("Hel", "lo"))


@pytest.fixture
def two_turns(tmp_path: Path) -> str:
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps({"id": "first", "messages": TWO_TURNS}) + "\n")
    return str(path)


@pytest.fixture(autouse=True)
def without_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def replayed(capsys, *words: str, code: int = 0) -> dict:
    """The document of a replay."""
    assert main(["replay", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_it_is_asked_with_the_recorded_history_and_streams(two_turns, capsys):
    with serving(WELL) as server:
        words = ["--max-new-tokens", "9", "--seed", "3", "--stop", "END", "--top-k", "5"]
        records = replayed(capsys, two_turns, "--endpoint", server.root, *words)["records"]
    last = server.asked[-1]
    assert last["messages"] == TWO_TURNS[:4]
    assert last["model"] == "tiny"
    assert last["stream"] is True
    assert last["stream_options"] == {"include_usage": True}
    assert (last["temperature"], last["max_tokens"], last["seed"], last["stop"], last["top_k"]) == (0, 9, 3, ["END"], 5)
    assert "top_p" not in last
    assert "min_p" not in last
    assert {one.path for one in server.seen} == {"/v1/models", "/v1/chat/completions"}
    assert [record["output_text"] for record in records] == ["Hello", "Hello"]
    assert [record["turn"] for record in records] == [1, 2]
    assert records[0]["seed"] == 3


def test_live_history_goes_on_from_its_own_answers(two_turns, capsys):
    with serving(WELL) as server:
        replayed(capsys, two_turns, "--endpoint", server.root, "--history", "live")
    assert [m["content"] for m in server.asked[-1]["messages"]] == ["Be brief.", "one", "Hello", "two"]


def test_the_tools_of_a_dialogue_are_offered_and_calls_are_text(tmp_path, capsys):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    path = tmp_path / "tools.jsonl"
    path.write_text(json.dumps({"id": "t", "messages": TWO_TURNS[:2], "tools": [tool]}) + "\n")
    calls = (
        delta(tool_calls=[{"index": 0, "function": {"name": "look", "arguments": '{"at":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}]),
        delta("tool_calls"),
        usage(20, 8),
        DONE,
    )
    with serving(stream(*calls)) as server:
        (record,) = replayed(capsys, str(path), "--endpoint", server.root)["records"]
    assert server.asked[-1]["tools"] == [tool]
    assert json.loads(record["output_text"]) == {"name": "look", "arguments": '{"at": 1}'}
    assert record["finish_reason"] == "tool_calls"
    assert record["ttft_ms"] > 0


def test_ttft_ends_with_the_first_chunk_that_holds_tokens(two_turns, capsys):
    def slow(reply: Reply) -> None:
        reply.begin()
        reply.raw(delta(role="assistant", content=""))
        reply.raw(delta())
        reply.raw(b": still here\n\n")
        time.sleep(0.2)
        reply.raw(delta(reasoning_content="Hm"))
        time.sleep(0.1)
        reply.raw(delta(content="Yes, indeed"))
        time.sleep(0.1)
        reply.raw(delta("stop"))
        reply.raw(usage(30, 5, 12))
        reply.raw(DONE)
        reply.end()

    with serving(slow) as server:
        (record,) = replayed(capsys, two_turns, "--endpoint", server.root, "--max-turns", "1")["records"]
    assert 200 <= record["ttft_ms"] < record["first_answer_ms"] < record["e2e_ms"]
    assert record["e2e_ms"] >= 400
    assert record["itl_ms"] == [pytest.approx(record["first_answer_ms"] - record["ttft_ms"])]
    assert record["chunks"] == 2
    assert record["tokens_output"] == 5
    assert record["tpot_ms"] == pytest.approx((record["e2e_ms"] - record["ttft_ms"]) / 4)
    assert record["decode_tokens_per_s"] == pytest.approx(1e3 / record["tpot_ms"])
    assert (record["output_text"], record["reasoning_text"]) == ("Yes, indeed", "Hm")
    counted = ("tokens_new", "tokens_cached", "tokens_logical", "tokens_counted_by")
    assert [record[name] for name in counted] == [18, 12, 35, "server"]


def test_a_server_that_kept_the_dialogue_is_told_once(two_turns, capsys):
    with serving(stream(delta(content="a"), delta("stop"), usage(10, 2, 9), DONE)) as server:
        assert main(["replay", two_turns, "--endpoint", f"a={server.root}", "--repeat", "3"]) == 0
    said = (
        "a: the server still has 9 tokens of first's first turn: its first tokens come sooner than those of a dialogue"
    )
    assert capsys.readouterr().err.count(said) == 1


def test_what_no_server_tells_is_null(two_turns, capsys):
    with serving(WELL) as server:
        (record,) = replayed(capsys, two_turns, "--endpoint", server.root, "--max-turns", "1")["records"]
    assert (record["device"], record["model"], record["finish_reason"]) == ("endpoint", "tiny", "stop")
    unknown = ("dtype", "quant", "rss_bytes", "keys_read", "kl_mean", "density", "prefill_ms", "peak_device_bytes")
    assert [record[name] for name in unknown] == [None] * len(unknown)
    assert set(record["versions"]) == {"python", "loopserve"}


def test_without_usage_chunks_are_counted_and_it_says_so(two_turns, capsys):
    with serving(stream(delta(content="a"), delta(content="b"), delta("stop"), DONE)) as server:
        (record,) = replayed(capsys, two_turns, "--endpoint", server.root, "--max-turns", "1")["records"]
    assert (record["tokens_output"], record["tokens_counted_by"]) == (2, "chunks")
    assert (record["tokens_new"], record["tokens_logical"], record["tokens_cached"]) == (None, None, None)


def test_an_answer_that_comes_at_once_has_no_token_time(two_turns, capsys):
    def at_once(reply: Reply) -> None:
        reply.begin()
        reply.raw(delta(content="all ") + delta(content="of ") + delta(content="it"))
        reply.raw(delta("stop") + usage(9, 4) + DONE)
        reply.end()

    with serving(at_once) as server:
        (record,) = replayed(capsys, two_turns, "--endpoint", server.root, "--max-turns", "1")["records"]
    assert (record["chunks"], record["tokens_output"], record["itl_ms"], record["tpot_ms"]) == (1, 4, [], None)


def test_alone_it_loads_no_model_and_no_torch(two_turns):
    code = (
        "import sys; from loopserve_cli.app import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    with serving(WELL) as server:
        words = ["replay", two_turns, "--endpoint", server.root, "--model", "theirs"]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert server.asked[-1]["model"] == "theirs"
    assert "the network and the server's queue" in done.stderr


def test_two_servers_stand_beside_each_other_in_turn(two_turns, tmp_path, capsys):
    with serving(WELL) as one, serving(stream(*good("Hel", "lo!"))) as other:
        words = [
            "--endpoint",
            one.root,
            "--endpoint",
            f"b={other.root}/v1/",
            "--repeat",
            "2",
            "--out",
            str(tmp_path / "o"),
        ]
        whole = replayed(capsys, two_turns, *words)
    name = f"{one.root.removeprefix('http://')}/tiny"
    firsts = [record["profile"] for record in whole["records"] if record["turn"] == 1]
    assert firsts == [name, "b", "b", name]
    verdict = whole["summary"]["b"]["verdict"]
    assert verdict["against"] == name
    assert (verdict["same_answers"], verdict["answers"]) == (0, 4)
    assert verdict["first_token"]["ratio"] > 0
    run = json.loads((tmp_path / "o" / "run.json").read_text())
    assert run["fingerprints"]["endpoints"][name] == {"url": f"{one.root}/v1", "model": "tiny"}


def test_a_run_is_resumed_at_the_turn_that_is_missing(two_turns, tmp_path, capsys):
    folder = str(tmp_path / "o")
    with serving(WELL) as server:
        words = ["--endpoint", f"a={server.root}"]
        replayed(capsys, two_turns, *words, "--out", folder)
        records = (tmp_path / "o" / "records.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "o" / "records.jsonl").write_text(records[0])
        before = len(server.seen)
        whole = replayed(capsys, two_turns, *words, "--resume", folder)
        asked = [one.body for one in server.seen[before:] if one.method == "POST"]
        assert [len(body["messages"]) for body in asked] == [1, 2, 4]  # the warm-up, the history, the turn
        assert asked[1]["max_tokens"] == 1
        assert [record["turn"] for record in whole["records"]] == [1, 2]
        assert main(["replay", two_turns, *words, "--endpoint-model", "other", "--resume", folder]) == 2
    assert "endpoints.a.model was tiny and is other" in capsys.readouterr().err


def test_a_gate_on_a_server_fails_with_3(two_turns, capsys):
    with serving(WELL) as server:
        replayed(capsys, two_turns, "--endpoint", f"a={server.root}", "--fail-if", "a.ttft_ms.p50 > 0", code=3)


def test_the_key_is_sent_and_stands_nowhere(two_turns, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")

    def refuses(reply: Reply) -> None:
        if len(server.asked) > 1:
            return reply.whole(401, {"error": {"message": "wrong key sk-very-secret"}})
        return WELL(reply)

    with serving(refuses) as server:
        words = ["--endpoint", server.root, "--api-key-env", "MY_KEY", "--out", str(tmp_path / "o")]
        assert main(["replay", two_turns, *words, "--json"]) == 1
    assert {one.headers["Authorization"] for one in server.seen} == {"Bearer sk-very-secret"}
    shown = capsys.readouterr()
    kept = "".join(path.read_text() for path in (tmp_path / "o").iterdir())
    assert "wrong key ***" in kept
    assert "MY_KEY is not the right one" in kept
    assert "very-secret" not in shown.out + shown.err + kept


def test_ctrl_c_closes_the_connection_at_once(two_turns, tmp_path):
    began, gone = threading.Event(), threading.Event()

    def endless(reply: Reply) -> None:
        reply.begin()
        try:
            for _ in range(2000):
                reply.raw(delta(content="a"))
                if len(server.asked):
                    began.set()
                time.sleep(0.01)
        except OSError:
            gone.set()

    def answers(reply: Reply) -> None:
        (endless if server.asked else WELL)(reply)

    with serving(answers) as server:
        words = [sys.executable, "-m", "loopserve_cli", "replay", two_turns, "--endpoint", server.root]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert began.wait(60)
        os.kill(process.pid, signal.SIGINT)
        assert gone.wait(20)
        assert process.wait(20) == 130
    assert "interrupted: 0 turns" in process.stderr.read()


def test_names_and_addresses_are_read_as_people_write_them():
    assert parted("http://h:8000") == (None, "http://h:8000/v1")
    assert parted("fast=https://h/v1/chat/completions") == ("fast", "https://h/v1")
    assert parted("http://h/a=b/v1/") == (None, "http://h/a=b/v1")
    assert EndpointOptions("http://h:1/v1", "org/name").called == "h:1/name"
    assert [one.model for one in endpoints(["http://a", "http://b"], ["m"], [], 5)] == ["m", "m"]
    assert [one.model for one in endpoints(["http://a", "http://b"], ["m", "n"], [], 5)] == ["m", "n"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--endpoint", "localhost:8000"], "is no URL; write for example http://localhost:8000/v1"),
        (["--endpoint", "http://user:pw@h"], "a password does not belong on the command line"),
        (["--endpoint", "http://h?key=1"], "goes on after ?"),
        (["--endpoint", "a b=http://h"], "is no name"),
        (["--endpoint", "http://h:99999"], "is no URL"),
        (["--endpoint", "full=http://127.0.0.1:1"], "is a profile's name"),
        (["--endpoint", "http://h", "--endpoint-model", "a", "--endpoint-model", "b"], "given 2 times for 1"),
        (["--endpoint", "http://h", "--endpoint-timeout", "0"], "--endpoint-timeout must be above 0"),
        (["--endpoint", "http://h", "--api-key-env", "NOT_SET_HERE"], "NOT_SET_HERE: it is not set"),
        (["--endpoint", "http://h", "--dtype", "float32"], "no --profile is given"),
        (["--endpoint", "http://h", "--fidelity"], "give a --profile as well"),
        (["--endpoint-model", "a"], "give its --endpoint"),
    ],
)
def test_wrong_usage_is_told_in_a_line(two_turns, capsys, words, said):
    assert main(["replay", two_turns, *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_password_in_the_address_is_not_shown(two_turns, capsys):
    with pytest.raises(UsageError) as wrong:
        parted("http://user:secret@h:99999")
    assert "secret" not in str(wrong.value)


def test_beside_the_engine_here_it_is_compared_with_full_attention(two_turns, capsys):
    """One command holds both, in turn, full first; the engine's tokenizer counts what the server does not."""
    from replay_fakes import FakeEngine, options

    with serving(stream(delta(content="Hel lo"), delta("stop"), DONE)) as server:
        url = f"{server.root}/v1"
        given = options(two_turns, "full", endpoints=(EndpointOptions(url, name="a"),), repeat=2, json=True)
        assert run(given, lambda given, say: FakeEngine(given.profiles[0])) == 0
    whole = json.loads(capsys.readouterr().out)
    firsts = [record["profile"] for record in whole["records"] if record["turn"] == 1]
    assert firsts == ["full", "a", "a", "full"]
    verdict = whole["summary"]["a"]["verdict"]
    assert (verdict["against"], verdict["ceiling"], verdict["kl_mean"]) == ("full", None, None)
    assert (verdict["same_answers"], verdict["answers"]) == (0, 4)
    assert verdict["first_token"]["pairs"] == 4
    counts = {(r["profile"], r["tokens_counted_by"]): r["tokens_output"] for r in whole["records"]}
    assert counts == {("full", None): 3, ("a", "tokenizer"): 6}  # its tokenizer has a token per letter
