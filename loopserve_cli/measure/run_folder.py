"""The folder of a run: one run's alone, every turn in it from when it ended, whole files at the end.

`run.json` comes first: what was asked for, where, and the fingerprints that a resumed run must agree with. A turn's
record is appended to `records.jsonl` when the turn ends, and its token ids, which agreement is computed from, to
`output_ids.jsonl`, before it: a record without ids would be half a turn. Where a turn stands twice, the later counts.
What each head computed and read is in `heads.jsonl`, of turns that left something out, once there is one.
What is known only from several turns (agreement) is in the whole files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.heads import HeadFigures
from loopserve_cli.measure.appended import Appended, read_objects
from loopserve_cli.measure.turn_key import TurnKey, key_of
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript.lock import lock
from loopserve_cli.transcript.write import write_whole

RUN, RECORDS, IDS, SUMMARY = "run.json", "records.jsonl", "output_ids.jsonl", "summary.json"
HEADS = "heads.jsonl"

Kept = tuple[TurnRecord, tuple[int, ...]]


class RunFolder:
    """A folder that holds one run, locked while this process has it. Use `new` or `resumed`.

    `run` is what run.json holds, empty before `begin`; `kept` are the turns that earlier processes measured.
    """

    def __init__(self, path: Path, ids: Appended) -> None:
        """Take over the folder, whose file of ids is open and locked."""
        self.path = path
        self.run: dict[str, Any] = {}
        self.kept: list[Kept] = []
        self._ids = ids
        self._records: Appended | None = None
        self._heads: Appended | None = None

    @classmethod
    def new(cls, wanted: Path) -> RunFolder:
        """The folder, or where it holds a run NAME-2, NAME-3 ... beside it, whichever is free; raises UsageError."""
        try:
            return next(found for path in _names(wanted) if (found := cls._claimed(path)) is not None)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"--out {wanted}: it, or a part of its path, is a file; give a folder") from None
        except OSError as error:
            raise UsageError(f"--out {wanted}: cannot be written: {error.strerror}; give another folder") from None

    @classmethod
    def _claimed(cls, path: Path) -> RunFolder | None:
        """The folder for a new run; None where it holds one, or another process is about to begin one there."""
        path.mkdir(parents=True, exist_ok=True)
        if _holds_run(path):
            return None
        ids = Appended.opened(path / IDS)
        try:
            lock(ids.handle)
        except BlockingIOError:
            ids.close()
            return None
        if _holds_run(path):  # begun, and ended, since the first look
            ids.close()
            return None
        return cls(path, ids)

    @classmethod
    def resumed(cls, path: Path) -> RunFolder:
        """A folder with a run that is to go on; raises UsageError where there is none, or another process runs it."""
        try:
            run = json.loads((path / RUN).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"--resume {path}: holds no run ({RUN}); give --out to begin one") from None
        except OSError as error:
            raise UsageError(f"--resume {path}: {RUN} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            run = None
        if not isinstance(run, dict):
            raise UsageError(f"--resume {path}: {RUN} is damaged; give --out to begin anew")
        with contextlib.ExitStack() as opened:
            try:
                ids = opened.enter_context(contextlib.closing(Appended.opened(path / IDS)))
                lock(ids.handle)
                records = opened.enter_context(contextlib.closing(Appended.opened(path / RECORDS)))
            except BlockingIOError:
                raise UsageError(f"--resume {path}: another process runs it; wait until it has ended") from None
            except OSError as error:
                raise UsageError(f"--resume {path}: cannot be written: {error.strerror}") from None
            found = cls(path, ids)
            found.run, found._records, found.kept = run, records, _kept(records, ids)
            opened.pop_all()
        return found

    def begin(self, run: Mapping[str, Any]) -> None:
        """Write run.json: from now on the folder holds a run."""
        self.run = dict(run)
        self._write(RUN, json.dumps(self.run, indent=2, ensure_ascii=False) + "\n")
        if self._records is None:
            self._records = Appended.opened(self.path / RECORDS)

    @property
    def begun(self) -> bool:
        """Whether there is a run that turns can be added to."""
        return self._records is not None

    def add(self, record: TurnRecord, output_ids: Sequence[int]) -> None:
        """Keep a turn that ended: it is on the disk when this returns. Raises LoopserveError, and keeps nothing of it.

        An interrupt that comes meanwhile arrives when the turn is kept.
        """
        try:
            self._append(record, output_ids)
        except KeyboardInterrupt:
            self._append(record, output_ids)
            raise

    def add_heads(self, turn: TurnKey, heads: HeadFigures) -> None:
        """Keep what the heads of a turn computed and read; raises LoopserveError, and keeps nothing of it."""
        try:
            if self._heads is None:
                self._heads = _whole_lines(self.path / HEADS)
            self._heads.add({**turn.to_json(), **heads.to_json()})
        except OSError as error:
            raise self._full(error) from None

    def _append(self, record: TurnRecord, output_ids: Sequence[int]) -> None:
        assert self._records is not None, "a run begins before its turns"
        try:
            self._ids.add({**key_of(record).to_json(), "output_ids": list(output_ids)})
            self._records.add(record.to_json())
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> LoopserveError:
        line = f"{self.path}: the last turn could not be kept: {error.strerror}; free some space, and go on with"
        return LoopserveError(f"{line} --resume {self.path}")

    @property
    def heads(self) -> list[dict[str, Any]]:
        """The lines of heads.jsonl, the later one of a turn that stands twice; raises LoopserveError."""
        return read_heads(self.path)

    def finish(self, files: Mapping[str, str]) -> None:
        """Put whole files in the folder, by name, each in one step; raises LoopserveError."""
        for name, text in files.items():
            self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        if not path.exists() or path.is_file():
            write_whole(path, text.encode(), overwrite=True)
            return
        try:  # a device or a pipe, which no file can take the place of
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            line = f"--out {self.path}: not all of it was written: {error.strerror}; free some space"
            raise LoopserveError(line) from None

    def close(self) -> None:
        """Let go of it: others may go on with the run, or begin one where none was begun."""
        if not self.begun:
            self._ids.path.unlink(missing_ok=True)
        self._ids.close()
        if self._records is not None:
            self._records.close()
        if self._heads is not None:
            self._heads.close()


def read_heads(folder: Path) -> list[dict[str, Any]]:
    """What the heads of a run's turns computed and read, the newest line of each turn; raises LoopserveError."""
    path = folder / HEADS
    if not path.exists():
        return []
    return list({tuple(line.get(name) for name in TurnKey.__slots__): line for line in read_objects(path)}.values())


