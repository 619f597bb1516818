"""Train the demo model: `python -m loopserve_cli.demo.train --out DIR`.

A Llama of about three million parameters learns, from dialogues made on the fly, to recall what it
was told. Three things make that work on two CPU cores:

* a curriculum by length (128 tokens first: recall appears within a few million tokens, and then carries over);
* positions that jump at random (PoSE, arXiv 2309.10400), so that short sequences show long distances;
* small penalties, on sampled rows, on the entropy of attention and on what the first layer looks for far
  away, so that the heads of this small model are as concentrated, and on as few vertical and slash lines,
  as those of large ones, which is what sparse attention lives on.

Every few minutes a checkpoint is written; the same command goes on from it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from loopserve_cli.demo import language as lang
from loopserve_cli.demo import tokenizer as tok
from loopserve_cli.demo.dialogues import Mix, Talk

TRAINING_ATTENTION = "loopserve_demo_training"
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
RECALL_WINDOW = 3000
ENTROPY_ROWS = 48
# The first layer is to look at its neighbours and at the first tokens, as it does in large models.
NEAR = 64
SINKS = 4
# What is not penalised, in nats and as a share of mass: pressed further, attention becomes so hard that recall suffers.
FREE_ENTROPY = 1.0
FREE_FAR = 0.05
MUON_LR = 3.0
MOST_POSITIONS = 40_000
CHECKPOINT_SECONDS = 90.0


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


def configuration() -> LlamaConfig:
    """The model's shape: 4 layers of 4 query heads of 64 over 2 key-value heads."""
    return LlamaConfig(
        vocab_size=tok.VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=65536,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        tie_word_embeddings=True,
        bos_token_id=tok.BOS,
        eos_token_id=tok.END,
        pad_token_id=tok.PAD,
    )


