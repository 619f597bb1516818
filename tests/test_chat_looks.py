"""/probe, /compare, /cache, /lines and /stats: what they show, at several widths, and that they change nothing."""

from __future__ import annotations

import io
import os
import signal
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chat_fakes import FULL, dialogue_of, engine_of, make_session, printed
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput
from rich.cells import cell_len
from rich.console import Console
from test_chat_prompt import CTRL_D, chat, keyboard  # noqa: F401

from loopserve_cli.chat.change import ttft_change
from loopserve_cli.chat.columns import Column, fitting, table_of
from loopserve_cli.chat.commands import dispatch
from loopserve_cli.chat.commands.cache import folded, ranges, reads_by_turn
from loopserve_cli.chat.commands.stats import turn_columns
from loopserve_cli.chat.comparison import MARK, comparison, parting
from loopserve_cli.chat.completion import CommandCompleter
from loopserve_cli.chat.figures import duration
from loopserve_cli.chat.matrix import Matrix, half_blocks
from loopserve_cli.chat.session import Attachment, Session
from loopserve_cli.errors import ContextLimitError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.policies.prefill.chosen import ChosenLines
from loopserve_cli.profile import PolicyOptions
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import resume
from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.index import make_index

SPARSE = replace(FULL, name="sparse", keep=PolicyOptions("streaming", {"budget": 8, "sinks": 1}))
WIDTHS = (60, 80, 120, 200)


def talked(*answers: str, save: Path | None = None, width: int = 80) -> Session:
    """Two turns under a profile that leaves keys out; more answers are for what comes."""
    session = make_session("one", "the key is red", *answers, save=save)
    engine_of(session).set_profile(SPARSE)
    session.out.width = session.err.width = width
    session.ask("a")
    session.ask("which key?")
    printed(session)
    return session


