"""The three bundled dialogues: `python -m loopserve_cli.demo.bundled` writes them again, from fixed seeds.

The same bytes come out each time.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from random import Random
from typing import TypeVar

from loopserve_cli.bundled_files import TRANSCRIPTS, transcripts_folder
from loopserve_cli.demo import language as lang
from loopserve_cli.demo.dialogues import Fact, Turn
from loopserve_cli.demo.planted import Planted

LONG_TOKENS = {"demo:long": 16384, "demo:xlong": 32768}
SEEDS = {"demo": 14, "demo:long": 12, "demo:xlong": 15}
REPORT_SENTENCES = {"demo": 25, "demo:long": 60, "demo:xlong": 80}
CHARACTERS_PER_TOKEN = 4.52
CLOSING_TOKENS = 300  # room for the questions at the end of a long dialogue

Thing = TypeVar("Thing")


def present(thing: Thing | None) -> Thing:
    """What a dialogue was asked for; a seed whose dialogue does not have it is not one to ship."""
    if thing is None:
        raise ValueError("this seed's dialogue lacks a fact or a question of some kind; choose another seed")
    return thing


def short_dialogue() -> list[Turn]:
    """A first look: facts, small talk, two reports, a changed fact, and questions of every kind."""
    planted = Planted(Random(SEEDS["demo"]), count)
    talk, rng = planted.talk, planted.rng

    def told(*facts: Fact) -> Turn:
        return Turn(" ".join(talk.told(fact) for fact in facts), rng.choice(lang.ACKNOWLEDGEMENTS))

    def report() -> Turn:
        text = lang.report(rng, "held_out", REPORT_SENTENCES["demo"])
        return Turn(text, lang.fill(rng.choice(lang.REPORT_REPLIES), rng, "held_out"))

    facts = [talk.new_fact() for _ in range(5)]
    planted.add(told(*facts[:2]))
    planted.add(talk.chat())
    planted.add(told(*facts[2:4]))
    planted.add(report())
    planted.add(talk.ask_fact(facts[1]))
    planted.add(told(facts[4], present(planted.relate())))
    changed = present(talk.update_fact())
    planted.add(told(changed))
    planted.add(report())
    planted.add(talk.ask_fact(facts[0]))
    planted.add(talk.ask_fact(changed))
    planted.add(present(talk.ask_two_hop()))
    planted.add(talk.ask_absent())
    planted.add(present(talk.ask_listing()))
    return planted.turns


def long_dialogue(name: str) -> list[Turn]:
    """Reports and small talk with a few facts and questions, then a run of questions about all parts of it."""
    planted = Planted(Random(SEEDS[name]), count, REPORT_SENTENCES[name], ask_share=0.25, chat_share=0.25)
    planted.grow(LONG_TOKENS[name] - CLOSING_TOKENS)
    questions = planted.fact_questions(6)
    changed = [f for i, f in enumerate(planted.talk.facts) if f.updated and i not in planted.repeated]
    asked = {turn.fact_index for turn in questions}
    fresh = [f for f in changed if planted.talk.facts.index(f) not in asked]
    questions += [planted.talk.ask_fact(f) for f in fresh[:2]]
    questions += [present(planted.talk.ask_two_hop()), planted.talk.ask_absent()]
    for turn in questions:
        planted.add(turn)
    return planted.turns


def transcript(name: str, turns: list[Turn]) -> str:
    """The dialogue in our transcript format; the recorded answers are the true ones."""
    rows: list[dict[str, object]] = [{"loopserve": 1, "id": name, "model": None, "profile": None, "created": None}]
    for turn in turns:
        rows.append({"role": "user", "content": turn.user})
        rows.append({"role": "assistant", "content": turn.assistant})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def count(text: str) -> int:
    """About how many tokens the text has, a little too many: files must not change with a tokenizer's merges."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def write(folder: Path) -> None:
    """Write the three dialogues into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in TRANSCRIPTS.items():
        turns = short_dialogue() if name == "demo" else long_dialogue(name)
        (folder / file).write_text(transcript(name, turns), encoding="utf-8", newline="\n")


def main() -> None:
    """Read the options and write the dialogues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=transcripts_folder(), help="folder to write to")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
