"""What the demo model is trained on, and in which order: stages, dialogues, positions, weights."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch

from loopserve_cli.demo import language as lang
from loopserve_cli.demo import tokenizer as tok
from loopserve_cli.demo.dialogues import Mix, Talk

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TALK_WEIGHT = 0.1
ANSWER_WEIGHT = 1.0
# A value's first token is the only one of an answer that takes looking up: the rest is copying on.
LOOK_UP_WEIGHT = 4.0
# Dialogues in which one attribute is told of many people with names alike: without them the model
# learns to match the attribute, and half of the name.
CONFUSABLE_SHARE = 0.5
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

    It ends after `tokens` tokens, or as soon as the share `recall` of recalled values is right.
    """

    tokens: int
    lengths: tuple[int, ...]
    entropy: float = 0.0
    far: float = 0.0
    jumps: bool = True
    recall: float = 2.0
    tokens_per_step: int = 8192


STAGES = (
    Stage(12_000_000, (128,), jumps=False, recall=0.92),
    Stage(3_000_000, (128, 256, 512), entropy=0.01, far=0.1, recall=0.94),
    Stage(6_000_000, (256, 512, 1024), entropy=0.01, far=0.1, recall=0.95),
    Stage(13_500_000, (256, 512, 1024), entropy=0.01, far=0.1),
    Stage(10**12, (512, 1024, 2048, 4096), entropy=0.01, far=0.1),
)


def alike_names(rng: Random, count: int) -> list[str]:
    """Names made of few syllables, so that a half of a name never tells whose it is."""
    firsts = [lang.syllable(rng) for _ in range(count)]
    lasts = [lang.syllable(rng) for _ in range(max(2, count // 2))]
    names = {(first + last).capitalize() for first in firsts for last in lasts}
    known = sorted(name for name in names if not lang.is_held_out(name))
    return rng.sample(known, min(count, len(known))) or [lang.person(rng, "train")]


def sample_dialogue(rng: Random, tokenizer: PreTrainedTokenizerFast, length: int) -> tuple[list[int], list[float]]:
    """Token ids and loss weights of one training dialogue, exactly `length` + 1 of each."""
    mix = rng.choice(MIXES[:2] if length <= 256 else MIXES)
    most_subjects = max(2, length // 48)
    if rng.random() < CONFUSABLE_SHARE:
        subjects = alike_names(rng, min(rng.choice((4, 8, 16, 40)), most_subjects))
        attributes = rng.sample(lang.ATTRIBUTES, rng.choice((1, 1, 2, 3)))
        talk = Talk(rng, mix=mix, subjects=subjects, attributes=attributes, each_once=True)
    else:
        talk = Talk(rng, mix=mix, most_subjects=most_subjects, each_once=True)
    pieces, kinds, characters = ["<|bos|>"], [], 0
    if rng.random() < 0.3:
        pieces.append(f"<|system|>{rng.choice(lang.SYSTEM_PROMPTS)}<|end|>")
    for turn in talk.turns():
        pieces.append(f"<|user|>{turn.user}<|end|><|assistant|>{turn.assistant}<|end|>")
        kinds.append(turn.kind)
        characters += len(turn.user) + len(turn.assistant)
        if characters > 4.6 * length:
            break
    ids = tokenizer("".join(pieces), add_special_tokens=False).input_ids[: length + 1]
    weights, turns, answering, before = [], iter(kinds), False, tok.PAD
    look_up = tokenizer.convert_tokens_to_ids(["Ġis", "Ġnow"])
    for token in ids:
        weights.append((LOOK_UP_WEIGHT if before in look_up else ANSWER_WEIGHT) if answering else TALK_WEIGHT)
        before = token
        if token == tok.ASSISTANT:
            answering = next(turns) != "talk"
        elif token == tok.END:
            answering = False
    short = length + 1 - len(ids)
    return ids + [tok.PAD] * short, weights + [0.0] * short


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
    rows = [sample_dialogue(rng, tokenizer, length) for _ in range(max(1, stage.tokens_per_step // length))]
    ids = torch.tensor([row[0] for row in rows], device=device)
    weights = torch.tensor([row[1] for row in rows], device=device)
    jumping = [jumping_positions(rng, length) if stage.jumps else list(range(length)) for _ in rows]
    return ids[:, :-1], ids[:, 1:], weights[:, 1:], torch.tensor(jumping, device=device)
