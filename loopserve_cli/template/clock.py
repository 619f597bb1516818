"""The date that a template writes, held still for a whole dialogue.

Templates ask `strftime_now(format)`, which transformers answers by the clock at every rendering. A dialogue that runs
over midnight would then begin otherwise, and all of it would be rolled back. transformers hands templates plain data
only, so what stands in for the function is a macro before the template, which looks the directives up in a table.
"""

from __future__ import annotations

import itertools
import string
from datetime import datetime

from loopserve_cli.errors import UsageError

ASKED_BY = "strftime_now"
TABLE = "loopserve_clock"
# One line with a newline after it: jinja drops that newline, so the template begins as if nothing stood before it.
MACRO = (
    "{% macro strftime_now(format) %}{% set asked = namespace(text=format) %}"
    "{% for directive, value in loopserve_clock.items() %}"
    "{% set asked.text = asked.text.replace(directive, value) %}{% endfor %}{{ asked.text }}{% endmacro %}\n"
)
FLAGS = ("", "-", "_", "0", "^", "#")
# In place of "%%" while the other directives are looked up.
PERCENT = "\ufdd0"


def table(date: datetime) -> dict[str, str]:
    """Every directive of strftime, and what it is on that date."""
    known = {"%%": PERCENT}
    for flag, letter in itertools.product(FLAGS, string.ascii_letters):
        directive = f"%{flag}{letter}"
        try:
            value = date.strftime(directive)
        except ValueError:  # some platforms refuse what they do not know, others leave it as it is
            continue
        if value != directive and "%" not in value:
            known[directive] = value
    return {**known, PERCENT: "%"}


def parse_date(text: str) -> datetime:
    """A date, perhaps with a time, as ISO 8601 writes it, in local time; raises UsageError for another text."""
    try:
        date = datetime.fromisoformat(text)
        return date if date.tzinfo is None else date.astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError):  # at either end of the calendar another time zone is beyond it
        raise UsageError(f"date {text!r} is no ISO 8601 date, such as 2026-01-31T09:00:00") from None
