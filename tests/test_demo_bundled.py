"""The bundled dialogues: what the generator writes, as long as they say, with answers that can be derived."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import demo_oracle
import pytest

from loopserve_cli import bundled_files
from loopserve_cli.demo import bundled, tokenizer
from loopserve_cli.errors import ModelError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.transcript.read import read_dialogues

NAMES = ("demo", "demo:long", "demo:xlong")


def messages_of(name: str) -> tuple[Message, ...]:
    (dialogue,) = read_dialogues(bundled_files.bundled_path(name))
    assert dialogue.id == name
    return dialogue.messages


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="demo:short.*demo, demo:long, demo:xlong"):
        bundled_files.bundled_path("demo:short")


def test_a_missing_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_files, "__file__", str(tmp_path / "bundled_files.py"))
    with pytest.raises(ModelError, match=r"loopserve_cli\.demo\.train"):
        bundled_files.demo_model_folder()


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    bundled.write(tmp_path)
    for name, file in bundled_files.TRANSCRIPTS.items():
        assert (tmp_path / file).read_bytes() == bundled_files.bundled_path(name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "low", "high"), [("demo", 900, 1100), ("demo:long", 16000, 16384), ("demo:xlong", 32000, 32768)]
)
def test_lengths_in_tokens(name: str, low: int, high: int) -> None:
    rows = [{"role": m.role, "content": m.content} for m in messages_of(name)]
    text = tokenizer.build().apply_chat_template(rows, tokenize=False)
    assert low <= len(tokenizer.build()(text, add_special_tokens=False).input_ids) <= high


@pytest.mark.parametrize("name", NAMES)
def test_recorded_answers_can_be_read_off_the_dialogue(name: str) -> None:
    messages = messages_of(name)
    said: list[str] = []
    questions = 0
    for user, assistant in zip(messages[0::2], messages[1::2], strict=True):
        assert (user.role, assistant.role) == ("user", "assistant")
        if assistant.content.startswith("The ") and " of " in assistant.content:
            questions += 1
            assert demo_oracle.answer(said, user.content) == assistant.content
        said.append(user.content)
    assert questions >= (6 if name == "demo" else 20)


@pytest.mark.parametrize("name", ["demo:long", "demo:xlong"])
def test_the_last_questions_reach_every_part_and_some_changed_facts(name: str) -> None:
    messages = messages_of(name)
    last = [m.content for m in messages[1::2]][-10:]
    assert sum(" is now " in text for text in last) >= 2
    assert any(", and the " in text for text in last)
    assert last[-1].endswith("is not known to me.")
    whole = "".join(m.content for m in messages[0:-20:2])
    places = [whole.rfind(text[4:-1]) / len(whole) for text in last if whole.rfind(text[4:-1]) >= 0]
    assert min(places) < 1 / 3 < sorted(places)[len(places) // 2] < max(places)
    assert max(places) > 2 / 3


def test_finding_the_files_needs_neither_torch_nor_the_generator() -> None:
    code = "import sys, loopserve_cli.bundled_files; print(*(m for m in sys.modules if 'torch' in m or '.demo.' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