def _whole_lines(path: Path) -> Appended:
    """The file, without the rest of a line that a kill tore; raises OSError, and LoopserveError for damage."""
    file = Appended.opened(path)
    file.lines()
    return file


def _names(wanted: Path) -> Iterator[Path]:
    """The folder, and those beside it that may stand in for it."""
    yield wanted
    whole = wanted if wanted.name not in ("", "..") else wanted.resolve()
    number = 2
    while True:
        yield whole.with_name(f"{whole.name}-{number}")
        number += 1


def _holds_run(path: Path) -> bool:
    """Whether something was measured there, by this version or one before."""
    records = path / RECORDS
    return os.path.lexists(path / RUN) or (path / SUMMARY).exists() or (records.exists() and records.stat().st_size > 0)


def _kept(records: Appended, ids: Appended) -> list[Kept]:
    """The turns of a folder, in the order in which they were first measured."""
    found_ids: dict[TurnKey, tuple[int, ...]] = {}
    for number, line in enumerate(ids.lines(), start=1):
        try:
            found_ids[TurnKey.from_json(line)] = tuple(int(token) for token in line["output_ids"])
        except (KeyError, TypeError, ValueError):
            raise _damaged(ids.path, number) from None
    kept: dict[TurnKey, Kept] = {}
    for number, line in enumerate(records.lines(), start=1):
        try:
            record = TurnRecord.from_json(line)
            kept[key_of(record)] = record, found_ids[key_of(record)]
        except (KeyError, TypeError):
            raise _damaged(records.path, number) from None
    return list(kept.values())


def _damaged(path: Path, number: int) -> LoopserveError:
    return LoopserveError(f"{path}, line {number}: is no turn that a replay kept; give --out to begin anew")