def training_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    spreads: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention that appends, from sampled rows, the mean entropy and the mean far mass to `spreads`.

    Far mass is what falls neither on the first tokens nor on the nearest `NEAR`; both are scalars.

    No mask function is registered under this name, so transformers neither builds a mask nor takes
    jumping positions for packed sequences (transformers cuts attention at every jump otherwise).
    """
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
    if spreads is not None:
        batch, heads, length, size = query.shape
        rows = torch.randint(length, (ENTROPY_ROWS,), device=query.device)
        sampled = query[:, :, rows].reshape(batch, key.shape[1], -1, ENTROPY_ROWS, size)
        scores = (sampled @ key.unsqueeze(2).transpose(-1, -2)).float() * scaling
        keys = torch.arange(length, device=query.device)
        future = keys > rows[:, None]
        log_p = scores.masked_fill(future, float("-inf")).log_softmax(-1)
        mass = log_p.exp()
        entropy = -(mass * log_p.masked_fill(future, 0.0)).sum(-1)
        far = mass.masked_fill((keys < SINKS) | (keys > rows[:, None] - NEAR), 0.0).sum(-1)
        spreads.append((entropy.mean(), far.mean()))
    return out.transpose(1, 2).contiguous(), None


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


def learning_rate(done: int, total: int, warm: int = 600_000, tail: float = 0.55) -> float:
    """The share of the peak rate: warm up, hold, and fall along a cosine over the last `tail` of all tokens."""
    if done < warm:
        return (done + 1) / warm
    start = (1 - tail) * total
    if done < start:
        return 1.0
    return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - start) / (total - start))))


def batch_of(rng: Random, tokenizer: PreTrainedTokenizerFast, stage: Stage, device: str) -> tuple[torch.Tensor, ...]:
    """Inputs, labels, loss weights and positions of one step, each [B, length]."""
    length = rng.choice(stage.lengths)
    rows = [sample_dialogue(rng, tokenizer, length) for _ in range(max(1, stage.tokens_per_step // length))]
    ids = torch.tensor([row[0] for row in rows], device=device)
    weights = torch.tensor([row[1] for row in rows], device=device)
    jumping = [jumping_positions(rng, length) if stage.jumps else list(range(length)) for _ in rows]
    return ids[:, :-1], ids[:, 1:], weights[:, 1:], torch.tensor(jumping, device=device)


def save_checkpoint(
    path: Path,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    progress: dict[str, int],
    rng: Random,
) -> None:
    """Write the state beside the last one, then replace it, so that a kill loses nothing."""
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]}
    state |= {"progress": progress, "done": progress["done"], "rng": rng.getstate()}
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the model as bfloat16 safetensors with its tokenizer, as transformers reads them."""
    import copy

    half = copy.deepcopy(model).to(torch.bfloat16)
    half.config._attn_implementation = "sdpa"
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_optimizers(model: LlamaForCausalLM, peak: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms.

    After 1.2M tokens, same seed, this had 55% of the digits right where AdamW alone had 30%.
    """
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.98), weight_decay=0.01),
        torch.optim.Muon(matrices, lr=peak * MUON_LR, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]
    return optimizers


def train(out: Path, peak: float, total: int, seed: int, device: str) -> None:
    """Train to `total` tokens, from the checkpoint in `out` if there is one, then export to `out`/model."""
    out.mkdir(parents=True, exist_ok=True)
    AttentionInterface.register(TRAINING_ATTENTION, training_attention)
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(out / "tokenizer")
    model = LlamaForCausalLM._from_config(configuration(), attn_implementation=TRAINING_ATTENTION).to(device)
    optimizers = build_optimizers(model, peak)
    rng, checkpoint = Random(seed), out / "checkpoint.pt"
    progress = {"done": 0, "stage": 0, "in_stage": 0}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False, map_location=device)
        model.load_state_dict(state["model"])
        for optimizer, saved_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
        rng.setstate(state["rng"])
        progress = state["progress"]
    log = (out / "log.jsonl").open("a")
    saved, recalled = time.time(), deque[bool](maxlen=RECALL_WINDOW)
    for step in itertools.count():
        if progress["done"] >= total:
            break
        stage, began = STAGES[progress["stage"]], time.time()
        for optimizer, factor in zip(optimizers, (1.0, MUON_LR), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor * learning_rate(progress["done"], total)
        report = train_step(model, optimizers, stage, batch_of(rng, tokenizer, stage, device))
        recalled.extend(report.pop("recalled"))
        progress["done"] += report["tokens"]
        progress["in_stage"] += report["tokens"]
        recall = sum(recalled) / max(1, len(recalled))
        if step % 20 == 0:
            row = {**progress, "recall": round(recall, 4), **report}
            row["tokens_per_s"] = round(report["tokens"] / (time.time() - began))
            print(json.dumps(row), file=log, flush=True)
        learnt = recall >= stage.recall and len(recalled) == RECALL_WINDOW
        if progress["stage"] + 1 < len(STAGES) and (learnt or progress["in_stage"] >= stage.tokens):
            progress |= {"stage": progress["stage"] + 1, "in_stage": 0}
            recalled.clear()
        if time.time() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(checkpoint, model, optimizers, progress, rng)
            saved = time.time()
    save_checkpoint(checkpoint, model, optimizers, progress, rng)
    export(model, tokenizer, out / "model")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The run's tokenizer: trained once and kept, since a changed word list would change its merges."""
    if not folder.exists():
        tok.build().save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def train_step(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    stage: Stage,
    batch: tuple[torch.Tensor, ...],
) -> dict[str, Any]:
    """One step on one batch; returns its tokens, loss, entropies by layer, and which look-ups were right."""
    inputs, labels, weights, positions = batch
    spreads: list[tuple[torch.Tensor, torch.Tensor]] | None = [] if stage.entropy else None
    with torch.autocast(inputs.device.type, torch.bfloat16):
        logits = model(inputs, position_ids=positions, spreads=spreads, use_cache=False).logits
    losses = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none").view_as(weights)
    loss = (losses * weights).sum() / weights.sum()
    penalised = loss
    if spreads:
        excess = torch.stack([F.relu(entropy - FREE_ENTROPY) for entropy, _ in spreads]).mean()
        penalised = loss + stage.entropy * excess + stage.far * F.relu(spreads[0][1] - FREE_FAR)
    model.zero_grad(set_to_none=True)
    penalised.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    right = (logits.argmax(-1) == labels)[weights == LOOK_UP_WEIGHT]
    return {
        "tokens": inputs.numel(),
        "length": inputs.shape[1],
        "loss": round(float(loss.detach()), 4),
        "entropy": [round(entropy.item(), 2) for entropy, _ in spreads or []],
        "far": [round(far.item(), 3) for _, far in spreads or []],
        "recalled": right.tolist(),
    }


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, the log and the model")
    parser.add_argument("--tokens", type=int, default=42_000_000)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    train(options.out, options.lr, options.tokens, options.seed, options.device)


if __name__ == "__main__":
    main()
