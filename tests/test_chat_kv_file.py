"""The cache beside a transcript: /save --kv writes it, --resume and /load take it; what is wrong costs one line."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
from chat_fakes import FULL, ScriptedEngine, dialogue_of, engine_of, make_session, printed
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from loopserve_cli.chat import kv_file, run, start
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.session import Session
from loopserve_cli.config import ChatOptions, ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.transcript import resume


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def talked(save: str | None = None) -> Session:
    session = make_session("the first", "the second", "the third", save=Path(save) if save else None)
    session.ask("a question of some length")
    session.ask("another")
    printed(session)
    return session


def resumed(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, path: str, message: str = "and now?") -> int:
    monkeypatch.setattr(start, "load_conversation", lambda options, err: Conversation(engine, options.system))  # type: ignore[arg-type]
    return run(ChatOptions(ModelOptions(), SamplingOptions(), FULL, resume=Path(path), message=message))


@pytest.mark.parametrize("line", ["/save my talk.jsonl --kv", "/save --kv my talk.jsonl", "/save 'my talk.jsonl' --kv"])
def test_save_keeps_the_cache_beside_the_copy(line: str) -> None:
    session = talked()
    dispatch(session, line)
    assert resume(Path("my talk.jsonl"))[1] == session.conversation.messages
    assert engine_of(session).saved(Path("my talk.kv.safetensors")).tokens == engine_of(session).tokens
    copied, cache = printed(session)[1].splitlines()
    assert copied.startswith("saved 4 messages to my talk.jsonl")
    held = len(engine_of(session).tokens)
    size = Path("my talk.kv.safetensors").stat().st_size
    assert cache.startswith(f"kept the cache of {held} tokens in my talk.kv.safetensors ({size} B, ")
    session.ask("more")
    dispatch(session, line)
    assert len(engine_of(session).saved(Path("my talk.kv.safetensors")).tokens) > held


@pytest.mark.parametrize("line", ["/save --kv", "/save own.jsonl --kv"])
def test_save_keeps_the_cache_beside_the_chats_own_transcript(line: str) -> None:
    session = talked("own.jsonl")
    dispatch(session, line)
    assert printed(session)[1].startswith("kept the cache of ")
    assert engine_of(session).saved(Path("own.kv.safetensors")).tokens == engine_of(session).tokens
    assert resume(Path("own.jsonl"))[1] == session.conversation.messages


def test_save_without_a_name_or_a_word_said_keeps_nothing() -> None:
    with pytest.raises(UsageError, match=r"which file\? /save FILE \[--kv\]"):
        dispatch(talked(), "/save --kv")
    with pytest.raises(UsageError, match="nothing to save yet"):
        dispatch(make_session(), "/save x --kv")
    assert not list(Path().glob("*"))


def test_a_disk_that_is_full_costs_the_cache_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    session = talked()

    def full(path: Path) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engine_of(session), "save", full)
    with pytest.raises(LoopserveError) as caught:
        dispatch(session, "/save x.jsonl --kv")
    assert str(caught.value) == "x.kv.safetensors: cannot be written: No space left on device; free some space"
    assert resume(Path("x.jsonl"))[1] == session.conversation.messages


def test_resuming_loads_the_cache_and_prefills_only_the_new_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = talked()
    dispatch(before, "/save x.jsonl --kv")
    held = list(engine_of(before).tokens)
    engine = ScriptedEngine("the third")
    assert resumed(engine, monkeypatch, "x.jsonl") == 0
    told, turn = capsys.readouterr().err.splitlines()
    assert told.startswith(f"{len(held)} tokens of history loaded from x.kv.safetensors in ")
    assert told.endswith(" ms")
    # The end of the last answer goes with the message, as in the chat that did not stop.
    assert f"{1 + len('uand now?e') + 1} new/{len(held)} cached" in turn
    assert engine.loads == 1
    before.ask("and now?")
    assert engine.tokens == engine_of(before).tokens


def test_what_was_said_after_saving_is_prefilled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = talked("x.jsonl")
    dispatch(before, "/save --kv")
    held = len(engine_of(before).tokens)
    before.ask("something more, which is not in the file")
    before.autosave.close()
    engine = ScriptedEngine("the fourth")
    assert resumed(engine, monkeypatch, "x.jsonl") == 0
    told, prefilled, _ = capsys.readouterr().err.splitlines()
    assert told.startswith(f"{held} tokens of history loaded from x.kv.safetensors in ")
    whole = len(engine_of(before).tokens) + 1
    assert prefilled == f"{whole} of {whole} tokens of history are in the cache"


def test_a_cache_that_does_not_fit_costs_a_line_and_a_prefill(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = talked()
    dispatch(before, "/save x.jsonl --kv")
    engine = ScriptedEngine("the third")
    engine.model_name = "other"
    assert resumed(engine, monkeypatch, "x.jsonl") == 0
    held, refused, prefilled, _ = capsys.readouterr().err.splitlines()
    assert held == "this dialogue was held with fake; it goes on with other"
    assert refused == (
        "x.kv.safetensors was saved with another model (fake, now other); prefilling the history instead"
    )
    whole = len(engine_of(before).tokens) + 1
    assert prefilled == f"{whole} of {whole} tokens of history are in the cache"
    assert engine.loads == 0
    assert [m.content for m in resume(Path("x.jsonl"))[1]][-2:] == ["and now?", "the third"]


def test_a_cache_of_another_dialogue_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dispatch(talked(), "/save x.jsonl --kv")
    other = make_session("ok", save=Path("y.jsonl"))
    other.ask("hi")
    other.autosave.close()
    Path("x.kv.safetensors").rename("y.kv.safetensors")
    engine = ScriptedEngine("the third")
    assert resumed(engine, monkeypatch, "y.jsonl") == 0
    err = capsys.readouterr().err
    assert "y.kv.safetensors: only 1 of its 58 tokens are of this dialogue; prefilling the history instead" in err
    assert engine.loads == 0


def test_load_takes_the_cache_too_unless_the_engine_holds_as_much() -> None:
    dispatch(talked(), "/save x.jsonl --kv")
    session = make_session("the third")
    dispatch(session, "/load x.jsonl")
    assert engine_of(session).loads == 1
    assert printed(session)[1].splitlines()[1].startswith("58 tokens of history loaded from x.kv.safetensors in ")
    dispatch(session, "/load x.jsonl")
    assert engine_of(session).loads == 1
    assert printed(session)[1].splitlines()[1] == "59 of 59 tokens of history are in the cache"
    session.ask("and now?")
    assert dialogue_of(session)[-1] == ("assistant", "the third")


def test_the_profile_that_computed_the_cache_is_told() -> None:
    dispatch(talked(), "/save x.jsonl --kv")
    session = make_session()
    engine_of(session).made_otherwise = ["loopserve", "snapkv"]
    dispatch(session, "/load x.jsonl")
    assert printed(session)[1].splitlines()[1].endswith("; computed under profile loopserve, snapkv")


def test_tab_knows_what_save_takes() -> None:
    completer = CommandCompleter(make_session())

    def completions(text: str) -> list[str]:
        return [c.text for c in completer.get_completions(Document(text), CompleteEvent())]

    Path("x.jsonl").touch()
    assert completions("/save x.jsonl --") == completions("/save -") == ["--kv"]
    assert completions("/save x") == [".jsonl"]
    assert completions("/save --kv --") == []


@pytest.mark.parametrize("name", ["talk.jsonl", "talk", "a.b.jsonl"])
def test_the_cache_lies_beside_its_transcript(name: str) -> None:
    path = kv_file.beside(Path("folder") / name)
    assert path.parent == Path("folder") and path.name.endswith(".kv.safetensors")
    assert path.name.startswith(name.removesuffix(".jsonl"))


def demo(capsys: pytest.CaptureFixture[str], message: str, **given: object) -> tuple[str, str]:
    """One turn with the demo model, as from the command line; what was printed to stdout and stderr."""
    model = ModelOptions(device="cpu", **given)  # type: ignore[arg-type]
    options = ChatOptions(model, SamplingOptions(max_new_tokens=30), FULL, resume=Path("x.jsonl"), message=message)
    assert run(options) == 0
    return capsys.readouterr()


def test_the_demo_model_goes_on_from_its_cache_and_refuses_one_of_another_dtype(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["loopserve"])
    model = ChatOptions(ModelOptions(device="cpu"), SamplingOptions(max_new_tokens=30), FULL)
    loaded = start.load_conversation(model, make_session().err)
    session = make_session()
    session.conversation, session.sampling = loaded, model.sampling
    for text in ("The colour of Anna is red.", "The home of Bert is Rome.", "What is the colour of Anna?"):
        session.ask(text)
    dispatch(session, "/save x.jsonl --kv")
    held = len(loaded.engine.tokens)
    record = session.ask("What is the home of Bert?")
    assert record is not None
    answer, err = demo(capsys, "What is the home of Bert?")
    assert answer == record.output_text + "\n"
    assert f"{held} tokens of history loaded from x.kv.safetensors in " in err
    assert f"{record.tokens_new} new/{held} cached" in err
    _, err = demo(capsys, "What is the colour of Anna?", dtype="bfloat16")
    assert "x.kv.safetensors was saved in float32 (now bfloat16; see --dtype); prefilling the history instead\n" in err
    _, err = demo(capsys, "What is the colour of Anna?")
    assert f"{held} tokens of history loaded from x.kv.safetensors in " in err


def test_a_cache_saved_after_the_system_prompt_changed_fits_the_dialogue() -> None:
    session = talked("own.jsonl")
    held = len(engine_of(session).tokens)
    dispatch(session, "/system be brief")
    with pytest.raises(UsageError, match="the cache holds nothing of the dialogue as it is now; ask something first"):
        dispatch(session, "/save --kv")
    assert not Path("own.kv.safetensors").exists()
    session.ask("more")
    dispatch(session, "/system be brief and kind")
    printed(session)
    dispatch(session, "/save --kv")
    kept_tokens = engine_of(session).tokens
    assert "".join(map(chr, kept_tokens)) == "\ue000be brief"
    assert engine_of(session).saved(Path("own.kv.safetensors")).tokens == kept_tokens
    told = printed(session)[1]
    assert told.startswith(f"kept the cache of {len(kept_tokens)} tokens in own.kv.safetensors (")
    assert "more were of the dialogue before it changed" in told and held > len(kept_tokens)
