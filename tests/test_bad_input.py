"""Wrong input at the command line: each case ends in its exit code and one line, and no file is touched."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny
from rights import without_rights

from loopserve_cli import app, profile, transcript

HEADER = '{"loopserve": 1, "model": null, "profile": null, "created": null}\n'
USER = '{"role": "user", "content": "Hello."}\n'
ANSWER = '{"role": "assistant", "content": "Hi."}\n'
POLICIES = '[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n'
TALK = HEADER + USER + ANSWER
LONG = "word " * 200
CONTEXT = 64
NOT_CACHED = "is not in the local cache, and HF_HUB_OFFLINE is set; check the name, or run `hf download"

FILES: dict[str, str | bytes] = {
    "talk.jsonl": TALK,
    "empty.jsonl": "",
    "blank.jsonl": " \n\n",
    "binary.jsonl": bytes(range(256)),
    "utf16.jsonl": TALK.encode("utf-16"),
    "latin.jsonl": (HEADER + '{"role": "user", "content": "café"}\n').encode("latin-1"),
    "line7.jsonl": HEADER + (USER + ANSWER) * 2 + USER + '{"role": oops}\n' + USER,
    "role.jsonl": HEADER + USER + '{"role": "robot", "content": "Hi."}\n',
    "twice.jsonl": HEADER + USER + USER,
    "blank-content.jsonl": HEADER + '{"role": "user", "content": " "}\n',
    "number.jsonl": HEADER + '{"role": "user", "content": 7}\n',
    "field.jsonl": HEADER + '{"role": "user"}\n',
    "version.jsonl": '{"loopserve": 9}\n' + USER,
    "headerless.jsonl": USER + ANSWER,
    "nobody.jsonl": HEADER,
    "strange.json": '{"prompt": "Hello."}',
    "two.jsonl": TALK + TALK,
    "questions.jsonl": '{"loopserve": 1, "questions_only": true}\n' + USER + USER,
    "openai.jsonl": '{"messages": [{"role": "user", "content": "Hello."}]}\n',
    "part.jsonl": '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}\n',
    "huge-broken.jsonl": HEADER + '{"role": "user", "content": "' + "a" * 10**7 + "\n",
    "broken.toml": "description = \n",
    "bare.toml": POLICIES,
    "latin.toml": 'description = "caf\xe9"\n'.encode("latin-1"),
    "key.toml": 'description = "x"\nspeed = 3\n' + POLICIES,
    "section-key.toml": 'description = "x"\n[prefill]\npolicy = "dense"\nspeed = 3\n[keep]\npolicy = "everything"\n',
    "alpha.toml": 'description = "x"\n[prefill]\npolicy = "dense"\nalpha = 2\n[keep]\npolicy = "everything"\n',
    "budget.toml": 'description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\nbudget = -5\n',
    "policy.toml": 'description = "x"\n[prefill]\npolicy = "magic"\n[keep]\npolicy = "everything"\n',
    "policyless.toml": 'description = "x"\n[prefill]\npolicy = "dense"\n',
    "tableless.toml": 'description = "x"\nprefill = "dense"\n',
    "file": "x",
}


class Case(NamedTuple):
    """A command, its exit code, and the line it ends with; `before` is what stands on stderr above it."""

    command: str
    code: int
    line: str
    stdin: bytes = b""
    before: str = ""


CASES = {
    # the words themselves
    "unknown command": Case("nope", 2, "No such command 'nope'; see loopserve --help"),
    "mistyped command": Case("replai", 2, "No such command 'replai'. Did you mean 'replay'? See loopserve --help"),
    "mistyped subcommand": Case(
        "profiles shw", 2, "No such command 'shw'. Did you mean 'show'? See loopserve profiles --help"
    ),
    "mistyped option": Case(
        "chat --modl x", 2, "No such option: --modl (Possible options: --model); see loopserve chat --help"
    ),
    "option of another command": Case("doctor --seed 3", 2, "No such option: --seed; see loopserve doctor --help"),
    "one word too many": Case("doctor now", 2, "Got unexpected extra argument(s) (now); see loopserve doctor --help"),
    "no transcript": Case("replay", 2, "Missing argument 'TRANSCRIPT'; see loopserve replay --help"),
    "no target": Case("convert talk.jsonl", 2, "Missing argument 'OUT'; see loopserve convert --help"),
    "no profile's name": Case("profiles show", 2, "Missing argument 'NAME'; see loopserve profiles show --help"),
    # sampling
    "temperature -1": Case("chat --temperature -1 hi", 2, "temperature is -1.0, but must be from 0 to 100"),
    "temperature nan": Case("chat --temperature nan hi", 2, "temperature is nan, but must be from 0 to 100"),
    "temperature near 0": Case(
        "chat --temperature 1e-50 hi", 2, "temperature is 1e-50, too close to 0; give 0 for the likeliest token"
    ),
    "top-p 2": Case("replay demo --top-p 2", 2, "top_p is 2.0, but must be from 0 to 1"),
    "top-k -5": Case("chat --top-k -5 hi", 2, "top_k is -5, but must be from 0 to 1,000,000,000"),
    "min-p 3": Case("chat --min-p 3 hi", 2, "min_p is 3.0, but must be from 0 to 1"),
    "penalty 0": Case("chat --repetition-penalty 0 hi", 2, "repetition_penalty is 0.0, but must be from 0.01 to 100"),
    "no new tokens": Case("chat --max-new-tokens 0 hi", 2, "max_new_tokens is 0, but must be from 1 to 10,000,000"),
    "seed -1": Case(
        "chat --seed -1 hi",
        2,
        "seed is -1, but must be from 0 to 9223372036854775807; leave it out for a random one",
    ),
    "seed of 23 digits": Case(
        "chat --seed 99999999999999999999999 hi",
        2,
        "seed is 99999999999999999999999, but must be from 0 to 9223372036854775807; leave it out for a random one",
    ),
    "empty stop string": Case("chat --stop '' hi", 2, "a stop string is empty; give the text that ends the answer"),
    # profiles and their settings
    "unknown profile": Case(
        "chat --profile nope hi", 2, "no profile 'nope'; known: {profiles}; or give the path of a .toml file"
    ),
    "set garbage": Case(
        "chat --set garbage hi", 2, "--set 'garbage' is not SECTION.KEY=VALUE, for example prefill.alpha=0.9"
    ),
    "set alpha 2": Case(
        "chat --set prefill.alpha=2 hi",
        2,
        "--set prefill.alpha=2: prefill.alpha is 2, but must be from 0.01 to 1",
    ),
    "set a negative budget": Case(
        "replay demo --set keep.budget=-5",
        2,
        "--set keep.budget=-5: keep.budget is -5, but must be from 1 to 16777216",
    ),
    "set a word for a number": Case(
        "chat --set prefill.alpha=much hi",
        2,
        "--set prefill.alpha=much: prefill.alpha is 'much', but must be a number",
    ),
    "set an unknown section": Case(
        "chat --set speed.x=1 hi", 2, "unknown section 'speed'; a profile has prefill, keep and retain"
    ),
    "profile: no such file": Case("profiles check nowhere.toml", 2, "nowhere.toml: no such file; check the path"),
    "profile: a name": Case(
        "profiles check full",
        2,
        "full: a profile is a .toml file; `loopserve profiles show full` prints one to start from",
    ),
    "profile: a folder": Case("profiles check folder.toml", 2, "folder.toml: is a folder; give a .toml file"),
    "profile: not TOML": Case(
        "chat --profile broken.toml hi", 2, "broken.toml: not valid TOML: Invalid value (at line 1, column 15)"
    ),
    "profile: not UTF-8": Case("profiles check latin.toml", 2, "latin.toml: is not UTF-8 text; save it as UTF-8"),
    "profile: no description": Case(
        "profiles check bare.toml", 2, "bare.toml: description is missing; say in a line what the profile does"
    ),
    "profile: unknown key": Case(
        "profiles check key.toml", 2, "key.toml: unknown key 'speed'; known: description, prefill, keep, retain"
    ),
    "profile: unknown key in a section": Case(
        "profiles show section-key.toml", 2, "section-key.toml: unknown key prefill.speed; known: {prefill}"
    ),
    "profile: alpha = 2": Case(
        "profiles check alpha.toml", 2, "alpha.toml: prefill.alpha is 2, but must be from 0.01 to 1"
    ),
    "profile: negative budget": Case(
        "replay demo --profile budget.toml", 2, "budget.toml: keep.budget is -5, but must be from 1 to 16777216"
    ),
    "profile: unknown policy": Case(
        "profiles check policy.toml", 2, "policy.toml: unknown prefill policy 'magic'; known: {policies}"
    ),
    "profile: no policy": Case(
        "profiles check policyless.toml", 2, "policyless.toml: [keep] names no policy; known: {keeps}"
    ),
    "profile: no table": Case(
        "profiles check tableless.toml", 2, "tableless.toml: prefill must be a table, written [prefill]"
    ),
    # models
    "model: empty": Case("chat --model '' hi", 2, "--model is empty; give a hub name, a folder, or demo"),
    "model: not in the cache": Case(
        "chat --model some/model hi",
        1,
        f"some/model {NOT_CACHED} some/model` where there is a network and copy the folder here",
    ),
    "model: no such folder": Case(
        "replay talk.jsonl --model ./nowhere",
        1,
        "no model folder './nowhere'; give a folder with config.json, a hub name, or demo",
    ),
    "model: a file": Case(
        "chat --model file hi",
        1,
        "no model folder 'file'; give a folder with config.json, a hub name, or demo",
    ),
    "model: an empty folder": Case(
        "chat --model folder hi", 1, "folder: no config.json in this folder, so it is no transformers model"
    ),
    "model: no tokenizer": Case(
        "chat --model tokenless --save new.jsonl hi",
        1,
        "tokenless: the folder has no tokenizer (tokenizer.json); copy the model's tokenizer there",
    ),
    "model: no chat template": Case(
        "chat --model templateless hi",
        1,
        "templateless: its tokenizer has no chat template; use an instruct or chat model",
    ),
    "model: broken tokenizer": Case(
        "chat --model garbled hi",
        1,
        "garbled: cannot be loaded: its tokenizer.json is damaged (Model missing. at line 1 column 38); copy it again",
    ),
    "model: cut-off weights": Case(
        "chat --model cut hi",
        1,
        "cut: cannot be loaded: its weights file is damaged (Error while deserializing header: "
        "incomplete metadata, file not fully covered); copy it again",
    ),
    "model: weights of another shape": Case(
        "chat --model wide hi",
        1,
        "wide: the weights do not belong to config.json: 6 of the tensors are of another shape "
        "(model.layers.0.mlp.down_proj.weight); copy the model's files again",
    ),
    "model: a layer without weights": Case(
        "chat --model deep hi",
        1,
        "deep: the weights do not belong to config.json: 9 of the tensors are missing "
        "(model.layers.2.input_layernorm.weight); copy the model's files again",
    ),
    "quant bogus": Case("chat --quant bogus hi", 2, "unknown quantisation 'bogus'; choose one of nf4, int8"),
    "dtype int3": Case(
        "chat --dtype int3 hi", 2, "unknown dtype 'int3'; choose one of auto, float32, float16, bfloat16"
    ),
    "device tpu": Case("chat --device tpu hi", 2, "unknown device 'tpu'; choose auto, cpu, cuda or cuda:N"),
    "no GPU": Case(
        "chat --model short --device cuda hi",
        1,
        "device cuda was asked for, but torch sees no GPU; use --device cpu or see loopserve doctor",
    ),
    # chat
    "chat: unknown display": Case("chat --ui fancy", 2, "unknown --ui 'fancy'; choose one of dashboard, simple, none"),
    "chat: empty message": Case("chat ''", 2, "the message is empty; say something, or leave it out to chat"),
    "chat: nothing piped in": Case("chat", 2, "standard input is empty; pipe a message in, or give one as an argument"),
    "chat: bytes piped in": Case("chat", 2, "standard input is not UTF-8 text; save it as UTF-8", stdin=b"caf\xe9"),
    "chat: bytes as the message": Case("chat caf\udce9", 2, "the message is not UTF-8 text; write it in UTF-8"),
    "chat: bytes as the system prompt": Case(
        "chat --system caf\udce9 hi", 2, "--system is not UTF-8 text; write it in UTF-8"
    ),
    "chat: too long a message": Case(
        f"chat --model short '{LONG}'",
        1,
        "the dialogue would be {needed} tokens long, but short reads at most 64; "
        "shorten the message, or begin anew (in a chat: /undo or /clear)",
    ),
    "chat: too long a message, resumed": Case(
        f"chat --model short --resume talk.jsonl '{LONG}'",
        1,
        "the dialogue would be {needed_after_talk} tokens long, but short reads at most 64; "
        "shorten the message, or begin anew (in a chat: /undo or /clear)",
        before="12 of 12 tokens of history are in the cache\n",
    ),
    "resume: no such file": Case("chat --resume nowhere.jsonl hi", 1, "nowhere.jsonl: no such file; check the path"),
    "resume: a folder": Case("chat --resume folder hi", 1, "folder: is a folder; give one of its files"),
    "resume: empty": Case("chat --resume empty.jsonl hi", 1, "empty.jsonl: is empty; there is no dialogue in it"),
    "resume: wrong JSON in line 7": Case(
        "chat --resume line7.jsonl hi",
        1,
        "line7.jsonl:7: not valid JSON at column 10 (Expecting value); mend the line or remove it",
    ),
    "resume: several dialogues": Case(
        "chat --resume two.jsonl hi", 1, "two.jsonl: holds 2 dialogues; only a file with one can be resumed"
    ),
    "resume: questions only": Case(
        "chat --resume questions.jsonl hi",
        2,
        "questions.jsonl: has no recorded answers; run it with loopserve replay questions.jsonl",
    ),
    "resume: another format": Case(
        "chat --resume openai.jsonl hi",
        1,
        "openai.jsonl: is not a loopserve transcript, so it cannot be resumed; "
        "make one with: loopserve convert openai.jsonl NEW.jsonl --to loopserve",
    ),
    "save: exists": Case(
        "chat --save talk.jsonl hi",
        2,
        "talk.jsonl exists already; give --save another name, or go on with it by --resume",
    ),
    "save: a folder": Case("chat --save folder hi", 2, "--save folder: is a folder; give a file name"),
    "save: under a file": Case(
        "chat --model short --save file/new.jsonl hi",
        1,
        "file/new.jsonl: cannot be written: a part of its path is a file; give another name",
    ),
    # replay
    "replay: unknown demo": Case(
        "replay demo demo:huge", 2, "no bundled dialogue 'demo:huge'; known: demo, demo:long, demo:xlong"
    ),
    "replay: no such file": Case("replay nowhere.jsonl", 1, "nowhere.jsonl: no such file; check the path"),
    "replay: blank": Case("replay blank.jsonl", 1, "blank.jsonl: is empty; there is no dialogue in it"),
    "replay: binary": Case("replay binary.jsonl", 1, "binary.jsonl: is a binary file; give a JSON or JSONL text file"),
    "replay: UTF-16": Case("replay utf16.jsonl", 1, "utf16.jsonl: is UTF-16 text; save it as UTF-8"),
    "replay: Latin-1": Case(
        "replay latin.jsonl", 1, "latin.jsonl:2: not UTF-8 text (byte 0xe9); save the file as UTF-8"
    ),
    "replay: wrong JSON in line 7": Case(
        "replay talk.jsonl line7.jsonl",
        1,
        "line7.jsonl:7: not valid JSON at column 10 (Expecting value); mend the line or remove it",
    ),
    "replay: unknown role": Case(
        "replay role.jsonl", 1, "role.jsonl:3: role 'robot' is unknown; use system, user, assistant"
    ),
    "replay: two users in a row": Case(
        "replay twice.jsonl",
        1,
        "twice.jsonl:3: role is user twice in a row; join the two or put the answer between them",
    ),
    "replay: empty content": Case(
        "replay blank-content.jsonl",
        1,
        "blank-content.jsonl:2: content is empty; write something or remove the message",
    ),
    "replay: content of a wrong type": Case(
        "replay number.jsonl", 1, "number.jsonl:2: content must be text, not a number"
    ),
    "replay: missing field": Case(
        "replay field.jsonl", 1, "field.jsonl:2: content is missing; every message needs role and content"
    ),
    "replay: newer version": Case(
        "replay version.jsonl", 1, "version.jsonl:1: loopserve is 9, but this program reads version 1; update loopserve"
    ),
    "replay: no header": Case(
        "replay headerless.jsonl",
        1,
        'headerless.jsonl:1: is a message without a header; put {"loopserve": 1} in a line before it',
    ),
    "replay: no user": Case(
        "replay nobody.jsonl", 1, "nobody.jsonl:1: no message is the user's; a dialogue needs at least one"
    ),
    "replay: image": Case(
        "replay part.jsonl",
        1,
        "part.jsonl:1: message 1: content part 1: type is 'image_url', but only text can be read; remove the part",
    ),
    "replay: unknown format": Case(
        "replay strange.json",
        1,
        "strange.json:1: unknown format (an object with 'prompt'); supported are loopserve, SCBench, "
        "LoopServe benchmark, LongMemEval, MultiChallenge, OASST, ChatGPT, Claude, Open-WebUI, llm logs, LoCoMo, "
        "ShareGPT, WildChat, OpenAI messages, OpenAI Responses, a list of messages, MT-Bench-101, MT-Bench, aiperf, "
        "Ollama, vLLM multi-turn, LMSYS-Chat",
    ),
    "replay: a line of 10 MB, not closed": Case(
        "replay huge-broken.jsonl",
        1,
        "huge-broken.jsonl:2: not valid JSON at column 29 (Unterminated string starting at); "
        "mend the line or remove it",
    ),
    "replay: repeat 0": Case("replay demo --repeat 0", 2, "--repeat is 0, but must be from 1 to 1,000,000"),
    "replay: max-turns 0": Case("replay demo --max-turns 0", 2, "--max-turns is 0, but must be from 1 to 16777216"),
    "replay: unknown history": Case(
        "replay demo --history made-up", 2, "unknown --history 'made-up'; choose one of recorded, live"
    ),
    "replay: gate garbage": Case(
        "replay demo --fail-if garbage",
        2,
        "--fail-if 'garbage' is not [PROFILE.]METRIC[.STAT] OP NUMBER, like ttft_ms.p50>500",
    ),
    "replay: gate with an unknown statistic": Case(
        "replay demo --fail-if 'ttft_ms.p42>1'",
        2,
        "--fail-if 'ttft_ms.p42>1': unknown statistic 'p42'; known: mean, p50, p90, p99, n",
    ),
    "replay: gate without a number": Case(
        "replay demo --fail-if 'ttft_ms>fast'", 2, "--fail-if 'ttft_ms>fast': 'fast' is not a number"
    ),
    "replay: out is a file": Case(
        "replay demo --out file", 2, "--out file: it, or a part of its path, is a file; give a folder"
    ),
    "replay: out under a file": Case(
        "replay demo --out file/out", 2, "--out file/out: it, or a part of its path, is a file; give a folder"
    ),
    # convert
    "convert: unknown name": Case(
        "convert talk.jsonl new.txt",
        2,
        "new.txt: its name does not tell the format; add --to with one of loopserve, openai, sharegpt, vllm",
    ),
    "convert: unknown format": Case(
        "convert talk.jsonl new.json --to xml",
        2,
        "unknown format 'xml'; choose one of loopserve, openai, sharegpt, vllm",
    ),
    "convert: no such file": Case("convert nowhere.jsonl new.jsonl", 1, "nowhere.jsonl: no such file; check the path"),
    "convert: exists": Case(
        "convert two.jsonl talk.jsonl", 1, "talk.jsonl: exists already; give another name, or add --overwrite"
    ),
    "convert: wrong source over a good target": Case(
        "convert line7.jsonl talk.jsonl --overwrite",
        1,
        "line7.jsonl:7: not valid JSON at column 10 (Expecting value); mend the line or remove it",
    ),
    "convert: no answers": Case(
        "convert questions.jsonl new.json",
        1,
        "new.json: dialogue 'questions' has no answers, which sharegpt needs; use the loopserve format",
    ),
    "convert: a folder": Case(
        "convert talk.jsonl folder --to openai --overwrite", 1, "folder: is a folder; give a file name"
    ),
    "convert: under a file": Case(
        "convert talk.jsonl file/new.jsonl",
        1,
        "file/new.jsonl: cannot be written: a part of its path is a file; give another name",
    ),
    "convert: a device": Case(
        "convert talk.jsonl /dev/full --to openai --overwrite",
        1,
        "/dev/full: cannot be written: not a regular file; give another name",
    ),
    # bench and doctor
    "bench: no tokens": Case(
        "bench turns --tokens 0", 2, "--tokens: '0' is no length from 1 to 16777216; write for example 4096 or 16k"
    ),
    "bench: one new token": Case("bench turns --new-tokens 1", 2, "--new-tokens is 1, but must be at least 2"),
    "bench: no rounds": Case("bench turns --rounds 0", 2, "--rounds is 0, but must be at least 1"),
    "bench: fewer tokens than turns": Case(
        "bench turns --tokens 3 --turns 9", 2, "--tokens 3 is too few for --turns 9; each needs one at least"
    ),
    "bench: unknown rival": Case(
        "bench turns --against vllm", 2, "unknown --against 'vllm'; choose one of transformers, {profiles}"
    ),
    "bench: no such model": Case(
        "bench turns --model ./nowhere",
        1,
        "no model folder './nowhere'; give a folder with config.json, a hub name, or demo",
    ),
    "doctor: mistyped option": Case(
        "doctor --jsn", 2, "No such option: --jsn (Possible options: --json); see loopserve doctor --help"
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models: `short` is well but reads 64 tokens, the others each lack something."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models")
    config = tiny.configuration("llama")
    config.max_position_embeddings = CONTEXT
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        made.lm_head.weight[[2, tiny.tokenizer().eos_token_id]] = 0  # its answers never end by themselves
    for name in ("short", "tokenless", "templateless", "garbled", "cut", "wide", "deep"):
        made.save_pretrained(folder / name)
        if name != "tokenless":
            template = None if name == "templateless" else tiny.tokenizer().chat_template
            tiny.fresh_tokenizer(template).save_pretrained(folder / name)
    (folder / "garbled/tokenizer.json").write_text('{"version": "1.0", "added_tokens": []}')
    weights = folder / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    for name, change in {"wide": {"intermediate_size": 96}, "deep": {"num_hidden_layers": 3}}.items():
        file = folder / name / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return folder


@pytest.fixture
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: every file of `FILES`, every model, and nothing to be had from outside."""
    import torch
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, content in FILES.items():
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("folder", "folder.toml"):
        Path(name).mkdir()
    for model in models.iterdir():
        Path(model.name).symlink_to(model)
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    """What lies in a folder: each file's bytes, None for a folder or a model."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def filled(line: str) -> str:
    """The line with what is looked up in the program: lists that grow, and how long a dialogue is."""
    from loopserve_cli.profile import KEEP_POLICIES, PREFILL_POLICIES, SETTINGS, profile_names

    known = {
        "{profiles}": profile_names(),
        "{prefill}": SETTINGS["prefill"],
        "{policies}": PREFILL_POLICIES,
        "{keeps}": KEEP_POLICIES,
    }
    for name, words in known.items():
        line = line.replace(name, ", ".join(words))
    if "{needed" in line:
        message = {"role": "user", "content": LONG}
        past = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
        line = line.replace("{needed}", str(1 + tokens(message))).replace(
            "{needed_after_talk}", str(1 + tokens(*past, message))
        )
    return line


def tokens(*messages: dict[str, str]) -> int:
    """How long a dialogue is, up to where the answer begins."""
    encoded = tiny.tokenizer().apply_chat_template(list(messages), tokenize=True, add_generation_prompt=True)
    return len(encoded["input_ids"] if hasattr(encoded, "keys") else encoded)


@pytest.mark.parametrize("name", CASES)
def test_wrong_input_is_one_line(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    if "--model" not in case.command:
        # What is wrong is told before a model is loaded.
        monkeypatch.setattr("loopserve_cli.engine.loader.load", None)
    type_in(monkeypatch, case.stdin)
    before = everything(place)
    code = app.main(shlex.split(case.command))
    out, err = capsys.readouterr()
    assert err == f"{case.before}loopserve: {filled(case.line)}\n"
    assert (code, out) == (case.code, "")
    assert everything(place) == before


# What looks wrong and is not.

LONG_TEXT = "a long line " * 850_000
ACCEPTED: dict[str, tuple[bytes, str]] = {
    "BOM": (b"\xef\xbb\xbf" + TALK.encode(), "Hello."),
    "CRLF": (TALK.replace("\n", "\r\n").encode(), "Hello."),
    "blank lines": (TALK.replace("\n", "\n\n").encode(), "Hello."),
    "no line end": (TALK.rstrip("\n").encode(), "Hello."),
    "a line of 10 MB": (
        (HEADER + json.dumps({"role": "user", "content": LONG_TEXT}) + "\n" + ANSWER).encode(),
        LONG_TEXT,
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_file_is_read(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, text = ACCEPTED[name]
    Path("odd.jsonl").write_bytes(data)
    assert app.main(["convert", "odd.jsonl", "new.json"]) == 0
    assert capsys.readouterr() == ("", "new.json: 1 dialogue written\n")
    [dialogue] = json.loads(Path("new.json").read_text(encoding="utf-8"))
    assert [row["value"] for row in dialogue["conversations"]] == [text, "Hi."]
    assert Path("odd.jsonl").read_bytes() == data


def test_a_profile_with_a_bom_is_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bom.toml").write_bytes(b'\xef\xbb\xbfdescription = "x"\r\n' + POLICIES.encode())
    assert app.main(["profiles", "check", "bom.toml"]) == 0
    assert capsys.readouterr() == ("bom.toml: ok (dense prefill, everything keep)\n", "")


def test_a_last_line_that_was_cut_off_is_told_and_the_rest_kept(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("killed.jsonl").write_text(TALK + USER + '{"role": "assist')
    assert app.main(["chat", "--model", "short", "--resume", "killed.jsonl", LONG]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == (
        "killed.jsonl:5: the last line is cut off (a process ended as it wrote it); the lines before it are kept"
    )
    assert last.startswith("loopserve: the dialogue would be ")
    assert Path("killed.jsonl").read_text() == TALK + USER


# What a run finds out only on the way: the rest goes on, and what was measured is shown.


def test_an_answer_that_fills_the_context_ends_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["chat", "--model", "short", "--temperature", "0", "--save", "new.jsonl", "hi"]) == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert err.endswith(" · context full\n")
    _, messages, _ = transcript.resume(Path("new.jsonl"))
    record = messages[-1].record
    assert record is not None
    assert (record.finish_reason, record.tokens_logical) == ("context", CONTEXT)


def test_a_turn_over_the_context_fails_and_the_other_dialogues_go_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]
    long = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Hm."}]
    Path("both.jsonl").write_text("".join(json.dumps({"messages": m}) + "\n" for m in (said + long + said, said)))
    assert app.main("replay both.jsonl --model short --max-new-tokens 3 --json".split()) == 1
    out, err = capsys.readouterr()
    records = json.loads(out)["records"]
    assert [(r["conversation_id"], r["turn"], r["tokens_output"]) for r in records] == [
        ("both-1", 1, 3),
        ("both-1", 2, None),
        ("both-2", 1, 3),
    ]
    problem = records[1]["error"]
    assert problem.startswith("the dialogue would be ")
    assert problem.endswith(" (1 later turn not run)")
    assert f"\nfailed: both-1, turn 2, loopserve: {problem}\n" in err


def test_a_gate_that_fails_is_three(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", "talk.jsonl", "--model", "short", "--max-new-tokens", "3", "--fail-if"]
    assert app.main([*words, "turns<2"]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "gate turns<2 failed: loopserve turns is 1"
    assert app.main([*words, "kl_mean>1"]) == 3
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "gate kl_mean>1 failed: loopserve kl_mean.mean is n/a (not measured)"
    )
    assert app.main([*words, "turns>1"]) == 0


def test_a_benchmark_over_the_context_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["bench", "turns", "--model", "short"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == (
        "loopserve: --tokens 16384 with its answers is 16448 tokens, but short reads at most 64; give fewer"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_loses_no_measurement(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder/records.csv").symlink_to("/dev/full")
    assert app.main("replay talk.jsonl --model short --max-new-tokens 3 --out folder --json".split()) == 1
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == (
        "loopserve: --out folder: not all of it was written: No space left on device; free some space"
    )
    [record] = json.loads(out)["records"]
    assert record["tokens_output"] == 3


# Rights.


@pytest.fixture
def guarded_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where everybody may read, but not write, and may not read what is called secret."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("talk.jsonl", "target.jsonl", "secret.jsonl", "secret.toml"):
            (folder / file).write_text(TALK)
            (folder / file).chmod(0o000 if file.startswith("secret") else 0o444)
        for copy in (folder / "full.toml", folder / "loopserve.toml", tmp_path / "full.toml"):
            copy.write_bytes(profile.profile_path(copy.stem).read_bytes())
        folder.chmod(0o555)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(
            profile, "profiles_folder", Path
        )  # the working folder: the checkout may be closed to nobody
        yield folder
        folder.chmod(0o755)


RIGHTS = {
    "read, replay": Case(
        "replay secret.jsonl", 1, "secret.jsonl: no permission to read it; change its mode or copy it"
    ),
    "read, profile": Case(
        "profiles check secret.toml", 2, "secret.toml: cannot be read: Permission denied; check its path and mode"
    ),
    "create": Case(
        "convert talk.jsonl new.jsonl",
        1,
        "new.jsonl: no permission to write it; change its mode or give another name",
    ),
    "create a folder": Case(
        "convert talk.jsonl new/new.jsonl",
        1,
        "new/new.jsonl: no permission to write it; change its mode or give another name",
    ),
    "overwrite": Case(
        "convert talk.jsonl target.jsonl --overwrite",
        1,
        "target.jsonl: no permission to write it; change its mode or give another name",
    ),
    "resume": Case(
        "chat --resume talk.jsonl hi",
        1,
        "talk.jsonl: no permission to write it; change its mode or give another name",
    ),
    "replay's folder": Case(
        "replay talk.jsonl --out new", 2, "--out new: cannot be written: Permission denied; give another folder"
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX rights")
@pytest.mark.parametrize("name", RIGHTS)
def test_no_permission_is_one_line(
    name: str, guarded_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = RIGHTS[name]
    monkeypatch.setattr("loopserve_cli.engine.loader.load", None)
    with monkeypatch.context() as elsewhere:
        # Nobody may not be able to read Python's own modules: import what the command needs before.
        elsewhere.chdir(tmp_path)
        assert app.main(case.command.split()) != 0
        capsys.readouterr()
    before = everything(guarded_place)
    with without_rights():
        code = app.main(case.command.split())
    assert capsys.readouterr() == ("", f"loopserve: {case.line}\n")
    assert code == case.code
    assert everything(guarded_place) == before


# Standard output that takes nothing.

NO_SPACE = "loopserve: OSError: [Errno 28] No space left on device (run again with --debug for the traceback)\n"
CLOSED = "loopserve: standard output is closed, and answers go there; redirect it to a file or /dev/null\n"


def shell(command: str) -> tuple[int, str]:
    """The exit code and stderr of loopserve as a shell starts it."""
    words = f"{shlex.quote(sys.executable)} -m loopserve_cli {command}"
    done = subprocess.run(["sh", "-c", words], stderr=subprocess.PIPE, text=True, check=False, timeout=240)
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("profiles show full >&-", CLOSED),
        ("replay talk.jsonl --model short --out new >&-", CLOSED),
        ("chat --model short --resume talk.jsonl hi >&-", CLOSED),
        ("profiles show full >/dev/full", NO_SPACE),
        ("--help >/dev/full", NO_SPACE),
    ],
)
def test_stdout_that_takes_nothing(command: str, expected: str, place: Path) -> None:
    before = everything(place)
    code, err = shell(command)
    assert err == expected
    assert code == 1
    assert everything(place) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_an_answer_that_cannot_be_shown_is_not_in_the_transcript(place: Path) -> None:
    before = everything(place)
    code, err = shell("chat --model short --resume talk.jsonl hi >/dev/full")
    assert err == "12 of 12 tokens of history are in the cache\n" + NO_SPACE
    assert code == 1
    assert everything(place) == before
