"""`loopserve report`: makes report.html of a run's folder again, also of a run that was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loopserve_cli.errors import UsageError
from loopserve_cli.measure.compare.past_run import read_run
from loopserve_cli.measure.report.page import NAME, page
from loopserve_cli.measure.run_folder import RUN, SUMMARY, read_heads
from loopserve_cli.replay.document import document
from loopserve_cli.transcript.write import write_whole


def run(folder: Path) -> int:
    """Write the page, and print where it is; raises UsageError for what is no run, holds no turn, or is damaged."""
    from loopserve_cli.output import output_console

    summary = _object(folder / SUMMARY)
    told = {**_object(folder / RUN), **summary}
    records = read_run(folder).records
    if "command" not in told:
        raise UsageError(
            f"{folder}: does not say what was run ({RUN}); give a folder that `loopserve replay --out` wrote"
        )
    whole = summary | document(told["command"], told.get("environment", {}), records)
    try:
        heads = read_heads(folder)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}") from None
    write_whole(folder / NAME, page(whole, heads).encode(), overwrite=True)
    output_console().print(str(folder / NAME), soft_wrap=True)
    return 0


def _object(path: Path) -> dict[str, Any]:
    """The file's object, empty where there is no file; raises UsageError for damage."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: is damaged, so there is no report of it")
    return found
