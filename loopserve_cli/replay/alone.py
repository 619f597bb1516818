"""A replay in this process: one model, one dialogue after the other."""

from __future__ import annotations

from loopserve_cli.collector import settled
from loopserve_cli.engine.layerwise import told_within
from loopserve_cli.replay.document import command_of
from loopserve_cli.replay.runner import Runner
from loopserve_cli.replay.work import Work


def run_alone(work: Work) -> None:
    """Load, warm up and replay."""
    from loopserve_cli.environment import describe

    engine = work.open_engine(work.options, work.say)
    work.book.begin(engine, command_of(work.options, work.scripts), describe(engine.device))
    work.watch.draws_while_decoding = engine.device == "cpu"
    kept = work.book.kept
    runner = Runner(engine, work.options, work.scripts, work.watch, work.missing, work.book.date, work.keep, kept)
    work.warms_up()
    with work.watch.shown():
        runner.warm_up()
        with settled(), told_within(engine, work.watch.event):
            runner.run()
