"""The demo model's small language: names, attributes, values, small talk and pasted reports.

Everything random comes from the `random.Random` that is passed in, so a seed fixes a dialogue.
Names are two syllables; one name in ten is held out of training (`split="held_out"`), which is
what makes the recall measure a measure of reading and not of memory.
"""

from __future__ import annotations

import zlib
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]

CONSONANTS = "bdfghjklmnprstvz"
VOWELS = "aeiou"
HELD_OUT_SHARE = 10

COLOURS = "amber black blue brown coral green grey ivory orange pink purple red silver violet white yellow".split()
ANIMALS = "badger cat crow dog duck falcon fox goat hare horse owl parrot rabbit swan turtle wolf".split()
DRINKS = "cider cocoa coffee juice lemonade milk soda tea tonic water".split()
INSTRUMENTS = "banjo cello drum fiddle flute guitar harp horn lute oboe organ piano trumpet viola".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

NUMBER_3 = ["room", "locker", "desk", "table", "parking space", "bus line", "shelf", "seat"]
NUMBER_4 = ["door code", "phone number", "badge number", "ticket number", "account number", "alarm code"]
WORDS = {
    "favourite colour": COLOURS,
    "pet": ANIMALS,
    "favourite drink": DRINKS,
    "instrument": INSTRUMENTS,
    "day off": DAYS,
    "birth month": MONTHS,
}
PLACES = ["home town", "street", "hotel", "harbour"]
RELATIONS = ["manager", "neighbour", "teacher", "doctor"]
ATTRIBUTES = [*NUMBER_3, *NUMBER_4, *WORDS, *PLACES]
LABEL_ITEMS = "anchor basket candle ladder mirror pencil ribbon saddle teapot wagon".split()

SYSTEM_PROMPTS = [
    "You are a careful assistant with a long memory.",
    "Answer briefly and only from what you were told.",
    "You remember every fact of this conversation.",
]
LEADS = [
    "",
    "",
    "By the way, ",
    "Please note that ",
    "Remember that ",
    "For the record, ",
    "Also, ",
    "One more thing: ",
]
ACKNOWLEDGEMENTS = ["Noted.", "I will remember that.", "Thank you, noted.", "Understood.", "Good to know."]
QUESTIONS = [
    "What is {}?",
    "Tell me {}.",
    "Do you remember {}?",
    "Remind me: what is {}?",
    "Please look up {}.",
    "I forgot {}. What is it?",
]

SMALL_TALK = [
    ("How are you today?", "I am well, thank you. How are you?"),
    ("It is {adjective} outside this {time}.", "Then a {adjective} walk may be just right."),
    ("I had a {adjective} {time}.", "I hope the rest of the day stays {adjective}."),
    ("Do you like {thing}?", "I like to hear about {thing}."),
    ("We talked about {thing} for an hour.", "That sounds like a {adjective} talk."),
    ("The {thing} was {adjective} again.", "I am glad that you told me about the {thing}."),
    ("Let us take a short break.", "Of course. I am here when you come back."),
    ("{name} and {name} sat in the {room} all {time}.", "They must have had a {adjective} time there."),
    ("I saw {name} near the {room}.", "I hope that {name} was well."),
    ("Can you help me with the {thing} later?", "Yes, we can look at the {thing} at any time."),
    ("The train was late this {time}.", "Trains can be {adjective} in {month}."),
    ("I cooked something {adjective} this {time}.", "That sounds {adjective}. I hope that it was good."),
]
REPORT_OPENINGS = [
    "Here is the report of the {office}.",
    "Please read this note from the {office}.",
    "I paste the minutes of the {office} for {month}.",
    "This is the {adjective} summary that the {office} sent on {day}.",
]
REPORT_SENTENCES = [
    "In {month}, the {office} counted {n2} {items} and {n2} {items}.",
    "The {items} were {adjective}, and the {office} was pleased with them.",
    "On {day}, {n2} {items} arrived at the {room} in {adjective} order.",
    "{name} asked whether the {items} could stay in the {room}.",
    "The {office} will meet again in {month} to talk about the {items}.",
    "Nobody could say why the {items} in the {room} were so {adjective}.",
    "About {n2} percent of the {items} were checked twice.",
    "{name} thanked {name} for the {adjective} work on the {items}.",
    "The price of the {items} rose by {n1} percent since {month}.",
    "A {adjective} plan for the {room} was put off until {day}.",
    "The {room} stays closed on {day} while the {items} are moved.",
    "All {items} from {month} were sorted by size and then by age.",
    "The {office} wrote {n1} letters about the {room} without an answer.",
    "It was agreed that the {items} need a {adjective} cover before {month}.",
]
REPORT_REPLIES = [
    "Thank you, I have read it.",
    "I have read the report.",
    "That is a {adjective} report.",
    "Read and understood.",
]
SLOTS: dict[str, list[str]] = {
    "adjective": (
        "bright busy calm careful clear cold dull early fine fresh gentle heavy late long mild plain quiet rough "
        "slow warm"
    ).split(),
    "time": "morning evening afternoon day night week".split(),
    "thing": "garden music weather market journey letter football kitchen radio painting sailing chess".split(),
    "room": "hall cellar library office kitchen workshop garage attic lobby studio".split(),
    "office": [
        "harbour office", "school board", "water works", "city library", "railway office",
        "garden club", "post office", "night shift", "town council", "repair shop",
    ],
    "items": "crates boxes lamps chairs letters pumps ropes bottles tools maps wheels bricks cables".split(),
    "month": MONTHS,
    "day": DAYS,
}  # fmt: skip


def syllable(rng: Random) -> str:
    """One consonant and one vowel."""
    return rng.choice(CONSONANTS) + rng.choice(VOWELS)


def is_held_out(name: str) -> bool:
    """Whether a name is kept from training (a fixed tenth of all names, by checksum)."""
    return zlib.crc32(name.encode()) % HELD_OUT_SHARE == 0


def person(rng: Random, split: Split) -> str:
    """A person's name of the given split."""
    while True:
        name = (syllable(rng) + syllable(rng)).capitalize()
        if is_held_out(name) == (split == "held_out"):
            return name


def place(rng: Random) -> str:
    """A place's name: three syllables, so that it is no person's."""
    return (syllable(rng) + syllable(rng) + syllable(rng)).capitalize()


def digits(rng: Random, count: int) -> str:
    """A number of exactly `count` digits, as text."""
    return "".join([rng.choice("123456789"), *(rng.choice("0123456789") for _ in range(count - 1))])


def value_of(attribute: str, rng: Random) -> str:
    """A random value of the kind the attribute has."""
    if attribute in NUMBER_3:
        return digits(rng, 3)
    if attribute in NUMBER_4:
        return digits(rng, 4)
    if attribute in WORDS:
        return rng.choice(WORDS[attribute])
    return place(rng)


def fill(template: str, rng: Random, split: Split) -> str:
    """A template with every slot drawn at random."""
    out = []
    for piece in template.split("{"):
        slot, brace, rest = piece.partition("}")
        if not brace:
            out.append(piece)
        elif slot == "name":
            out.append(person(rng, split) + rest)
        elif slot in ("n1", "n2"):
            out.append(digits(rng, int(slot[1])) + rest)
        else:
            out.append(rng.choice(SLOTS[slot]) + rest)
    return "".join(out)


def report(rng: Random, split: Split, sentences: int) -> str:
    """A pasted report of an opening and that many sentences."""
    lines = [rng.choice(REPORT_OPENINGS), *(rng.choice(REPORT_SENTENCES) for _ in range(sentences))]
    return " ".join(fill(line, rng, split) for line in lines)
