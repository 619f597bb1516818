"""One figure after the other: what fails says why, and the next is measured all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loopserve_cli.errors import in_a_line

Record = dict[str, Any]


def attempt(facts: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> Record:
    """What `work` measured beside the facts; where it fails, `error` in a line in place of figures."""
    try:
        return {**facts, **work()}
    except Exception as error:  # whatever it is: a machine is being qualified, and the rest is worth knowing
        return {**facts, "error": in_a_line(error)}
