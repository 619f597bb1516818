"""`/export`: the dialogue as Markdown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from chat_fakes import make_session, printed
from markdown_it import MarkdownIt

from loopserve_cli.chat.as_markdown import as_markdown, closed
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.export import export_choices
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.stats import TurnRecord


def talked() -> Session:
    session = make_session("one", "two")
    session.ask("a")
    printed(session)
    return session


def test_the_whole_dialogue_is_written() -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "# not my heading\n\nhow?\n"),
        Message("assistant", "```python\nx = 1", partial=True, reasoning="<hm>"),
        Message("user", "and?"),
        Message("assistant", "", record=TurnRecord(tokens_reasoning=3), reasoning="well"),
    ]
    assert as_markdown(messages, "demo", "full", "2026-01-31T09:05:00") == (
        "# A dialogue with demo\n\n2026-01-31 09:05, profile full\n\n"
        "## System prompt\n\nBe brief.\n\n"
        "## You\n\n# not my heading\n\nhow?\n\n"
        "## demo\n\n<details><summary>thought</summary>\n\n<hm>\n\n</details>\n\n"
        "```python\nx = 1\n```\n\n*[stopped]*\n\n"
        "## You\n\nand?\n\n"
        "## demo\n\n<details><summary>thought for 3 tokens</summary>\n\nwell\n\n</details>\n\n*(no answer)*\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\na\n```", "```\na\n```"),
        ("```\na", "```\na\n```"),
        ("```", "```\n```"),
        ("~~~~md\n```\na\n~~~", "~~~~md\n```\na\n~~~\n~~~~"),
        ("````\na\n`````  ", "````\na\n`````"),
        ("- a\n  ```\n  b", "- a\n  ```\n  b"),
        ("a\n\n\n", "a"),
        ("", ""),
    ],
)
def test_a_code_block_that_was_left_open_does_not_swallow_what_follows(text: str, expected: str) -> None:
    assert closed(text) == expected
    tokens = MarkdownIt("commonmark").parse(f"{closed(text)}\n\n## You\n")
    assert [token.content for token in tokens if token.type == "inline"][-1] == "You"


def test_export_writes_a_file_for_its_user_alone_and_says_so(tmp_path: Path) -> None:
    session = talked()
    session.unanswered = "still waiting"
    path = tmp_path / "new" / "my talk.md"
    dispatch(session, f'/export "{path}"')
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# A dialogue with fake\n")
    assert text.endswith("## You\n\na\n\n## fake\n\none\n\n## You\n\nstill waiting\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert printed(session)[1] == f"wrote 3 messages to {path}\n"


def test_a_file_that_is_there_stays_unless_told(tmp_path: Path) -> None:
    session, path = talked(), tmp_path / "talk.md"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"talk\.md exists already; give another name, or add --overwrite$"):
        dispatch(session, f"/export {path}")
    assert path.read_text() == "mine"
    dispatch(session, f"/export {path} --overwrite")
    assert "## fake\n\none\n" in path.read_text()
    assert printed(session)[1] == f"wrote 2 messages to {path}, over what was there\n"
    session.ask("b")
    dispatch(session, f"/export --overwrite {path}")
    assert "## fake\n\ntwo\n" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_nothing_and_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    session, path = talked(), tmp_path / "talk.md"
    path.write_text("mine")
    monkeypatch.setattr("loopserve_cli.transcript.write.write_all", full)
    with pytest.raises(LoopserveError, match="No space left on device; free some space"):
        dispatch(session, f"/export {path} --overwrite")
    assert path.read_text() == "mine"
    with pytest.raises(LoopserveError, match="No space left on device"):
        dispatch(session, f"/export {tmp_path / 'new.md'}")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/export", r"which file? /export FILE.md [--overwrite]"),
        ("/export --overwrite", "which file?"),
        ("/export talk.jsonl", "a Markdown file's name ends in .md; /save FILE keeps a dialogue to go on with"),
        ("/export folder.md", "is a folder; give a file name"),
        ("/export folder.md --overwrite", "is a folder; give a file name"),
    ],
)
def test_a_wrong_export_is_one_line(line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.md").mkdir()
    with pytest.raises(LoopserveError) as caught:
        dispatch(talked(), line)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == ["folder.md"]


def test_there_must_be_something_to_export(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing to export yet"):
        dispatch(make_session(), f"/export {tmp_path / 'a.md'}")
    assert export_choices(make_session(), ["a.md"]) == ["--overwrite"]
