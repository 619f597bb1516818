"""The wait until a model is loaded: a bar by what the same load took the last time, and what is being done."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from loopserve_cli.chat.wait_bar import WIDEST
from loopserve_cli.config import ModelOptions
from loopserve_cli.folders import cache_folder
from loopserve_cli.pace import brief

FILE = "load-seconds.json"
# Of the terminal's width, beside the bar: what is being done, and " longer than last time ".
BESIDE, TIME = 50, 23
# How full the bar gets before the model is there.
FULLEST = 0.99


class LoadTimes:
    """How long each model took to load the last time, in a file that may be removed at any time."""

    def __init__(self, folder: Path | None = None) -> None:
        """Kept in `folder`, by default the user's cache."""
        self._path = (folder or cache_folder()) / FILE

    def seconds(self, options: ModelOptions) -> float | None:
        """Of a load with these options; None where it is not known."""
        value = self._all().get(_key(options))
        return value if value is not None and value > 0 else None

    def note(self, options: ModelOptions, seconds: float) -> None:
        """It took so long now; where that cannot be kept, the next load has no bar."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps({**self._all(), _key(options): round(seconds, 2)}), encoding="utf-8")

    def _all(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        rows = found.items() if isinstance(found, dict) else ()
        return {key: float(value) for key, value in rows if type(value) in (int, float)}


@contextlib.contextmanager
def loading(
    console: Console, options: ModelOptions, times: LoadTimes, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Callable[[str], None]]:
    """While a model is loaded; yields what tells the step. Noted where it ended well; a spinner the first time."""
    last, began = times.seconds(options), clock()
    what = f"loading {options.model}"
    if last is None or not console.is_terminal or console.is_dumb_terminal:
        with console.status(Text(what)) as status:
            yield lambda line: status.update(Text(line))
    else:
        with loading_bar(console, last, lambda: clock() - began) as bar:
            task = bar.add_task(what, total=None)
            yield lambda line: bar.update(task, description=line)
    times.note(options, clock() - began)


def loading_bar(console: Console, last: float, elapsed: Callable[[], float]) -> Progress:
    """A bar that fills in as many seconds as it took the last time."""
    width = max(4, min(WIDEST, console.width - BESIDE))
    column = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, console.width - width - TIME))
    step = TextColumn("{task.description}", markup=False, table_column=column)
    return Progress(step, Passing(last, elapsed, width), Expected(last, elapsed), console=console, transient=True)


class Passing(ProgressColumn):
    """The time that has passed, of what it took the last time."""

    def __init__(self, last: float, elapsed: Callable[[], float], width: int) -> None:
        """Both in seconds."""
        super().__init__()
        self._last, self._elapsed, self._width = last, elapsed, width

    def render(self, task: Task) -> ProgressBar:
        """Never quite full: it is not done."""
        return ProgressBar(total=1, completed=min(FULLEST, self._elapsed() / self._last), width=self._width)


class Expected(ProgressColumn):
    """How long it still takes if it takes as long as the last time."""

    def __init__(self, last: float, elapsed: Callable[[], float]) -> None:
        """Both in seconds."""
        super().__init__(table_column=Column(no_wrap=True))
        self._last, self._elapsed = last, elapsed

    def render(self, task: Task) -> Text:
        """For example "~4 s left"."""
        left = self._last - self._elapsed()
        said = f"~{brief(left)} left" if left > 0 else "longer than last time"
        return Text(said, style="progress.remaining")


def _key(options: ModelOptions) -> str:
    """What decides how long it takes."""
    return " ".join([options.model, options.device, options.dtype, options.quant or "-"])
