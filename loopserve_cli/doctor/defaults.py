"""What of the user's own stands where a command says nothing."""

from __future__ import annotations

import json
from typing import Any

from loopserve_cli.defaults import defaults_file, read_defaults
from loopserve_cli.doctor.check import Check
from loopserve_cli.errors import UsageError


def defaults_check() -> Check:
    """Where the defaults are read from, and what they are; a wrong one keeps chat from running."""
    file = defaults_file()
    try:
        defaults = read_defaults(file)
    except UsageError as error:
        return Check("defaults", "problem", str(error), "mend the file, or move it away")
    if not defaults.exists:
        return Check("defaults", "ok", f"built-in; those of your own would stand in {file}")
    shown = ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in defaults.values.items())
    return Check("defaults", "ok", f"{file}: {shown or 'sets nothing'}")


def defaults_document() -> dict[str, Any]:
    """The file and its values by key; null values where it is wrong."""
    file = defaults_file()
    try:
        defaults = read_defaults(file)
    except UsageError as error:
        return {"file": str(file), "exists": True, "values": None, "problem": str(error)}
    return {"file": str(file), "exists": defaults.exists, "values": dict(defaults.values), "problem": None}
