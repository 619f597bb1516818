"""The templates that people's models bring: what is fed is what transformers makes of them, or one line says why not.

The files come from the source archive of a package that vendors them; none is kept here.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import tiny

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import Event, Token, TurnDone
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord
from loopserve_cli.template import row_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PACKAGE = "llama-cpp-python"
FEWEST = 60
DATE = "2026-03-05T23:58:00"
MARKUP = re.compile(r"<\|[^|<>\s{}]+\|>|<｜[^｜<>\s{}]+｜>|\[/?[A-Z_]+\]|</?[a-z_:]+>|<(?:start|end)_of_turn>")
# These are added tokens too where models have them, but not special ones.
PLAIN_MARKUP = re.compile(r"think|tool|function|arg|param", re.IGNORECASE)
# No model says these, so in an answer they are text.
OTHERS = re.compile("respon|result|output|observ|system|user", re.IGNORECASE)
WEATHER = {
    "type": "function",
    "function": {
        "name": "look_up_weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
CODE = 'def f(x):\n    return {"a": [x, "<b>"]}  # {{ x }}\n\n\nprint(f(1))\n'
LONG = "The room of Miro is 417, and the desk of Zuvi is 881. " * 60
# By name: a system prompt, tools, and what is said and answered in turn.
DIALOGUES: dict[str, tuple[str | None, tuple[Any, ...], list[tuple[str, str]]]] = {
    "plain": (None, (), [("Hello.", "Hello!")]),
    "system": ("Be brief.", (), [("Who are you?", "A model."), ("And I?", "A user.")]),
    "turns": (None, (), [(f"Count to {n}.", f"{n} it is.") for n in range(1, 6)]),
    "unicode": ("Sei höflich. 请简短。", (), [("Grüße e\u0301 🙂 \u200d", "你好"), ("ไทย عربى", "ok 🙂")]),
    "code": (None, (), [(CODE, f"```python\n{CODE}```"), ("Why?", "<html>&amp;</html> $x^2$")]),
    "blank": (None, (), [("One.", ""), ("Two.", " "), ("  Three. \n", "\n three \n\n"), ("\tFour", "4")]),
    "long": (None, (), [(LONG, LONG[:500]), ("Where is Miro?", "In 417.")]),
    "tools": ("Use tools.", (WEATHER,), [("Is it raining?", "I do not know."), ("Guess.", "Yes.")]),
}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every template of the newest archive, by name."""
    folder = tmp_path_factory.mktemp("archive")
    asked = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE, "--dest", str(folder)]
    try:
        done = subprocess.run([*asked, PACKAGE], check=False, capture_output=True, text=True, timeout=400)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the source archive of {PACKAGE} did not come in time")
    if done.returncode:
        pytest.skip(f"the source archive of {PACKAGE} is not to be had: {done.stderr.strip().splitlines()[-1:]}")
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        files = [member for member in packed if re.search(r"/models/templates/[^/]+\.jinja$", member.name)]
        return {Path(member.name).stem: _text(packed, member) for member in files}


def _text(packed: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    opened = packed.extractfile(member)
    assert opened is not None
    return opened.read().decode()


def tokenizer_for(source: str) -> Any:
    """The demo model's tokenizer with the tokens that the template has in its text."""
    made = tiny.fresh_tokenizer(source)
    found = sorted(set(MARKUP.findall(source)))
    made.add_special_tokens({"additional_special_tokens": [t for t in found if not PLAIN_MARKUP.search(t)]})
    made.add_tokens([t for t in found if PLAIN_MARKUP.search(t)])
    return made


class ScriptedEngine:
    """Says what it is told to, and keeps what every turn was asked."""

    model_name, device, dtype, context_limit, freezes = "scripted", "cpu", "float32", None, False

    def __init__(self, tokenizer: Any, answer: Callable[[int], list[int]]) -> None:
        self.tokenizer = tokenizer
        self.answer = answer
        self.tokens: list[int] = []
        self.asked: list[list[int]] = []
        self.profile = load_profile("full")

    def reset(self) -> None:
        self.tokens = []

    def rewind(self, length: int) -> None:
        del self.tokens[length:]

    def feed(self, ids: list[int]) -> None:
        self.tokens = self.tokens + ids

    def turn(self, ids: list[int], *_rest: Any) -> Iterator[Event]:
        self.feed(ids)
        self.asked.append(list(self.tokens))
        said = self.answer(len(self.asked))
        self.feed(said)
        for number in said:
            yield Token(number, "")
        yield Token(0, self.tokenizer.decode(said, skip_special_tokens=True))
        yield TurnDone(TurnRecord(finish_reason="stop"))


def fed_and_wanted(tokenizer: Any, name: str, live: bool) -> tuple[list[tuple[list[int], list[int]]], list[str]]:
    """By turn what was fed and what transformers makes of the dialogue; and the lines that were told."""
    system, tools, exchanges = DIALOGUES[name]
    rng, told = Random(name), []
    sayable = [number for token, number in tokenizer.get_vocab().items() if number > 5 and not OTHERS.search(token)]
    engine = ScriptedEngine(tokenizer, lambda turn: rng.choices(sorted(sayable), k=7))
    talk = Conversation(engine, system, tools=tools, date=DATE, warn=told.append)  # type: ignore[arg-type]
    compared = []
    for number, (text, _) in enumerate(exchanges):
        if number and not live:
            talk.replace_answer(exchanges[number - 1][1])
        list(talk.ask(text, SamplingOptions()))
        compared.append((engine.asked[-1], oracle(tokenizer, talk, tools)))
    return compared, told


def oracle(tokenizer: Any, talk: Conversation, tools: tuple[Any, ...]) -> list[int]:
    """The ids of `apply_chat_template`; contents as parts where a text does not reach the prompt."""
    rows = [row_of(message) for message in talk.messages[:-1]]
    given = {"add_generation_prompt": True, "tools": list(tools) or None}
    if rows[-1]["content"].strip() not in tokenizer.apply_chat_template(rows, tokenize=False, **given):
        rows = [{**row, "content": [{"type": "text", "text": row["content"]}]} for row in rows]
    return list(tokenizer.apply_chat_template(rows, tokenize=True, return_dict=False, **given))


class Frozen(datetime.datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return datetime.datetime.fromisoformat(DATE)


def test_what_is_fed_is_what_transformers_makes_of_a_template(
    templates: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat_template_utils, "datetime", Frozen)
    assert len(templates) >= FEWEST
    refused: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    wrong, lines, turns = [], set(), 0
    for template, source in templates.items():
        tokenizer = tokenizer_for(source)
        for name in DIALOGUES:
            for live in (False, True):
                try:
                    compared, told = fed_and_wanted(tokenizer, name, live)
                except UsageError as error:
                    refused[template][str(error)].append(name)
                    continue
                lines |= {(template, line) for line in told}
                turns += len(compared)
                wrong += [(template, name, live, n) for n, (fed, want) in enumerate(compared, 1) if fed != want]
    for template, reasons in refused.items():
        for line, names in reasons.items():
            assert "\n" not in line and "template" in line
            print(f"refused: {template}: {', '.join(dict.fromkeys(names))}: {line}")
    for template, line in sorted(lines):
        print(f"told: {template}: {line}")
    whole = [t for t in refused if sum(map(len, refused[t].values())) >= 2 * len(DIALOGUES) - 2]
    print(f"{len(templates)} templates, {turns} turns equal; {len(refused)} refuse something, {len(whole)} all of it")
    assert not wrong
    assert len(whole) <= 4 and len(refused) <= 7
