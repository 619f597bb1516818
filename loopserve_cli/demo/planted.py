"""Long dialogues with few facts, each in a known place, and the questions that can be asked of them.

Between the facts stand pasted reports, small talk and now and then a question, as in real dialogues.
Every name comes from the held-out split, so nothing here was seen in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from loopserve_cli.demo import language as lang
from loopserve_cli.demo.dialogues import Fact, Mix, Talk, Turn

FACTS_PER_1K = 3.5
TELLING_RESERVE = 128  # tokens at the end in which nothing new is told, so that no turn is too long
THIRDS = ("front", "middle", "back")


def render(turn: Turn) -> str:
    """The exchange as the demo model's chat template writes it."""
    return f"<|user|>{turn.user}<|end|><|assistant|>{turn.assistant}<|end|>"


def report_sentences(tokens: int) -> int:
    """The most sentences of one report in a dialogue of that many tokens: longer ones have longer reports."""
    return min(48, max(8, tokens // 400))


@dataclass(slots=True)
class Planted:
    """A dialogue under way. `count` is how many tokens a text has.

    What stands between the facts is a question, small talk or else a report, by their shares.
    `places` says at which token each fact was last told; `repeated` holds the facts that an answer has
    said again since, which therefore stand in more than one place.
    """

    rng: Random
    count: Callable[[str], int]
    sentences: int = 8
    ask_share: float = 0.1
    chat_share: float = 0.45
    facts_per_1k: float = FACTS_PER_1K
    tokens: int = 1  # the <|bos|>
    turns: list[Turn] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    talk: Talk = field(init=False)
    _next_fact: float = 0.0

    def __post_init__(self) -> None:
        """Choose the people and attributes of this dialogue."""
        mix = Mix(fact=0.0, ask=0.0, chat=1.0, report=1.0, sentences=self.sentences)
        self.talk = Talk(self.rng, "held_out", mix)

    def add(self, turn: Turn) -> None:
        """Say the turn, and note which facts it told and which it repeated."""
        said, answered = turn.user.lower(), turn.assistant.lower()
        for index, fact in enumerate(self.talk.facts):
            statement = fact.statement().lower()
            if (at := said.find(statement)) >= 0:
                self.places[index] = self.tokens + self.count("<|user|>" + turn.user[:at])
                self.repeated.discard(index)
            if statement[:-1] in answered:
                self.repeated.add(index)
        self.turns.append(turn)
        self.tokens += self.count(render(turn))

    def grow(self, tokens: int) -> None:
        """Go on until the dialogue has about `tokens` tokens, never more."""
        last_telling = tokens - min(TELLING_RESERVE, tokens // 2)
        while True:
            if self.tokens < last_telling and self.tokens >= self._next_fact:
                before = len(self.talk.facts)
                turn = self.tell()
                told = max(1, len(self.talk.facts) - before)
                self._next_fact = self.tokens + told * self.rng.uniform(0.5, 1.5) * 1000 / self.facts_per_1k
                self.add(turn)
                continue
            fitting = next(self._fitting(tokens - self.tokens), None)
            if fitting is None:
                return
            self.add(fitting)

    def _fitting(self, room: int) -> Iterator[Turn]:
        """Turns without new facts that have at most `room` tokens; ends when twenty in a row were too long."""
        for _ in range(20):
            turn = self._filler()
            if self.count(render(turn)) <= room:
                yield turn

    def _filler(self) -> Turn:
        """Small talk, a report, or a question."""
        draw = self.rng.random()
        if draw < self.ask_share and self.talk.facts:
            return self.ask()
        return self.talk.chat() if draw < self.ask_share + self.chat_share else self.talk.paste()

    def tell(self) -> Turn:
        """New facts, a changed one, or who is whose manager; a third of the time inside a report."""
        draw = self.rng.random()
        fact = self.talk.update_fact() if draw < 0.15 else self.relate() if draw < 0.3 else None
        if fact is None:
            return self.talk.tell()
        lines = [self.talk.told(fact)]
        if self.rng.random() < 0.3:
            lines.insert(self.rng.randrange(2), lang.report(self.rng, "held_out", 2))
        return Turn(" ".join(lines), self.rng.choice(lang.ACKNOWLEDGEMENTS))

    def relate(self) -> Fact | None:
        """A fact that leads from one person to another of whom something is known; None if there is none."""
        talk = self.talk
        known = [f.subject for f in talk.facts if f.attribute not in (*lang.RELATIONS, "label")]
        if not known:
            return None
        value, relation = self.rng.choice(known), self.rng.choice(lang.RELATIONS)
        others = [s for s in talk.subjects if s != value and talk.find(relation, s) is None]
        if not others:
            return None
        fact = Fact(relation, self.rng.choice(others), value)
        talk.facts.append(fact)
        return fact

    def ask(self) -> Turn:
        """A question in the middle of the dialogue; half of the time about what was asked before."""
        draw = self.rng.random()
        if draw < 0.1:
            return self.talk.ask_absent()
        if draw < 0.2 and (turn := self.talk.ask_two_hop()):
            return turn
        indices = sorted(self.repeated) if self.repeated and draw < 0.6 else range(len(self.talk.facts))
        return self.talk.ask_fact(self.talk.facts[self.rng.choice(indices)])

    def third(self, index: int) -> str:
        """Where in the dialogue the fact stands: front, middle or back."""
        return THIRDS[min(2, 3 * self.places[index] // self.tokens)]

    def fact_questions(self, most: int) -> list[Turn]:
        """At most `most` questions about facts that stand in one place only, spread over the thirds."""
        groups: dict[str, list[int]] = {name: [] for name in THIRDS}
        for index in self.places:
            if index not in self.repeated:
                groups[self.third(index)].append(index)
        for group in groups.values():
            self.rng.shuffle(group)
        chosen: list[int] = []
        while len(chosen) < most and any(groups.values()):
            chosen += [group.pop() for group in groups.values() if group]
        return [self.talk.ask_fact(self.talk.facts[index]) for index in chosen[:most]]

    def other_questions(self, each: int) -> list[Turn]:
        """Questions about what was not told, through two facts, and for lists: `each` of a kind, all different."""
        turns: dict[str, Turn] = {}
        for ask in (self.talk.ask_absent, self.talk.ask_two_hop, self.talk.ask_listing):
            found: dict[str, Turn] = {}
            for _ in range(4 * each):
                turn = ask()
                if turn is not None and len(found) < each:
                    found.setdefault(turn.assistant, turn)
            turns |= found
        return list(turns.values())
