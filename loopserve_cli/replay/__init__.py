"""Replays recorded dialogues and measures every turn, several profiles side by side; `run` is `loopserve replay`.

Asking
  flags.py            what no other command has
  endpoint_flags.py   which servers
  script.py           the dialogues of the files, as turns to be asked

Running
  work.py             one replay that is to be measured, whoever runs it
  missing.py          what of it is still to be run
  measuring.py        runs that, here or in workers, and has what was measured whatever ended it
  alone.py            in this process
  workers/            in processes of this machine, or of a Ray cluster
  order.py            in which order
  runner.py           dialogue by dialogue, variant after variant
  variant.py          who answers: what local.py and remote.py have in common
  local.py            the engine here, under its profiles
  teacher.py          the recorded answers forced under each profile, after the timed turn
  remote.py           a server
  servers.py          the connections to all of them
  completed.py        what a record says that the engine does not know

Keeping and showing
  book.py             the turns, in the folder of `--out` or `--resume`
  watch.py            what is shown while it runs
  phase.py            what it is doing now, in a line
  document.py         the run as one document, and the files of its folder
  summary_csv.py      the summary, as a table of values
  tables.py           by turn, and the summary; the verdict's tables are `measure`'s
  baseline.py         this run against an earlier one
  compare_command.py  `loopserve compare`
  report_command.py   `loopserve report`
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loopserve_cli.config import ReplayOptions
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from rich.console import Console

    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.measure.compare.comparison import Comparison
    from loopserve_cli.replay.book import Book
    from loopserve_cli.replay.script import Script
    from loopserve_cli.replay.work import OpenEngine

INTERRUPTED = 130


def open_engine(options: ReplayOptions, progress: Callable[[str], None]) -> Engine:
    """Load the model once, under the first profile; raises ModelError."""
    from loopserve_cli.engine.names import require

    require(options.model.model)  # before torch, which takes longer than seeing that a name is mistyped
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.engine.loader import load

    return Engine(load(options.model, progress), options.profiles[0])


def run(options: ReplayOptions, open_engine: OpenEngine = open_engine) -> int:
    """Replay and report; the exit status.

    0: every turn ended; 1: a turn failed, the others were measured; 3: a `--fail-if` gate failed, whether
    or not a turn did; 130: interrupted. Raises UsageError and TranscriptError before the model is loaded, ModelError
    while it is. Whatever ends the run, what was measured until then is reported first.
    """
    from loopserve_cli.measure.gates import GATE_FAILED, parse_gate
    from loopserve_cli.replay.baseline import against_baseline, check_baseline, read_baseline
    from loopserve_cli.replay.book import Book
    from loopserve_cli.replay.measuring import measure
    from loopserve_cli.replay.script import read_scripts
    from loopserve_cli.replay.servers import Servers

    with contextlib.ExitStack() as opened:
        servers = opened.enter_context(Servers())
        options = servers.found(options)
        names = options.names
        check_names(names)
        baseline = read_baseline(options)
        gates = [parse_gate(text, names, baseline.profiles if baseline else None) for text in options.fail_if]
        scripts = read_scripts(options.transcripts, options.history, options.max_turns, options.strict)
        check_baseline(baseline, names, scripts, options.repeat)
        book = opened.enter_context(contextlib.closing(Book.opened(options, scripts)))
        from loopserve_cli.output import CleanConsole

        console = CleanConsole(stderr=True)
        if options.out not in (None, book.path):
            console.print(f"{options.out} holds another run; this one goes to {book.path}", soft_wrap=True)
        records, ended_by = measure(options, scripts, console, open_engine, book, servers)
        # A disk that refused a turn refuses more; that is told once.
        told = (LoopserveError,) if isinstance(ended_by, LoopserveError) else ()
        with contextlib.suppress(*told):
            against = against_baseline(baseline, options, scripts, records, book.environment, book)
            conclude(options, scripts, records, book.environment, console, book, against)
    if isinstance(ended_by, KeyboardInterrupt):
        console.print(f"interrupted: {len(records)} turns were measured before that", markup=False)
        return INTERRUPTED
    if ended_by is not None:
        raise ended_by
    greedy = options.sampling.temperature == 0
    failures = [line for gate in gates for line in gate.failures(records, names, greedy, against)]
    for line in failures:
        console.print(line, markup=False, soft_wrap=True)
    if failures:
        return GATE_FAILED
    return 1 if any(record.error for record in records) else 0


def check_names(names: Sequence[str]) -> None:
    """Refuse a profile or a server that is given twice: its turns could not be told apart."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"profile {twice!r} is given twice; use --repeat to measure it again")


def conclude(
    options: ReplayOptions,
    scripts: Sequence[Script],
    records: Sequence[TurnRecord],
    environment: dict[str, Any],
    console: Console,
    book: Book,
    against: Comparison | None = None,
) -> None:
    """Files where `--out` says; on stdout one JSON document, or the tables, also when the files cannot be written."""
    from loopserve_cli.measure.compare.lines import context, sentences
    from loopserve_cli.measure.report.page import NAME, page
    from loopserve_cli.replay import document as data

    whole = data.document(data.command_of(options, scripts), environment, records)
    if against is not None:
        whole["baseline"] = against.to_json() | {"sentences": sentences(against), "context": context(against)}
    try:
        if book.begun:
            book.finish(data.files_of(whole))
            book.finish({NAME: page(whole, book.heads)})
            console.print(f"wrote records, summary and {NAME} to {book.path}", soft_wrap=True)
    finally:
        show(options, records, whole, console, against)


def show(
    options: ReplayOptions,
    records: Sequence[TurnRecord],
    whole: Mapping[str, Any],
    console: Console,
    against: Comparison | None = None,
) -> None:
    """What failed on stderr; the document, the verdict as Markdown, or the tables on stdout."""
    from loopserve_cli.measure.compare.shown import show as show_comparisons
    from loopserve_cli.output import output_console, print_document

    for record in records:
        if record.error:
            where = f"{record.conversation_id}, turn {record.turn}, {record.profile}"
            console.print(f"failed: {where}: {record.error}", markup=False, soft_wrap=True)
    if options.json:
        print_document(whole)
    elif records:
        show_tables(options, records, whole)
        if against is not None:
            output = output_console()
            output.print()
            show_comparisons([against], output, options.markdown)


def show_tables(options: ReplayOptions, records: Sequence[TurnRecord], whole: Mapping[str, Any]) -> None:
    """Of several profiles the verdict, first and last, and between them every turn where `turns` asks for it.

    Of one profile there is none, and the turns are what is shown.
    """
    from loopserve_cli.measure.verdict import verdicts
    from loopserve_cli.measure.verdict_lines import verdict_lines
    from loopserve_cli.measure.verdict_table import verdict_markdown, verdict_table
    from loopserve_cli.output import output_console
    from loopserve_cli.replay.tables import summary_table, turn_tables

    output = output_console()
    found = verdicts(records, greedy=options.sampling.temperature == 0)
    if options.markdown:
        output.print(verdict_markdown(found), end="", soft_wrap=True)
        return
    lines = verdict_lines(found, output.width)
    for line in lines:
        output.print(line, style="bold", soft_wrap=True)
    if len(found) == 1 or options.turns:
        for table in turn_tables(records, options.repeat):
            output.print(table)
        output.print(summary_table(whole["summary"]))
    if len(found) > 1:
        output.print(verdict_table(found, output))
    for line in lines:
        output.print(line, style="bold", soft_wrap=True)