def drawn(renderable: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def press(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def snapshot(session: Session) -> tuple[object, ...]:
    engine = engine_of(session)
    return dialogue_of(session), engine.held, engine.profile, list(session.records), session.unanswered


# --- /probe


def test_a_probe_is_answered_and_leaves_nothing(tmp_path: Path) -> None:
    session = talked("blue", "kept", save=tmp_path / "t.jsonl")
    session.attachments = [Attachment("f.txt", "text")]
    before, disk = snapshot(session), (tmp_path / "t.jsonl").read_bytes()
    dispatch(session, "/probe which sky?")
    out, err = printed(session)
    assert engine_of(session).asked[-1] == "which sky?"
    assert out == "blue\n"
    assert err.startswith("TTFT 12 ms · ")
    assert err.endswith("not kept: the dialogue is as it was; attached files wait for a message that is kept\n")
    assert (snapshot(session), (tmp_path / "t.jsonl").read_bytes()) == (before, disk)
    assert [a.name for a in session.attachments] == ["f.txt"]
    session.ask("and now?")
    assert dialogue_of(session)[-1] == ("assistant", "kept")


def test_ctrl_c_stops_a_probe_and_it_leaves_nothing_either(tmp_path: Path) -> None:
    session = talked("one two three", "x", save=tmp_path / "t.jsonl")
    before, disk = snapshot(session), (tmp_path / "t.jsonl").read_bytes()
    engine_of(session).at_word = lambda number: press() if number == 1 else None
    dispatch(session, "/probe count")
    assert printed(session)[0] == "one\n"
    engine_of(session).at_word = lambda number: press() if number == -1 else None
    dispatch(session, "/probe count")
    assert printed(session) == ("\n", "stopped before the answer began; nothing of it is kept\n")
    assert (snapshot(session), (tmp_path / "t.jsonl").read_bytes()) == (before, disk)


def test_a_probe_that_fails_leaves_nothing() -> None:
    session = make_session("one", context_limit=40)
    session.ask("a")
    before = snapshot(session)
    with pytest.raises(ContextLimitError):
        dispatch(session, "/probe " + "x" * 60)
    assert snapshot(session) == before


# --- /compare


def test_the_last_turn_is_asked_again_under_full_attention_and_put_back(tmp_path: Path) -> None:
    session = talked("the key is blue", save=tmp_path / "t.jsonl")
    engine = engine_of(session)
    before, disk = snapshot(session), (tmp_path / "t.jsonl").read_bytes()
    began = session.records[-1].tokens_cached
    seen: list[tuple[str, int]] = []
    engine.at_word = lambda number: seen.append((engine.profile.name, len(engine.tokens))) if number < 0 else None
    dispatch(session, "/compare")
    assert seen == [("full", began)]
    assert engine.asked[-2:] == ["which key?", "which key?"]
    assert (snapshot(session), (tmp_path / "t.jsonl").read_bytes()) == (before, disk)
    out, err = printed(session)
    assert out.splitlines()[0].split() == ["sparse", "full"]
    assert out.splitlines()[1].split() == ["TTFT", "12", "ms", "12", "ms", "1.00x"]
    assert f"the answers part at {MARK}, after 3 words of 4 words and 4 words" in out
    assert f"the key is {MARK} red" in out and f"the key is {MARK} blue" in out
    assert err == "each was measured once; the dialogue is as it was\n"


def test_the_comparison_keeps_the_tier_and_warns_of_chance() -> None:
    session = talked("the key is red")
    engine = engine_of(session)
    engine.set_profile(replace(SPARSE, retain={"tier": "host"}))
    seen: list[object] = []
    engine.at_word = lambda number: seen.append(engine.profile.retain) if number < 0 else None
    session.sampling = replace(session.sampling, temperature=0.5)
    dispatch(session, "/compare")
    assert seen == [{"tier": "host"}]
    out, err = printed(session)
    assert "the answers are the same, word for word (4 words)" in out
    assert "answers differ by chance" in err


@pytest.mark.parametrize("at", [-1, 1])
def test_ctrl_c_stops_the_comparison(at: int) -> None:
    session = talked("the key is blue")
    before = snapshot(session)
    engine_of(session).at_word = lambda number: press() if number == at else None
    dispatch(session, "/compare")
    assert snapshot(session) == before
    out, err = printed(session)
    if at < 0:
        assert (out, err) == ("", "stopped before the answer began; the dialogue is as it was\n")
    else:
        assert "cancelled" in out and f"{MARK} (ends)" in out.replace("the", "").replace("  ", " ")


def test_what_cannot_be_compared_is_a_line() -> None:
    session = make_session("one")
    with pytest.raises(UsageError, match="no turn to compare yet"):
        dispatch(session, "/compare")
    session.ask("a")
    with pytest.raises(UsageError, match="profile full is full attention itself"):
        dispatch(session, "/compare")
    with pytest.raises(UsageError, match="/compare takes no argument"):
        dispatch(session, "/compare 3")
    session.unanswered = "b"
    with pytest.raises(UsageError, match="the last message has no answer yet"):
        dispatch(session, "/compare")
    session.unanswered = None
    engine_of(session).freezes = True
    with pytest.raises(UsageError, match="retain.tier is evict: .* ask again, and compare then"):
        dispatch(session, "/compare")


@pytest.mark.parametrize(
    ("left", "right", "at"),
    [
        ("a b", "a b", None),
        ("a red b", "a rex b", 2),
        ("a b", "a b c", 3),
        ("", "x", 0),
        ("same", "sames", 0),
        ("a\nred", "a\nblue", 2),
    ],
)
def test_answers_part_between_words(left: str, right: str, at: int | None) -> None:
    assert parting(left, right) == at


LEFT = TurnRecord(
    profile="loopserve+keep.budget=64",
    ttft_ms=412.4,
    tpot_ms=6.1,
    itl_ms=[6.0, 6.5, 5.5],
    tokens_output=3,
    density=0.041,
    keys_read=1039,
    keys_stored=16166,
    kv_store_device_bytes=2**20,
    working_set_bytes=3 * 2**18,
    finish_reason="stop",
)
RIGHT = replace(LEFT, profile="full", ttft_ms=1020.0, tpot_ms=12.2, itl_ms=[12.0], density=1.0, keys_read=16166)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_comparison_fits_and_says_what_the_records_say(width: int) -> None:
    words = "many words that both of them say before they go different ways " * 4
    left, right = Message("assistant", words + "left", record=LEFT), Message("assistant", words + "right", record=RIGHT)
    shown = drawn(comparison(left, right, width), width)
    assert all(cell_len(line) <= width for line in shown.splitlines())
    rows = {line[:15].strip(): line[15:].split("  ") for line in shown.splitlines() if line[:15].strip()}
    assert [cell.strip() for cell in rows["TTFT"] if cell.strip()] == ["412 ms", "1.02 s", "2.47x"]
    assert [cell.strip() for cell in rows["TPOT"] if cell.strip()] == ["6.10 ms", "12.20 ms", "2.00x"]
    assert [cell.strip() for cell in rows["gap, median"] if cell.strip()] == ["6.00 ms", "12.00 ms", "2.00x"]
    assert [cell.strip() for cell in rows["keys read"] if cell.strip()] == ["1,039", "16,166"]
    assert [cell.strip() for cell in rows["working set"] if cell.strip()] == ["768 KiB", "768 KiB"]
    assert shown.count(MARK) == 3 and "…" in shown


def test_an_unknown_record_is_not_invented() -> None:
    shown = drawn(comparison(Message("assistant", "a"), Message("assistant", "b", record=RIGHT), 80), 80)
    assert [line.split() for line in shown.splitlines() if line.startswith("TTFT")] == [["TTFT", "n/a", "1.02", "s"]]


def test_the_parting_is_coloured_where_there_is_colour() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", _environ={})
    console.print(comparison(Message("assistant", "a b", record=LEFT), Message("assistant", "a c", record=RIGHT), 80))
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    assert "\x1b[33m b" in written and "\x1b[36m c" in written


# --- /cache


def test_keys_read_are_told_by_turn_and_layer() -> None:
    session = talked("three", "four")
    session.ask("c")
    held = len(engine_of(session).tokens)
    engine_of(session).read = [[0.0, 0.0, 6.0], [2.0, 1.5, 6.0], None, [1.0, 0.0, 6.0]]
    printed(session)
    dispatch(session, "/cache")
    out, err = printed(session)
    rows = [line.split() for line in out.splitlines()]
    cuts = [*session.conversation.began(), held]
    tokens = [last - first for first, last in zip(cuts, cuts[1:], strict=False)]
    assert rows[0] == ["turn", "tokens", "read", "share", "L0", "L1", "L2", "L3"]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "all"]
    assert [int(row[1]) for row in rows[1:]] == [*tokens, held]
    assert rows[1][2] == str(round((0 + 2 + tokens[0] + 1) / 4, 1)).removesuffix(".0")
    assert rows[1][4:] == ["0", f"{2 / tokens[0]:.1%}", "100%", f"{1 / tokens[0]:.1%}"]
    assert rows[4][2] == f"{(6 + 9.5 + held + 7) / 4:,.0f}"
    assert "all are means" in err


def test_turns_that_nobody_reads_are_told_together() -> None:
    turns = reads_by_turn([0, 10, 30, 60, 100], [[1, 0, 0, 4], [0, 0, 0, 1]], unknown=False)
    assert [(row.name, row.tokens, list(row.by_layer)) for row in folded(turns)] == [
        ("1", 10, [1, 0]),
        ("2-3", 50, [0, 0]),
        ("4", 40, [4, 1]),
    ]


def test_a_tier_that_cannot_tell_says_so() -> None:
    turns = reads_by_turn([0, 10, 30], [None, [1, 2]], unknown=True)
    assert [turn.mean for turn in turns] == [None, None]


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (None, "n/a: nothing was decoded since"),
        ([None, None], "n/a: the last answer read every key of the"),
    ],
)
def test_where_everything_is_read_that_is_said(read: list[list[float] | None] | None, expected: str) -> None:
    session = talked()
    engine_of(session).read = read
    dispatch(session, "/cache")
    assert printed(session)[0].startswith(expected)


