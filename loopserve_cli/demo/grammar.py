"""Whether the demo model was taught to read a text: a user's sentences in its language, as patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from loopserve_cli.demo import language as lang

SYLLABLE = f"[{lang.CONSONANTS}][{lang.VOWELS}]"
CAPITAL = f"[{lang.CONSONANTS.upper()}][{lang.VOWELS}]"
NAME = CAPITAL + SYLLABLE
PLACE = NAME + SYLLABLE
LABEL = "[ABCDEFGHKM][0-9]"
SLOT = re.compile(r"\{(\w*)\}")
# What a person's line may end without.
STOPS = ".?"


def outside(text: str) -> str | None:
    """The first part of a user's text that the model was not taught to read, or None where it was taught all of it.

    That is a word that it never saw, and else a sentence that is like none it saw.
    """
    text, sentence, place = text.strip(), _sentence(), 0
    while place < len(text):
        found = sentence.match(text, place)
        if found is None:
            rest = re.split(r"(?<=[.?!])\s|\n", text[place:], maxsplit=1)[0]
            return _strange_word(rest) or rest
        place = found.end()
    return None


def capitalised(text: str) -> str:
    """The text with a capital at the beginning of every sentence."""
    return re.sub(r"(^|[.?!]\s+)([a-z])", lambda found: found[1] + found[2].upper(), text.strip())


def _strange_word(sentence: str) -> str | None:
    """The first word that the model never saw: it knows its words, names and places of some shapes, and numbers."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", sentence)
    known = re.compile(rf"{NAME}|{PLACE}|{LABEL}|\d{{1,4}}")
    return next((word for word in words if word.lower() not in _words() and not known.fullmatch(word)), None)


@lru_cache(1)
def _words() -> frozenset[str]:
    """Every word of the language but names, in small letters."""
    texts = [*lang.LEADS, *lang.QUESTIONS, *lang.REPORT_OPENINGS, *lang.REPORT_SENTENCES, "List all that you know of"]
    texts += [user for user, _ in lang.SMALL_TALK] + [*lang.ATTRIBUTES, *lang.RELATIONS, *lang.LABEL_ITEMS, "the label"]
    texts += ["is now", *(word for words in (*lang.WORDS.values(), *lang.SLOTS.values()) for word in words)]
    return frozenset(re.findall(r"[a-z]+", SLOT.sub(" ", " ".join(texts)).lower()))


@lru_cache(1)
def _sentence() -> re.Pattern[str]:
    """One sentence of a user, and the space after it."""
    statements = [f"the {attribute} of {NAME} is (?:now )?{_value(attribute)}" for attribute in lang.ATTRIBUTES]
    statements += [
        f"the {_any(lang.RELATIONS)} of {NAME} is {NAME}",
        f"the label of the {_any(lang.LABEL_ITEMS)} is {LABEL}",
    ]
    leads = [re.escape(lead) for lead in dict.fromkeys(lang.LEADS) if lead]
    told = "|".join(statements)
    facts = rf"(?:{'|'.join(leads)})(?:{told})\.?|(?:{_capital(told)})\.?"
    things = rf"the (?:{_any([*lang.ATTRIBUTES, *lang.RELATIONS])} of (?:the {_any(lang.RELATIONS)} of )?{NAME}"
    about = rf"{things}|label of the {_any(lang.LABEL_ITEMS)})"
    asked = [_open_end(_slots(question.format("{about}"), about)) for question in lang.QUESTIONS]
    talk = [user for user, _ in lang.SMALL_TALK] + [*lang.REPORT_OPENINGS, *lang.REPORT_SENTENCES]
    others = [_open_end(_slots(text, about)) for text in talk]
    listing = rf"List all that you know of (?:{NAME}|the {_any(lang.LABEL_ITEMS)})\.?"
    return re.compile(rf"\s*(?:{'|'.join([facts, *asked, *others, listing])})(?:\s+|$)")


def _value(attribute: str) -> str:
    """What an attribute's value looks like."""
    if attribute in lang.NUMBER_3:
        return "[1-9][0-9]{2}"
    if attribute in lang.NUMBER_4:
        return "[1-9][0-9]{3}"
    return _any(lang.WORDS[attribute]) if attribute in lang.WORDS else PLACE


def _slots(template: str, about: str) -> str:
    """A template as a pattern: its words as they are, its slots as what may stand in them."""
    fills = {"name": NAME, "n1": "[1-9]", "n2": "[1-9][0-9]", "about": about}
    parts = SLOT.split(template)
    words = [re.escape(part) for part in parts[::2]]
    slots = [fills.get(name) or _any(lang.SLOTS[name]) for name in parts[1::2]]
    return "".join(word + slot for word, slot in zip(words, [*slots, ""], strict=True))


def _any(choices: Iterable[str]) -> str:
    return "(?:" + "|".join(map(re.escape, choices)) + ")"


def _capital(statements: str) -> str:
    """Statements that all begin with "the", with a capital."""
    return re.sub(r"(^|\|)the ", r"\1The ", statements)


def _open_end(pattern: str) -> str:
    """The pattern, whose last full stop or question mark may be left out."""
    end = pattern[-1]
    assert end in STOPS
    return pattern.removesuffix("\\" + end) + f"\\{end}?"
