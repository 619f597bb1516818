"""What a person sees on stderr while a replay runs: a bar on a terminal, a line per dialogue elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loopserve_cli.profile import Profile
from loopserve_cli.replay.script import Script


class Watch:
    """Draws only when told of something, between turns, so that drawing is in nobody's time."""

    def __init__(self, console: Console, progress: Progress, task: TaskID, repeats: int) -> None:
        """Use `watching` to make one."""
        self.console = console
        self.repeats = repeats
        self._text = "replay"
        self._progress = progress
        self._task = task

    def begin(self, script: Script, profile: Profile, repeat: int) -> None:
        """Name what runs now."""
        text = f"{script.id} · {profile.name}" + (f" · repeat {repeat}/{self.repeats}" if self.repeats > 1 else "")
        self._text = text
        if self._progress.disable:
            turns = len(script.exchanges)
            self.console.print(f"{text} · {turns} turn{'s' if turns > 1 else ''}", markup=False)
        else:
            self._progress.update(self._task, description=text, refresh=True)

    def advance(self, turns: int) -> None:
        """Count turns as done."""
        self._progress.update(self._task, description=self._text, advance=turns, refresh=not self._progress.disable)

    def forcing(self, tokens: int) -> None:
        """Say on a terminal that a given answer is decoded, until the next dialogue is named or a turn counted."""
        if not self._progress.disable:
            doing = f"fidelity, {tokens} tokens"
            self._progress.update(self._task, description=f"{self._text} · {doing}", refresh=True)

    def warn(self, line: str) -> None:
        """Say something that the user should not miss."""
        self.console.print(line, style="yellow", markup=False, soft_wrap=True)


@contextmanager
def watching(console: Console, turns: int, repeats: int) -> Iterator[Watch]:
    """A watch over a run of so many turns in all; its bar goes away at the end."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("turns"),
        TimeElapsedColumn(),
    )
    plain = not console.is_terminal or console.is_dumb_terminal
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=plain) as progress:
        yield Watch(console, progress, progress.add_task("replay", total=turns), repeats)