def test_an_empty_cache_has_nothing_to_tell() -> None:
    session = make_session()
    dispatch(session, "/cache")
    assert printed(session)[0] == "n/a: the cache is empty\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_many_layers_become_ranges_that_fit(width: int) -> None:
    session = talked(width=width)
    engine_of(session).read = [[1.0, 2.0]] * 64
    dispatch(session, "/cache")
    out = printed(session)[0]
    header = out.splitlines()[0].split()
    assert all(cell_len(line) <= width for line in out.splitlines())
    assert header[:5] == ["turn", "tokens", "read", "share", f"L0-{header[4][3:]}"] and header[-1].endswith("63")
    assert len(header) > width // 15
    assert ranges(64, 3) == [(0, 20), (21, 41), (42, 63)] and ranges(2, 9) == [(0, 0), (1, 1)]


# --- /lines


def found_lines(new: int = 40, keys: int = 64) -> ChosenLines:
    """Two layers of four heads: the first chose by group, of which the second is dense; the other was not asked."""
    chosen = ChosenLines(layers=2)
    lines = fixed_lines(torch.tensor([[0, 7, 20], [0, 0, 0]]), torch.tensor([[0, 1, 9], [0, 0, 0]]), keys)
    lines = replace(lines, dense=torch.tensor([False, True]), coverage=torch.tensor([0.97, 1.0]))
    chosen.asks([0, 1], groups=2)
    chosen.chose(0, torch.zeros(4, new, 8), torch.zeros(2, keys, 8), lines, make_index(lines, new, keys, 8, 16))
    chosen.settle()
    return chosen


