"""What the demo model is trained on, and in which order: stages, dialogues, positions, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from loopserve_cli.demo import language as lang
from loopserve_cli.demo import tokenizer as tok
from loopserve_cli.demo.dialogues import Fact, Mix, Talk, Turn, sentence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TALK_WEIGHT = 0.1
ANSWER_WEIGHT = 1.0
# A value's first token is the only one of an answer that takes looking up: the rest is copying on.
LOOK_UP_WEIGHT = 4.0
# Dialogues in which one attribute is told of many people with names alike: without them the model
# learns to match the attribute, and half of the name.
CONFUSABLE_SHARE = 0.5
# Messages that say again, in another order, what was told before. Nothing but the value can be foreseen there, and a
# look-up comes every 12 tokens where a question and its answer need 26: it is what recall is learnt from first.
AGAIN = ("Again: ", "One more time: ", "Remember it all: ")
FACTS_IN_A_MESSAGE = (2, 4, 8)
# Nearly as many questions as facts, each about another one, with ever more talk between them.
MIXES = (
    Mix(fact=1.0, ask=1.6, chat=0.0, report=0.0),
    Mix(fact=0.5, ask=0.8, chat=0.3, report=0.1),
    Mix(fact=0.3, ask=0.5, chat=0.3, report=0.2),
    Mix(fact=0.15, ask=0.25, chat=0.3, report=0.3, sentences=12),
)
MOST_POSITIONS = 40_000


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of training: its sequence lengths (drawn evenly), its penalties, and when it ends.

    It ends after `tokens` tokens, or as soon as the share `recall` of recalled values is right. `drill` is the
    share of dialogues in which facts are told and said again, and hardly anything is asked.
    """

    tokens: int
    lengths: tuple[int, ...]
    drill: float = 0.5
    entropy: float = 0.0
    far: float = 0.0
    jumps: bool = True
    recall: float = 2.0
    tokens_per_step: int = 8192


# Questions come first: they say twice whom they are about, and recall appears sooner than in drills (after 2M tokens
# 66% against 38%). Drills come next, since they ask more often.
STAGES = (
    Stage(12_000_000, (128,), drill=0.0, recall=0.92),
    Stage(1_400_000, (128, 256, 512), drill=0.0, entropy=0.01, far=0.1),
    Stage(6_000_000, (128, 256, 512), entropy=0.03, far=0.3, recall=0.97),
    Stage(8_000_000, (256, 512, 1024), entropy=0.03, far=0.3),
    Stage(10**12, (512, 1024, 2048, 4096), drill=0.4, entropy=0.03, far=0.3),
)


