"""A replay in this process: one model, one dialogue after the other, and servers beside it."""

from __future__ import annotations

import contextlib

from loopserve_cli.collector import settled
from loopserve_cli.engine.layerwise import told_within
from loopserve_cli.replay.document import command_of
from loopserve_cli.replay.local import Local
from loopserve_cli.replay.runner import Runner, nothing_around
from loopserve_cli.replay.servers import Servers
from loopserve_cli.replay.variant import Variant
from loopserve_cli.replay.work import Work


def run_alone(work: Work, servers: Servers) -> None:
    """Load, warm up and replay."""
    from loopserve_cli.environment import describe

    options, watch = work.options, work.watch
    engine = work.open_engine(options, work.say) if options.profiles else None
    here = describe(engine.device if engine is not None else None)
    work.book.begin(engine, command_of(options, work.scripts), here)
    with watch.shown():
        variants: list[Variant] = [*servers.variants(options, watch, engine)]
        around = nothing_around
        if engine is not None:
            local = Local(engine, options, watch, work.missing, work.book.date, work.book.kept)
            variants, around = [*local.variants, *variants], local.around
        runner = Runner(variants, work.scripts, options.repeat, watch, work.missing, work.keep, around)
        watch.draws_while_decoding = engine is not None and engine.device == "cpu"
        work.warms_up()
        runner.warm_up()
        with settled(), told_within(engine, watch.event) if engine is not None else contextlib.nullcontext():
            runner.run()