def with_lines(found: ChosenLines, width: int = 80, height: int = 24) -> Session:
    session = make_session("x" * 60)
    session.ask("a")
    engine_of(session).lines = found
    session.out.size = (width, height)  # type: ignore[assignment]
    printed(session)
    return session


def test_lines_alone_is_a_row_per_layer() -> None:
    found = found_lines()
    session = with_lines(found)
    dispatch(session, "/lines")
    heading, header, *rows = printed(session)[0].splitlines()
    assert heading == "turn 1, rows 24 to 63 over 64 keys"
    assert header.split() == ["layer", "dense", "heads", "lines", "min", "median", "max", "density", "covers"]
    density = (2 * found.choices(0)[0].density + 2) / 4
    assert rows[0].split() == ["0", "2", "of", "4", "6", "6", "6", f"{density:.1%}", "98.5%"]
    assert rows[1].split() == ["1", "4", "of", "4", "n/a", "n/a", "n/a", "100%", "100%"]


def test_a_layer_is_a_row_per_head() -> None:
    session = with_lines(found_lines(), width=120)
    dispatch(session, "/lines 0")
    rows = [line.split() for line in printed(session)[0].splitlines()[2:]]
    assert [row[:3] for row in rows] == [["0", "3", "3"], ["1", "3", "3"], ["2", "n/a", "n/a"], ["3", "n/a", "n/a"]]
    assert " ".join(rows[2][5:]) == "dense: lines would have cost as much"
    dispatch(session, "/lines 1")
    assert "dense: not asked, nothing was found before" in printed(session)[0]


def mask_of(vertical: list[int], slash: list[int], new: int, keys: int) -> list[list[bool]]:
    return [
        [key <= row and (key in vertical or row - key in slash) for key in range(keys)]
        for row in range(keys - new, keys)
    ]


def test_a_head_is_drawn_cell_for_cell_where_there_is_room() -> None:
    session = with_lines(found_lines(), width=64, height=80)
    dispatch(session, "/lines 0 1")
    lines = printed(session)[0].splitlines()
    assert lines[1].startswith("layer 0, head 1: 3 vertical and 3 slash lines, density ")
    blocks = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
    halves = [[blocks[letter] for letter in line.ljust(64)] for line in lines[3:23]]
    cells = [[half[part] for half in row] for row in halves for part in (0, 1)]
    assert cells == mask_of([0, 7, 20], [0, 1, 9], 40, 64)
    assert lines[23] == "key 0" + "key 63".rjust(59)


