"""Dialogues in the demo model's language: people state facts, chat, paste reports, and ask.

A `Talk` is one endless dialogue: it remembers what was said, so that its questions have answers.
Training reads it as it comes; the measure and the bundled dialogues plant facts where they want.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from loopserve_cli.demo import language as lang

Kind = Literal["talk", "single", "updated", "absent", "two_hop", "listing"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange. `kind` is "talk" unless the assistant answers a question about the facts."""

    user: str
    assistant: str
    kind: Kind = "talk"
    fact_index: int | None = None


@dataclass(slots=True)
class Fact:
    """What the dialogue says of one attribute of one subject; `value` is the latest."""

    attribute: str
    subject: str
    value: str
    updated: bool = False

    def statement(self) -> str:
        """The fact as it is told, and as it is to be answered, without its first capital."""
        now = "now " if self.updated else ""
        return f"the {self.attribute} of {self.subject} is {now}{self.value}."


@dataclass(frozen=True, slots=True)
class Mix:
    """How often each kind of exchange comes, as weights; `sentences` bounds a pasted report."""

    fact: float
    ask: float
    chat: float
    report: float
    sentences: int = 8


DENSE = Mix(fact=1.0, ask=2.5, chat=0.0, report=0.0)
BUSY = Mix(fact=0.5, ask=1.6, chat=0.3, report=0.15)
NORMAL = Mix(fact=0.25, ask=1.2, chat=0.4, report=0.3)
SPARSE = Mix(fact=0.1, ask=0.9, chat=0.4, report=0.5, sentences=16)
MIXES = (DENSE, BUSY, NORMAL, SPARSE)


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


