"""A replay's turns, kept as they end: in the folder of `--out` or `--resume`, or nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.fingerprint import difference, digest, plain
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.run_folder import RunFolder
from loopserve_cli.measure.turn_key import key_of
from loopserve_cli.replay.script import Script
from loopserve_cli.stats import versions

if TYPE_CHECKING:
    from loopserve_cli.engine.identity import Identity

# What decides neither what is measured nor how: where it goes, how it is shown, and how many measure.
SHOWN = ("out", "resume", "baseline", "json", "fail_if", "turns", "markdown", "workers", "ray")
# Of files the dialogues count; profiles and servers are looked at by themselves.
NOT_MEASURED = (*SHOWN, "transcripts", "strict", "profiles", "endpoints", "trust_remote_code")


class Identified(Protocol):
    """An engine, or who speaks for it."""

    @property
    def identity(self) -> Identity:
        """What it computes keys and values from."""

    @property
    def device(self) -> str:
        """By name."""


class Book:
    """Keeps turns, and knows those that earlier processes kept. Use `opened`, and `close` it."""

    def __init__(self, folder: RunFolder | None, known: dict[str, Any]) -> None:
        """`known` are the fingerprints that need no model."""
        self._folder = folder
        self._known = known
        before = folder.run if folder is not None else {}
        # The run's, until this process has its own.
        self.environment = dict(before.get("environment", {}))
        self.kept = [Measured(*row) for row in folder.kept] if folder is not None else []
        self.date = str(before.get("date") or datetime.now().isoformat(timespec="seconds"))

    @classmethod
    def opened(cls, options: ReplayOptions, scripts: Sequence[Script]) -> Book:
        """The book of these options; raises UsageError, before the model is loaded, for another run's folder."""
        if options.out is None and options.resume is None:
            return cls(None, {})
        known = fingerprints(options, scripts)
        if options.out is not None:
            return cls(RunFolder.new(options.out), known)
        assert options.resume is not None
        folder = RunFolder.resumed(options.resume)
        book = cls(folder, known)
        try:
            for name in known:
                book._check(name, known[name])
        except UsageError:
            book.close()
            raise
        return book

    @property
    def begun(self) -> bool:
        """Whether there are files, and a run that they are of."""
        return self._folder is not None and self._folder.begun

    @property
    def path(self) -> Path | None:
        """Where it is kept."""
        return self._folder.path if self._folder is not None else None

    def begin(self, engine: Identified | None, command: Mapping[str, Any], environment: dict[str, Any]) -> None:
        """Write what is known before the first turn; `environment` is then the run's, that of its first process.

        Without an `engine` only servers are measured. Raises UsageError for another model or device than the run's.
        """
        self.environment = environment
        if self._folder is None:
            return
        before = self._folder.run
        if not before:
            model = {"device": engine.device, "model": asdict(engine.identity)} if engine is not None else {}
            run = {"command": command, "date": self.date, "environment": environment}
            self._folder.begin(plain({**run, "fingerprints": self._known | model, "resumed": []}))
            return
        if engine is not None:
            self._check("device", engine.device)
        if engine is not None and (other := identity_of(before, engine.identity)) is not None:
            raise self._differs(f"it was measured {other}")
        resumed = [*before.get("resumed", []), plain({"command": command, "environment": environment})]
        self._folder.begin(before | {"resumed": resumed})
        times = [process["environment"].get("timestamp") for process in resumed]
        self.environment = {**before.get("environment", {}), "resumed": times}

    def keep(self, turn: Measured) -> None:
        """Put a turn that ended on the disk; raises LoopserveError."""
        if self._folder is not None:
            if turn.heads is not None:  # first, so that a turn that is kept has them
                self._folder.add_heads(key_of(turn.record), turn.heads)
            self._folder.add(turn.record, turn.output_ids)

    @property
    def heads(self) -> list[dict[str, Any]]:
        """What the heads of the turns kept so far did, in this process and those before; raises LoopserveError."""
        return self._folder.heads if self._folder is not None else []

    def all_with(self, measured: Sequence[Measured]) -> list[Measured]:
        """The turns kept before and those of now; one that was measured twice as it is now, in its old place."""
        return list({key_of(turn.record): turn for turn in [*self.kept, *measured]}.values())

    def finish(self, files: Mapping[str, str]) -> None:
        """Put whole files beside the records; raises LoopserveError."""
        assert self._folder is not None
        self._folder.finish(files)

    def close(self) -> None:
        """Let go of the folder."""
        if self._folder is not None:
            self._folder.close()

    def _check(self, name: str, now: Any) -> None:
        """Raise UsageError where this fingerprint is not the run's."""
        assert self._folder is not None
        before = self._folder.run.get("fingerprints", {}).get(name) or {}
        if (other := otherwise(name, before, plain(now))) is not None:
            raise self._differs(other)

    def _differs(self, what: str) -> UsageError:
        assert self._folder is not None
        return UsageError(f"--resume {self._folder.path}: {what}; resume it as it began, or give --out for a new run")


def fingerprints(options: ReplayOptions, scripts: Sequence[Script]) -> dict[str, Any]:
    """What a run is of, as far as it can be told before a model is loaded, as JSON types."""
    asked = asdict(options)
    model = asked.pop("model")
    settings = {key: value for key, value in {**asked, **model}.items() if key not in NOT_MEASURED}
    dialogues = {script.id: digest(asdict(script) | {"source": None}) for script in scripts}
    profiles = {profile.name: asdict(profile) | {"about": None} for profile in options.profiles}
    found = {"settings": settings, "profiles": profiles, "dialogues": dialogues, "versions": versions()}
    endpoints = {endpoint.called: {"url": endpoint.url, "model": endpoint.model} for endpoint in options.endpoints}
    return found | {"endpoints": endpoints}


def otherwise(name: str, before: Any, now: Any) -> str | None:
    """How a fingerprint differs from the run's, in words; None where it is the same."""
    if name in ("profiles", "endpoints") and list(before) != list(now):
        return f"the {name} were {', '.join(before) or 'none'} and are {', '.join(now) or 'none'}"
    if name == "dialogues":
        changed = next((one for one in {**before, **now} if before.get(one) != now.get(one)), None)
        if changed is None:
            return None
        there = "is not in the files now" if changed not in now else "was not in the files then"
        return f"dialogue {changed} {'has changed since' if changed in before and changed in now else there}"
    found = difference({name: before}, {name: now})
    return None if found is None else found.removeprefix("settings.")


def identity_of(run: Mapping[str, Any], now: Any) -> str | None:
    """How the model of a run differs from the one that is loaded, in words; None where it is the same."""
    try:
        before = type(now)(**run["fingerprints"]["model"])
    except (KeyError, TypeError):
        return "with a model that it does not tell"
    return before.difference(now)
