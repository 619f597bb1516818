"""`loopserve report`: makes report.html of a run's folder again, also of a run that was killed."""

from __future__ import annotations

from pathlib import Path

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.compare.past_run import object_in, read_run
from loopserve_cli.measure.report.page import NAME, page
from loopserve_cli.measure.run_folder import RUN, SUMMARY, read_heads
from loopserve_cli.replay.document import document
from loopserve_cli.transcript.write import write_whole

NO_REPORT = ", so there is no report of it"


def run(folder: Path) -> int:
    """Write the page, and print where it is; raises UsageError for what is no run, holds no turn, or is damaged."""
    from loopserve_cli.output import output_console

    summary, begun = (object_in(folder / name, NO_REPORT) for name in (SUMMARY, RUN))
    told = {**begun, **summary}
    records = read_run(folder).records
    if "command" not in told:
        raise UsageError(
            f"{folder}: does not say what was run ({RUN}); give a folder that `loopserve replay --out` wrote"
        )
    try:
        whole = summary | document(told["command"], told.get("environment", {}), records)
    except (KeyError, TypeError):
        raise UsageError(f"{folder / RUN}: is damaged{NO_REPORT}") from None
    try:
        heads = read_heads(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
    write_whole(folder / NAME, page(whole, heads).encode(), overwrite=True)
    output_console().print(str(folder / NAME), soft_wrap=True)
    return 0