@dataclass(slots=True)
class Talk:
    """A dialogue under way and all it has said so far."""

    rng: Random
    split: lang.Split = "train"
    mix: Mix = NORMAL
    most_subjects: int = 40
    rarer: tuple[float, float, float] = (0.04, 0.08, 0.04)
    each_once: bool = False
    asked: set[tuple[str, str, str]] = field(default_factory=set)
    subjects: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Choose who and what this dialogue is about: few subjects make it confusable."""
        if not self.subjects:
            count = min(self.rng.choice((2, 3, 5, 8, 16, 40)), self.most_subjects)
            self.subjects = [lang.person(self.rng, self.split) for _ in range(count)]
        if not self.attributes:
            self.attributes = self.rng.sample(lang.ATTRIBUTES, self.rng.choice((2, 4, 8, len(lang.ATTRIBUTES))))

    def find(self, attribute: str, subject: str) -> Fact | None:
        """The fact on this attribute of this subject, if it was told."""
        return next((f for f in self.facts if f.attribute == attribute and f.subject == subject), None)

    def new_fact(self) -> Fact:
        """A fact that was not told yet, recorded as told."""
        for _ in range(20):
            draw = self.rng.random()
            if draw < 0.08:
                attribute, subject = self.rng.choice(lang.RELATIONS), self.rng.choice(self.subjects)
                value = self.rng.choice(self.subjects)
            elif draw < 0.12:
                attribute, subject = "label", f"the {self.rng.choice(lang.LABEL_ITEMS)}"
                value = self.rng.choice("ABCDEFGHKM") + self.rng.choice("0123456789")
            else:
                attribute, subject = self.rng.choice(self.attributes), self.rng.choice(self.subjects)
                value = lang.value_of(attribute, self.rng)
            if subject != value and self.find(attribute, subject) is None:
                break
        else:
            subject = lang.person(self.rng, self.split)
            while self.find(attribute := self.rng.choice(lang.ATTRIBUTES), subject) is not None:
                subject = lang.person(self.rng, self.split)
            self.subjects.append(subject)
            value = lang.value_of(attribute, self.rng)
        fact = Fact(attribute, subject, value)
        self.facts.append(fact)
        return fact

    def update_fact(self) -> Fact | None:
        """An earlier fact with a new value, once per fact; None when there is none to change."""
        open_facts = [f for f in self.facts if not f.updated and f.attribute not in (*lang.RELATIONS, "label")]
        if not open_facts:
            return None
        fact = self.rng.choice(open_facts)
        old = fact.value
        while fact.value == old:
            fact.value = lang.value_of(fact.attribute, self.rng)
        fact.updated = True
        return fact

    def told(self, fact: Fact) -> str:
        """A sentence that tells the fact."""
        return sentence(self.rng.choice(lang.LEADS) + fact.statement())

    def tell(self) -> Turn:
        """The user states one to three facts, now and then a changed one."""
        lines = []
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            fact = self.update_fact() if self.rng.random() < 0.1 else None
            lines.append(self.told(fact or self.new_fact()))
        if self.rng.random() < 0.2 and self.mix.report:
            lines.insert(self.rng.randrange(len(lines) + 1), lang.report(self.rng, self.split, 1))
        return Turn(" ".join(lines), self.rng.choice(lang.ACKNOWLEDGEMENTS))

    def question(self, about: str) -> str:
        """A question about "the room of Miro"."""
        return self.rng.choice(lang.QUESTIONS).format(about)

    def ask_fact(self, fact: Fact) -> Turn:
        """A question about one fact, and its answer."""
        about = f"the {fact.attribute} of {fact.subject}"
        return Turn(
            self.question(about),
            sentence(fact.statement()),
            "updated" if fact.updated else "single",
            self.facts.index(fact),
        )

    def ask_absent(self) -> Turn:
        """A question about something that nobody said."""
        while True:
            attribute = self.rng.choice(lang.ATTRIBUTES)
            known = self.rng.random() < 0.5
            subject = self.rng.choice(self.subjects) if known else lang.person(self.rng, self.split)
            if self.find(attribute, subject) is None:
                about = f"the {attribute} of {subject}"
                return Turn(self.question(about), sentence(f"{about} is not known to me."), "absent")

    def ask_two_hop(self) -> Turn | None:
        """A question through a person: "the room of the manager of Miro"; None if no fact allows it."""
        for first in self.rng.sample(self.facts, min(len(self.facts), 30)):
            if first.attribute in lang.RELATIONS:
                seconds = [f for f in self.facts if f.subject == first.value]
                if seconds:
                    second = self.rng.choice(seconds)
                    user = self.question(f"the {second.attribute} of the {first.attribute} of {first.subject}")
                    answer = f"{sentence(first.statement())[:-1]}, and {second.statement()}"
                    return Turn(user, answer, "two_hop", self.facts.index(second))
        return None

    def ask_listing(self) -> Turn | None:
        """A question for all that is known of one subject; None when too much or nothing is."""
        subject = self.rng.choice(self.facts).subject
        of_subject = [f for f in self.facts if f.subject == subject]
        if len(of_subject) > 4:
            return None
        answer = " ".join(sentence(f.statement()) for f in of_subject)
        return Turn(f"List all that you know of {subject}.", f"{answer} That is all.", "listing")

    def ask(self) -> Turn:
        """A question of any kind; most are about single facts."""
        draw = self.rng.random()
        turn = None
        absent, two_hop, listing = self.rarer
        if draw < absent:
            turn = self.ask_absent()
        elif draw < absent + two_hop:
            turn = self.ask_two_hop()
        elif draw < absent + two_hop + listing:
            turn = self.ask_listing()
        if turn is not None:
            return turn
        if not self.each_once:
            return self.ask_fact(self.rng.choice(self.facts))
        # Asked again, a fact is found in the answer before: that teaches nothing about looking far back.
        waiting = [f for f in self.facts if (f.attribute, f.subject, f.value) not in self.asked]
        if not waiting:
            return self.tell()
        fact = self.rng.choice(waiting)
        self.asked.add((fact.attribute, fact.subject, fact.value))
        return self.ask_fact(fact)

    def chat(self) -> Turn:
        """Small talk."""
        user, assistant = self.rng.choice(lang.SMALL_TALK)
        return Turn(lang.fill(user, self.rng, self.split), lang.fill(assistant, self.rng, self.split))

    def paste(self) -> Turn:
        """The user pastes a report."""
        text = lang.report(self.rng, self.split, self.rng.randint(1, self.mix.sentences))
        return Turn(text, lang.fill(self.rng.choice(lang.REPORT_REPLIES), self.rng, self.split))

    def turns(self) -> Iterator[Turn]:
        """The dialogue, without end; it opens with facts, so that there is something to ask."""
        yield self.tell()
        mix = self.mix
        kinds, weights = (self.tell, self.ask, self.chat, self.paste), (mix.fact, mix.ask, mix.chat, mix.report)
        while True:
            yield self.rng.choices(kinds, weights)[0]()
