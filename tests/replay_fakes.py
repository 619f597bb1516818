"""A tokenizer and an engine small enough to read, with the real ones' protocols."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from loopserve_cli.config import ModelOptions, ReplayOptions, SamplingOptions
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.engine.identity import Identity
from loopserve_cli.profile import PolicyOptions, Profile
from loopserve_cli.stats import TurnRecord


class ByteTokenizer:
    """One id per byte; "<u>", "<a>", "<s>" and "<e>" are special tokens."""

    chat_template = "one letter per role"
    all_special_tokens = ["<s>", "<u>", "<a>", "<e>"]
    added_tokens_decoder: dict[int, object] = {}

    def apply_chat_template(self, rows: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        text = "".join(f"<{row['role'][0]}>{row['content']}<e>" for row in rows)
        return text + ("<a>" if add_generation_prompt else "")

    def __call__(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        assert not add_special_tokens
        return SimpleNamespace(input_ids=list(text.encode()))


class FakeEngine:
    """Answers "<profile's first letter><tokens held>"; times are made up and tell the profile.

    `fail(user_text)` may raise in the middle of a turn. `log` says what was asked, in order.
    """

    model_name = "fake"
    device = "cpu"
    dtype = "float32"
    context_limit = None
    freezes = False
    identity = Identity("fake", "c", "w", "t", "float32", None)

    def __init__(self, profile: Profile, fail: Callable[[str], None] = lambda text: None) -> None:
        self.profile = profile
        self.tokenizer = ByteTokenizer()
        self.tokens: list[int] = []
        self.fail = fail
        self.log: list[tuple[str, str]] = []
        self.seen: list[str] = []

    def set_profile(self, profile: Profile) -> None:
        self.profile = profile

    def reset(self) -> None:
        self.tokens = []

    def rewind(self, length: int) -> None:
        self.tokens = self.tokens[:length]

    def feed(self, ids: list[int]) -> None:
        self.tokens += ids

    def turn(
        self, ids: list[int], sampling: SamplingOptions, cancelled: Callable[[], bool], submitted: float
    ) -> Iterator[Event]:
        cached = len(self.tokens)
        self.tokens += ids
        prompt = bytes(self.tokens).decode()
        text = prompt.rpartition("<u>")[2].partition("<e>")[0]
        self.seen.append(prompt)
        self.log.append((self.profile.name, text))
        yield PrefillProgress(len(ids), len(ids))
        self.fail(text)
        answer = f"{self.profile.name[0]}{len(self.tokens)}"[: sampling.max_new_tokens]
        for letter in answer:
            yield Token(ord(letter), letter)
        self.tokens += list(answer.encode())
        yield TurnDone(
            TurnRecord(
                profile=self.profile.name,
                model=self.model_name,
                device=self.device,
                dtype=self.dtype,
                tokens_new=len(ids),
                tokens_cached=cached,
                tokens_logical=len(self.tokens),
                tokens_output=len(answer),
                finish_reason="stop",
                ttft_ms=100.0 + len(self.log),
                itl_ms=[1.0] * (len(answer) - 1),
                tpot_ms=1.0,
                prefill_tokens_per_s=5000.0,
                decode_tokens_per_s=1000.0,
                rss_bytes=2**20,
            )
        )


def profile(name: str) -> Profile:
    return Profile(name, f"profile {name}", PolicyOptions("dense"), PolicyOptions("everything"))


def transcript(path: Path, *dialogues: tuple[str, list[tuple[str, str | None]]]) -> str:
    """Write OpenAI-style dialogues, given as id and (user, answer) pairs; returns the path as text."""
    lines = []
    for name, pairs in dialogues:
        messages = []
        for user, answer in pairs:
            messages.append({"role": "user", "content": user})
            if answer is not None:
                messages.append({"role": "assistant", "content": answer})
        lines.append(json.dumps({"id": name, "messages": messages}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def options(transcripts: str | tuple[str, ...], *names: str, **rest: object) -> ReplayOptions:
    given = (transcripts,) if isinstance(transcripts, str) else transcripts
    sampling = rest.pop("sampling", SamplingOptions())
    profiles = tuple(profile(name) for name in names or ("full",))
    return ReplayOptions(ModelOptions(), sampling, profiles, given, **rest)  # type: ignore[arg-type]
