"""The wait until a model is loaded: a bar by what it took the last time, once that is known."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from loopserve_cli.chat.loading import FILE, LoadTimes, loading, loading_bar
from loopserve_cli.config import ModelOptions

DEMO = ModelOptions()


def terminal(width: int = 80, tty: bool = True) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=tty, color_system=None, _environ={"TERM": "xterm"})


def line(width: int, last: float, elapsed: float, step: str) -> str:
    console = terminal(width)
    bar = loading_bar(console, last, lambda: elapsed)
    bar.add_task(step, total=None)
    rows = console.render_lines(bar.get_renderable(), console.options, pad=False)
    return "\n".join("".join(segment.text for segment in row) for row in rows).rstrip()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    "step", ["loading demo: 0.01 GiB on cpu", "loading an-organisation/a-model-with-a-very-long-name-8B"]
)
def test_the_bar_has_the_step_and_the_time_left_in_one_line(width: int, step: str) -> None:
    shown = line(width, 12.0, 4.5, step)
    assert "\n" not in shown and len(shown) <= width
    assert shown.startswith(step[:20]) and shown.endswith("~8 s left") and "━" in shown


def test_a_load_that_takes_longer_says_so_and_is_never_full() -> None:
    assert line(80, 3.0, 5.0, "loading demo").endswith("longer than last time")
    assert line(80, 3.0, 5.0, "loading demo").count("━") == 29  # of 30, and a half


def test_the_first_load_has_no_bar_and_the_next_one_has(tmp_path: Path) -> None:
    now = [0.0]
    for first in (True, False):
        console, times = terminal(), LoadTimes(tmp_path)
        assert (times.seconds(DEMO) is None) is first
        began = now[0]
        with loading(console, DEMO, times, lambda: now[0]) as say:
            say("reading demo")
            now[0] = began + 7.0
        assert ("left" in console.file.getvalue()) is not first  # type: ignore[attr-defined]
    assert LoadTimes(tmp_path).seconds(DEMO) == 7.0
    assert LoadTimes(tmp_path).seconds(ModelOptions(quant="nf4")) is None


def test_a_load_that_failed_is_not_noted(tmp_path: Path) -> None:
    with pytest.raises(ValueError), loading(terminal(), DEMO, LoadTimes(tmp_path)):
        raise ValueError
    assert not (tmp_path / FILE).exists()


def test_nothing_is_drawn_where_nobody_looks_and_the_time_is_noted(tmp_path: Path) -> None:
    times = LoadTimes(tmp_path)
    times.note(DEMO, 5.0)
    console = terminal(tty=False)
    with loading(console, DEMO, times) as say:
        say("reading demo")
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    assert times.seconds(DEMO) != 5.0


@pytest.mark.parametrize("text", ["", "[]", '{"demo auto auto -": "x"}', '{"demo auto auto -": -1}', "[" * 10**5, "{"])
def test_a_file_that_is_none_of_ours_is_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert LoadTimes(tmp_path).seconds(DEMO) is None
    LoadTimes(tmp_path).note(DEMO, 3.0)
    assert LoadTimes(tmp_path).seconds(DEMO) == 3.0


def test_what_cannot_be_kept_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    LoadTimes(tmp_path / "file").note(DEMO, 3.0)
    assert LoadTimes(tmp_path / "file").seconds(DEMO) is None
