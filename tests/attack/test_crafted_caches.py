"""Saved caches that somebody made up or mixed up: through the way a resumed chat takes, none changes an answer."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_fakes import make_session, printed
from safetensors.torch import load_file, save_file
from test_saved import engine_of

from loopserve_cli.chat import kv_file
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.session import Session
from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.engine import Engine

DATE = "2026-01-31T09:00:00"
JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 10**19, -(10**19), 10**400, float("nan"), float("inf")),
    *("", "x", "\ud800", "\0", "a\nb", "\x1b]52;c;eA==\x07", "9" * 20_000),
    *([], {}, [[]], [1, 2], {"a": 1}, {"a": "b"}, {"\ud800": "x"}),
]
HEADER = 8
# One in so many of what every field is set to.
SHARES = [12, pytest.param(1, marks=pytest.mark.slow)]


def session_on(engine: Engine) -> Session:
    session = make_session()
    session.conversation = Conversation(engine, date=DATE)
    session.sampling = SamplingOptions(max_new_tokens=6)
    return session


class Attack:
    """One saved dialogue, and the answer that a chat which never stopped gives next."""

    def __init__(self, folder: Path) -> None:
        self.transcript, self.counts = folder / "x.jsonl", Counter[str]()
        session = session_on(engine_of())
        for text in ("The colour of Anna is red.", "The home of Bert is Rome.", "What is the colour of Anna?"):
            session.ask(text)
        dispatch(session, f"/save {self.transcript} --kv")
        self.cache = kv_file.beside(self.transcript)
        self.good = self.cache.read_bytes()
        self.messages = list(session.conversation.messages)
        self.answer = session.ask("What is the home of Bert?").output_text  # type: ignore[union-attr]
        self.engine = engine_of()

    @property
    def header(self) -> dict[str, Any]:
        return json.loads(self.good[HEADER : HEADER + int.from_bytes(self.good[:HEADER], "little")])

    @property
    def data(self) -> bytes:
        return self.good[HEADER + int.from_bytes(self.good[:HEADER], "little") :]

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.header["__metadata__"]["loopserve"])

    def write(self, header: Any, data: bytes | None = None) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.cache.write_bytes(len(text).to_bytes(8, "little") + text + (self.data if data is None else data))

    def with_facts(self, facts: Any) -> None:
        header = self.header
        header["__metadata__"]["loopserve"] = facts if isinstance(facts, str) else json.dumps(facts)
        self.write(header)

    def trial(self, name: str, falls_back: bool = True) -> None:
        """Resume with the cache as it lies there; count what comes of it."""
        self.counts["trials"] += 1
        session = session_on(self.engine)
        session.conversation.load(list(self.messages))
        try:
            kv_file.feed(session, self.transcript)
            record = session.ask("What is the home of Bert?")
        except Exception as error:
            self.counts["crashed"] += 1
            print(f"{name}: {type(error).__name__}: {error}")
            return
        told = printed(session)[1].splitlines()
        refused = [line for line in told if line.endswith("; prefilling the history instead")]
        wrong = record is None or record.output_text != self.answer or len(told) != 2 + falls_back
        if wrong or len(refused) != falls_back or any("\x1b" in line for line in told):
            self.counts["wrong"] += 1
            print(f"{name}: {told}")


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attack]:
    monkeypatch.chdir(tmp_path)
    made = Attack(tmp_path)
    yield made
    print(dict(made.counts))
    assert made.counts["trials"] > 0 and made.counts["crashed"] == made.counts["wrong"] == 0


def test_the_whole_file_is_taken(attack: Attack) -> None:
    session = session_on(attack.engine)
    session.conversation.load(list(attack.messages))
    kv_file.feed(session, attack.transcript)
    assert "tokens of history loaded from" in printed(session)[1]
    assert session.ask("What is the home of Bert?").output_text == attack.answer  # type: ignore[union-attr]
    attack.counts["trials"] += 1


def spots(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Every path into nested containers."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (key,)
        yield from ((key, *rest) for rest in spots(value[key]))


def changed(value: Any, path: tuple[Any, ...], junk: Any, drop: bool = False) -> Any:
    made = copy.deepcopy(value)
    holder = made
    for step in path[:-1]:
        holder = holder[step]
    if drop:
        del holder[path[-1]]
    else:
        holder[path[-1]] = junk
    return made


@pytest.mark.parametrize("share", SHARES)
def test_every_field_of_the_metadata(share: int, attack: Attack) -> None:
    facts, rng = attack.facts, random.Random(0)
    # What differs in nothing but these changes no row; a checksum holds them nevertheless.
    for path in spots(facts):
        for junk in rng.sample(JUNK, len(JUNK) // share):
            if junk != changed_at(facts, path) or type(junk) is not type(changed_at(facts, path)):
                attack.with_facts(changed(facts, path, junk))
                attack.trial(f"{path} = {junk!r:.40}")
        attack.with_facts(changed(facts, path, None, drop=True))
        attack.trial(f"{path} missing")
    for junk in [*JUNK, facts | {"more": 1}, facts | {"identity": facts["identity"] | {"more": "x"}}]:
        attack.with_facts(json.dumps(junk))
        attack.trial(f"facts = {junk!r:.40}")
    for text in ("", "[" * 100_000, '{"a":' * 100_000, "{", '{"format": ' + "9" * 5000 + "}", "\ud800"):
        attack.with_facts(text)
        attack.trial(f"text {text:.20}")


def changed_at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("share", SHARES)
def test_every_field_of_the_header(share: int, attack: Attack) -> None:
    header, rng = attack.header, random.Random(0)
    sizes = [0, 1, 2, 16, 117, 2**31, 2**63, 2**64, 10**30]
    for path in spots(header):
        junks = [*JUNK, "F32", "F16", "BF16", "I64", "U8", "F64", "BOOL", *sizes]
        for junk in rng.sample(junks, len(junks) // share):
            if path != ("__metadata__", "loopserve") and junk != changed_at(header, path):
                attack.write(changed(header, path, junk))
                attack.trial(f"{path} = {junk!r:.40}")
        attack.write(changed(header, path, None, drop=True))
        attack.trial(f"{path} missing")
    for text in (b"", b"{}", b"[]", b"\xff" * 64, b"[" * 1000, b'{"a":' * 1000):
        attack.write(text)
        attack.trial(f"header {text[:20]!r}")
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        attack.cache.write_bytes(length.to_bytes(8, "little") + attack.good[8:])
        attack.trial(f"a header of {length} bytes")


def mixed() -> dict[str, Callable[[dict[str, torch.Tensor]], None]]:
    """Tensors that are whole, but not where they belong."""

    def swap(left: str, right: str) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors[left], tensors[right] = tensors[right], tensors[left]

        return change

    def order(name: str, dim: int, by: list[int] | str) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensor = tensors[name]
            index = torch.arange(tensor.shape[dim])
            index = index.flip(0) if by == "flip" else index.roll(1) if by == "roll" else swapped(index)
            tensors[name] = tensor.index_select(dim, index).contiguous()

        return change

    def swapped(index: torch.Tensor) -> torch.Tensor:
        index[[-1, -2]] = index[[-2, -1]]
        return index

    found = {
        f"{name} {how} along {dim}": order(name, dim, how)
        for name in [f"layers.{number}.{part}" for number in (0, 1) for part in ("keys", "values")]
        for dim in (0, 1, 2)
        for how in ("flip", "roll", "last two")
    }
    found |= {f"tokens {how}": order("tokens", 0, how) for how in ("flip", "roll", "last two")}
    found |= {f"sums {how}": order("sums", 0, how) for how in ("flip", "roll", "last two")}
    found["layers"] = swap("layers.0.keys", "layers.1.keys")
    found["values of layers"] = swap("layers.0.values", "layers.1.values")
    found["keys and values"] = swap("layers.0.keys", "layers.0.values")
    return found


def test_rows_heads_layers_and_sums_in_another_order(attack: Attack) -> None:
    for name, change in mixed().items():
        tensors = load_file(attack.cache)
        before = {key: tensor.clone() for key, tensor in tensors.items()}
        change(tensors)
        if all(torch.equal(before[key], tensors[key]) for key in tensors):
            continue  # two rows of the same token
        save_file(tensors, attack.cache, metadata=attack.header["__metadata__"])
        attack.trial(name)
        attack.cache.write_bytes(attack.good)


def test_places_swapped_with_their_sums(attack: Attack) -> None:
    """Layers, and heads of one tensor, change places together with their own checksums."""
    tensors = load_file(attack.cache)
    sums = tensors["sums"].clone()  # tokens, then two heads of each of keys 0, values 0, keys 1, values 1
    for first, second, rows in (
        ("layers.0.keys", "layers.1.keys", [0, 5, 6, 3, 4, 1, 2, 7, 8]),
        ("layers.0.keys", "layers.0.values", [0, 3, 4, 1, 2, 5, 6, 7, 8]),
    ):
        made = {**tensors, first: tensors[second].clone(), second: tensors[first].clone(), "sums": sums[rows].clone()}
        save_file(made, attack.cache, metadata=attack.header["__metadata__"])
        attack.trial(f"{first} and {second}")
    heads = {**tensors, "layers.0.keys": tensors["layers.0.keys"].flip(0).contiguous()}
    save_file(
        {**heads, "sums": sums[[0, 2, 1, *range(3, 9)]].clone()}, attack.cache, metadata=attack.header["__metadata__"]
    )
    attack.trial("heads")


@pytest.mark.parametrize("tokens", [-1, 1024, 2**62, -(2**63)])
def test_tokens_out_of_the_vocabulary_with_a_checksum_that_fits(tokens: int, attack: Attack) -> None:
    from loopserve_cli.engine.saved_digest import digests

    tensors = load_file(attack.cache)
    metadata = attack.header["__metadata__"]
    tensors["tokens"][-1] = tokens
    tensors["sums"][:1] = digests("tokens", metadata["loopserve"], tensors["tokens"])
    save_file(tensors, attack.cache, metadata=metadata)
    attack.trial(f"token {tokens}")


def test_other_things_of_that_name(attack: Attack, tmp_path: Path) -> None:
    import os
    import pickle

    attack.cache.write_bytes(pickle.dumps({"tokens": [1]}))
    attack.trial("a pickle")
    torch.save({"tokens": torch.arange(3)}, attack.cache)
    attack.trial("torch.save")
    attack.cache.unlink()
    os.mkfifo(attack.cache)
    attack.trial("a pipe")
    attack.cache.unlink()
    attack.cache.mkdir()
    attack.trial("a folder")
    shutil.rmtree(attack.cache)
    attack.cache.symlink_to("/dev/zero")
    attack.trial("a device")


def flips(attack: Attack, count: int) -> None:
    rng = random.Random(1)
    for _ in range(count):
        data = bytearray(attack.good)
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        attack.cache.write_bytes(data)
        attack.trial(f"bit at {place}")


def test_one_bit(attack: Attack) -> None:
    flips(attack, 60)


@pytest.mark.slow
def test_many_single_bits(attack: Attack) -> None:
    flips(attack, 5000)