@pytest.mark.parametrize(("width", "height"), [(60, 20), (80, 24), (120, 40), (200, 50)])
def test_a_drawing_fits_the_terminal(width: int, height: int) -> None:
    session = with_lines(found_lines(3000, 4000), width, height)
    dispatch(session, "/lines 0 0")
    lines = printed(session)[0].splitlines()
    assert len(lines) < height and all(cell_len(line) <= width for line in lines)
    assert sum(set(line) <= set(" ▀▄█") and bool(line) for line in lines) == min(height - 8, round(width * 0.75) // 2)


def test_pixels_are_the_shares_of_their_cells() -> None:
    vertical, slash, new, keys = [0, 3, 4, 5, 30, 41], [0, 1, 2, 17, 40], 30, 50
    one, other = (mask_of(v, s, new, keys) for v, s in ((vertical, []), ([], slash)))
    pixels = Matrix(vertical, slash, new, keys).pixels(10, 6)
    for down, row in enumerate(pixels):
        for right, pixel in enumerate(row):
            rows, places = range(5 * down, 5 * down + 5), range(5 * right, 5 * right + 5)
            causal = [(i, j) for i in rows for j in places if j <= keys - new + i]
            if not causal:
                assert pixel is None
                continue
            assert pixel is not None
            assert pixel.vertical == pytest.approx(sum(one[i][j] for i, j in causal) / len(causal))
            assert pixel.slash == pytest.approx(sum(other[i][j] for i, j in causal) / len(causal))


def test_an_odd_number_of_rows_ends_in_upper_halves() -> None:
    assert half_blocks(Matrix([], [0], 3, 3).pixels(3, 3)) == ["▀▄", "  ▀"]


def pixels_of(path: Path) -> list[bytes]:
    """A grey PNG's rows, read chunk by chunk, each chunk's checksum looked at."""
    data, chunks, place = path.read_bytes(), {}, 8
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(name + body)
        chunks[name] = body
        place += 12 + length
    width, height, *kind = struct.unpack(">II5B", chunks[b"IHDR"])
    assert kind == [8, 0, 0, 0, 0] and list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    raw = zlib.decompress(chunks[b"IDAT"])
    rows = [raw[row * (width + 1) : (row + 1) * (width + 1)] for row in range(height)]
    assert all(row[0] == 0 for row in rows)
    return [row[1:] for row in rows]


def test_a_head_s_picture_is_a_png_and_overwrites_nothing(tmp_path: Path) -> None:
    session = with_lines(found_lines())
    path = tmp_path / "a head.png"
    dispatch(session, f"/lines 0 0 --png '{path}'")
    assert printed(session)[1].startswith(f"{path}: lines of layer 0, head 0;")
    mask = mask_of([0, 7, 20], [0, 1, 9], 40, 64)
    for row, (seen, cells) in enumerate(zip(pixels_of(path), mask, strict=True)):
        assert [shade == 0 for shade in seen] == cells
        assert set(seen[25 + row :]) <= {232} and 232 not in seen[: 25 + row]
    with pytest.raises(UsageError, match="exists already"):
        dispatch(session, f"/lines 0 0 --png '{path}'")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/lines x", "LAYER is 'x', but must be a number"),
        ("/lines 0 -1", "HEAD is '-1', but must be a number"),
        ("/lines 2", "there is no layer 2; they are 0 to 1"),
        ("/lines 0 4", "there is no head 4; they are 0 to 3"),
        ("/lines 99999999999999999999999", "there is no layer 999999999"),
        ("/lines 0 0 0", "too many words"),
        ("/lines --png x.png", "which head?"),
        ("/lines 0 0 --png", "which file?"),
        ("/lines 0 0 --png x.jpg", "a name that ends in .png"),
        ("/lines 0 0 --png /nowhere/at/all.png", "cannot be written: No such file"),
        ("/lines 0 2 --png x.png", "layer 0, head 2: dense: lines would have cost as much"),
    ],
)
def test_a_wrong_line_is_one_error(line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session = with_lines(found_lines())
    with pytest.raises(UsageError) as caught:
        dispatch(session, line)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_lines_it_says_why() -> None:
    session = make_session()
    dispatch(session, "/lines")
    assert printed(session)[0] == "n/a: profile full chooses no lines: its prefill is dense\n"
    engine_of(session).profile = replace(FULL, name="ours", prefill=PolicyOptions("online", {}))
    dispatch(session, "/lines 0 0")
    assert printed(session)[0].startswith("n/a: no prefill of what the cache holds has chosen lines; ")
    engine_of(session).profile = replace(FULL, name="rival", prefill=PolicyOptions("xattention", {}))
    dispatch(session, "/lines")
    assert printed(session)[0].startswith("n/a: profile rival chooses blocks, not lines; ")


def test_a_dense_head_has_nothing_to_draw() -> None:
    session = with_lines(found_lines())
    dispatch(session, "/lines 1 0")
    assert "so there are no lines to draw" in " ".join(printed(session)[0].split())


# --- /stats


def record(turn: int, **more: object) -> TurnRecord:
    return TurnRecord(
        turn=turn,
        profile="loopserve",
        tokens_new=1200 * turn,
        tokens_cached=30000,
        tokens_logical=30400,
        tokens_output=37,
        ttft_ms=412.0 + turn,
        prefill_tokens_per_s=1900.0,
        density=0.041,
        decode_tokens_per_s=164.0,
        keys_read=1039,
        kv_store_device_bytes=95 * 2**20,
        rss_bytes=635 * 2**20,
        finish_reason="stop",
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", ["loopserve", "loopserve+prefill.alpha=0.9+keep.budget=64"])
@pytest.mark.parametrize("width", [36, *WIDTHS])
def test_names_and_ttft_never_give_way_and_no_word_is_broken(width: int, name: str) -> None:
    records = [replace(record(number), profile=name) for number in (1, 2, 3)]
    session = make_session()
    session.out.width = session.err.width = width
    session.records = records
    dispatch(session, "/stats")
    out, err = printed(session)
    lines = out.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert [word for word in ("turn", "profile", "TTFT") if word in lines[0].split()] == ["turn", "profile", "TTFT"]
    assert [duration(one.ttft_ms) in out for one in records] == [True] * 3
    cells = {cell for column in turn_columns(records, [False] * 3, width) for cell in column.cells}
    words = {word for text in cells for word in text.split()} | set("turn profile TTFT new cached".split())
    words |= set("logical out prefill density decode keys read memory KV end".split())
    assert {word for line in lines for word in line.split()} <= words
    gone = err.removeprefix("a wider terminal also shows: ").rstrip("\n").split(", ") if err else []
    shown, hidden = fitting(turn_columns(records, [False] * 3, width), width)
    assert hidden == gone and not {"turn", "profile", "TTFT"} & set(hidden)
    assert (width < 200) >= bool(hidden) and (width > 60 or "memory" in hidden)


def test_the_least_important_column_goes_first_however_wide_the_others() -> None:
    columns = [Column("a", ["1"]), Column("wide column", ["2"], 1), Column("b", ["3"], 3), Column("c", ["4"], 2)]
    assert fitting(columns, 20)[1] == []
    assert fitting(columns, 19)[1] == ["b"]
    assert fitting(columns, 15)[1] == ["b", "c"]
    assert fitting(columns, 0)[1] == ["wide column", "b", "c"]
    assert drawn(table_of(fitting(columns, 19)[0]), 19).split() == ["a", "wide", "column", "c", "1", "2", "4"]


def test_stats_tells_profile_and_keys_read_of_turns_before_a_resume_too(tmp_path: Path) -> None:
    from loopserve_cli.chat.commands.files import begin_with

    session = talked(save=tmp_path / "t.jsonl")
    session.autosave.close()
    on = make_session("three")
    begin_with(on, resume(tmp_path / "t.jsonl")[1])
    on.ask("c")
    printed(on)
    dispatch(on, "/stats")
    header, *rows = (line.split() for line in printed(on)[0].splitlines())
    assert "profile" in header and " ".join(header).count("keys read") == 1
    assert [row[:2] for row in rows] == [["1", "sparse"], ["2", "sparse"], ["3", "full"]]
    assert [" ".join(row).count("12 ms") for row in rows] == [1, 1, 1]


# --- the line after a turn


def test_the_line_after_a_turn_tells_the_change_against_the_turn_before() -> None:
    def answer(milliseconds: float | None) -> Message:
        return Message("assistant", "x", record=TurnRecord(ttft_ms=milliseconds))

    assert ttft_change([answer(412)]) == ""
    assert ttft_change([answer(450), Message("user", "q"), answer(412)]) == " (-38 ms)"
    assert ttft_change([answer(100), answer(1612)]) == " (+1.51 s)"
    assert ttft_change([answer(100), answer(None)]) == ttft_change([Message("assistant", "x"), answer(3)]) == ""
    session = make_session("one", "two", "three")
    session.ask("a")
    assert printed(session)[1].startswith("TTFT 12 ms · ")
    session.ask("b")
    assert printed(session)[1].startswith("TTFT 12 ms (+0 ms) · ")
    session.retry()  # the turn before is the first, and not the answer that was replaced
    assert printed(session)[1].startswith("TTFT 12 ms (+0 ms) · ")


def test_it_can_be_switched_off() -> None:
    session = make_session("one", "two")
    dispatch(session, "/set turn_line off")
    assert printed(session)[1] == "turn_line = off\n"
    session.ask("a")
    assert printed(session) == ("one\n", "")
    dispatch(session, "/set turn_line on")
    session.ask("b")
    assert "TTFT 12 ms" in printed(session)[1]
    with pytest.raises(UsageError, match="turn_line is 'perhaps', but must be on or off"):
        dispatch(session, "/set turn_line perhaps")
    dispatch(session, "/set")
    assert ["turn_line", "on"] in [line.split()[:2] for line in printed(session)[0].splitlines()]


def test_on_a_narrow_terminal_it_breaks_between_words() -> None:
    session = make_session("one")
    session.err = Console(file=io.StringIO(), width=30, force_terminal=True, color_system=None)
    session.ask("a")
    assert isinstance(session.err.file, io.StringIO)
    lines = session.err.file.getvalue().splitlines()
    assert len(lines) > 1 and all(cell_len(line) <= 30 for line in lines)
    assert " ".join(line.strip() for line in lines) == (
        "TTFT 12 ms · prefill n/a · decode n/a · 4 new/0 cached/7 logical · 1 out · rss 3.0 MiB"
    )


# --- typed


def test_they_are_typed_and_completed(keyboard: PipeInput) -> None:  # noqa: F811
    session = make_session("one", "blue", "one")
    engine = engine_of(session)
    engine.set_profile(SPARSE)
    engine.read = [[2.0]]
    assert (
        chat(session, keyboard, "a\r", "/probe sky?\r", "/cache\r", "/compare\r", "/stats\r", "/lines\r", CTRL_D) == 0
    )
    assert engine.asked == ["a", "sky?", "a"]
    assert dialogue_of(session) == [("user", "a"), ("assistant", "one")]
    out, err = printed(session)
    assert "error" not in err and "blue\n" in out and "word for word" in out and "L0" in out and "n/a: " in out


def test_tab_completes_layers_heads_and_the_flag() -> None:
    session = with_lines(found_lines())

    def offered(text: str) -> list[str]:
        return [one.text for one in CommandCompleter(session).get_completions(Document(text), None)]  # type: ignore[arg-type]

    assert offered("/lines ") == ["0", "1"]
    assert offered("/lines 0 ") == ["0", "1", "2", "3"]
    assert offered("/lines 0 3 ") == ["--png"]
    assert offered("/set turn_line ") == ["on", "off"]
    engine_of(session).lines = None
    assert offered("/lines ") == []
