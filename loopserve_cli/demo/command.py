"""How the measures of the demo model are run: as modules, with errors in one line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from loopserve_cli.errors import LoopserveError
from loopserve_cli.printable import printable_line


def run(module: str, arguments: Sequence[str] | None, act: Callable[[list[str], str], object]) -> int:
    """The exit code of `act`, which is given the arguments and the command as it would be typed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        act(given, shlex.join(["python", "-m", module, *given]))
    except LoopserveError as error:
        print(f"error: {printable_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {printable_line(str(error))}; check the path and its permissions", file=sys.stderr)
        return 1
    return 0
