"""Answers questions by reading the user's messages, without the generator's own record of its facts."""

from __future__ import annotations

import re
from collections.abc import Iterable

STATEMENT = re.compile(r"the ([a-z ]+?) of (the [a-z]+|[A-Z][a-z]{3}) is (now )?([A-Za-z0-9]+)\.", re.IGNORECASE)
ABOUT = re.compile(r"the ([a-z ]+?) of (?:the ([a-z]+) of )?(the [a-z]+|[A-Z][a-z]{3})[.?]")
LISTING = re.compile(r"List all that you know of (.+)\.")


def facts_of(said: Iterable[str]) -> dict[tuple[str, str], tuple[str, bool]]:
    """(attribute, subject) -> (latest value, whether it was changed), in the order of first mention."""
    facts: dict[tuple[str, str], tuple[str, bool]] = {}
    for text in said:
        for attribute, subject, now, value in STATEMENT.findall(text):
            facts[attribute.lower(), subject] = (value, bool(now))
    return facts


def answer(said: Iterable[str], question: str) -> str:
    """What a reader of `said` must answer."""
    facts = facts_of(said)

    def state(attribute: str, subject: str) -> str:
        value, changed = facts[attribute, subject]
        return f"the {attribute} of {subject} is {'now ' if changed else ''}{value}"

    if listing := LISTING.fullmatch(question):
        known = [key for key in facts if key[1] == listing[1]]
        return " ".join(f"T{state(*key)[1:]}." for key in known) + " That is all."
    found = ABOUT.search(question)
    assert found, question
    attribute, relation, subject = found.groups()
    if relation:
        other = facts[relation, subject][0]
        return f"T{state(relation, subject)[1:]}, and {state(attribute, other)}."
    if (attribute, subject) not in facts:
        return f"The {attribute} of {subject} is not known to me."
    return f"T{state(attribute, subject)[1:]}."