def alike_names(rng: Random, count: int) -> list[str]:
    """Names made of few syllables, so that a half of a name never tells whose it is."""
    firsts = [lang.syllable(rng) for _ in range(count)]
    lasts = [lang.syllable(rng) for _ in range(max(2, count // 2))]
    names = {(first + last).capitalize() for first in firsts for last in lasts}
    known = sorted(name for name in names if not lang.is_held_out(name))
    return rng.sample(known, min(count, len(known))) or [lang.person(rng, "train")]


def new_talk(rng: Random, length: int) -> Talk:
    """A dialogue of about `length` tokens that has not begun: of alike names and few attributes, or of any."""
    mix = rng.choice(MIXES[:2] if length <= 256 else MIXES)
    most_subjects = max(2, length // 48)
    if rng.random() >= CONFUSABLE_SHARE:
        return Talk(rng, mix=mix, most_subjects=most_subjects, each_once=True)
    subjects = alike_names(rng, min(rng.choice((4, 8, 16, 40)), most_subjects))
    attributes = rng.sample(lang.ATTRIBUTES, rng.choice((1, 1, 2, 3)))
    return Talk(rng, mix=mix, subjects=subjects, attributes=attributes, each_once=True)


def say_again(rng: Random, facts: list[Fact]) -> Turn:
    """The user says facts again, as they hold now."""
    text = " ".join(sentence(fact.statement()) for fact in facts)
    return Turn(rng.choice(AGAIN) + text, rng.choice(lang.ACKNOWLEDGEMENTS))


def drill(talk: Talk, length: int) -> Iterator[Turn]:
    """Facts for about 40% of `length` tokens, as dense as the mix has them, then all of them said again, and again."""
    rng, mix = talk.rng, talk.mix
    spare = (mix.chat + mix.report) / (mix.fact + mix.chat + mix.report)
    at_once = [count for count in FACTS_IN_A_MESSAGE if count <= max(2, length // 64)]
    characters = 0
    while characters < 1.8 * length:
        if talk.facts and rng.random() < spare:
            turn = rng.choices((talk.chat, talk.paste), (mix.chat, mix.report))[0]()
        else:
            lines = [talk.told(talk.new_fact()) for _ in range(rng.choice(at_once))]
            if rng.random() < 0.3 and (changed := talk.update_fact()):
                lines.append(talk.told(changed))
            turn = Turn(" ".join(lines), rng.choice(lang.ACKNOWLEDGEMENTS))
        characters += len(turn.user) + len(turn.assistant)
        yield turn
    while True:
        waiting = rng.sample(talk.facts, len(talk.facts))
        while waiting:
            taken = rng.choice(at_once)
            yield say_again(rng, waiting[:taken])
            waiting = waiting[taken:]


def sample_dialogue(
    rng: Random, tokenizer: PreTrainedTokenizerFast, length: int, drilled: bool = False
) -> tuple[list[int], list[float]]:
    """Token ids and loss weights of one training dialogue, exactly `length` + 1 of each."""
    talk = new_talk(rng, length)
    kinds: list[str] = []
    pieces, characters = ["<|bos|>"], 0
    if rng.random() < 0.3:
        pieces.append(f"<|system|>{rng.choice(lang.SYSTEM_PROMPTS)}<|end|>")
    for turn in drill(talk, length) if drilled else talk.turns():
        pieces.append(f"<|user|>{turn.user}<|end|><|assistant|>{turn.assistant}<|end|>")
        kinds.append("again" if turn.user.startswith(AGAIN) else turn.kind)
        characters += len(turn.user) + len(turn.assistant)
        if characters > 4.6 * length:
            break
    ids = tokenizer("".join(pieces), add_special_tokens=False).input_ids[: length + 1]
    short = length + 1 - len(ids)
    return ids + [tok.PAD] * short, weights_of(ids, kinds, tokenizer) + [0.0] * short


def weights_of(ids: list[int], kinds: list[str], tokenizer: PreTrainedTokenizerFast) -> list[float]:
    """The loss weight of every token: answers count, and values said again; their first tokens count most."""
    look_up = tokenizer.convert_tokens_to_ids(["Ġis", "Ġnow"])
    stop = tokenizer.convert_tokens_to_ids(".")
    weights, answering, again, value, before, turn = [], False, False, False, tok.PAD, -1
    for token in ids:
        value = again and (before in look_up or (value and token != stop))
        counts = answering or value
        weights.append((LOOK_UP_WEIGHT if before in look_up else ANSWER_WEIGHT) if counts else TALK_WEIGHT)
        before = token
        if token == tok.USER:
            turn += 1
            again = kinds[turn] == "again"
        elif token == tok.ASSISTANT:
            answering, again = kinds[turn] not in ("talk", "again"), False
        elif token == tok.END:
            answering = again = False
    return weights


def jumping_positions(rng: Random, length: int) -> list[int]:
    """Ascending positions from 0 with a few random jumps, up to `MOST_POSITIONS`."""
    positions = list(range(length))
    room = int((MOST_POSITIONS - length) * rng.random() ** 2)
    if room <= 0 or rng.random() < 0.3:
        return positions
    cuts = sorted(rng.randrange(1, length) for _ in range(rng.randint(1, 6)))
    marks = sorted(rng.randint(0, room) for _ in cuts)
    steps = dict(zip(cuts, marks, strict=True))
    offset = 0
    for index in range(length):
        offset = steps.get(index, offset)
        positions[index] = index + offset
    return positions


def batch_of(rng: Random, tokenizer: PreTrainedTokenizerFast, stage: Stage, device: str) -> tuple[torch.Tensor, ...]:
    """Inputs, labels, loss weights and positions of one step, each [B, length]."""
    length = rng.choice(stage.lengths)
    count = max(1, stage.tokens_per_step // length)
    rows = [sample_dialogue(rng, tokenizer, length, rng.random() < stage.drill) for _ in range(count)]
    ids = torch.tensor([row[0] for row in rows], device=device)
    weights = torch.tensor([row[1] for row in rows], device=device)
    jumping = [jumping_positions(rng, length) if stage.jumps else list(range(length)) for _ in rows]
    return ids[:, :-1], ids[:, 1:], weights[:, 1:], torch.tensor(jumping, device=device)
