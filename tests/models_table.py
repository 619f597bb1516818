"""What loopserve does with every architecture of transformers: python tests/models_table.py > docs/models.md

Each of the installed ones is tried on a tiny random model: three turns with a rewind between them, 40 tokens each,
under full attention and against transformers' own `generate`; then one turn under both phases, to see which layers
take part.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import architectures
import tiny
import torch

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.engine.attention import ATTENTION_NAME, register
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.known_checks import checked
from loopserve_cli.engine.loader import LoadedModel, cache_layers, check_architecture
from loopserve_cli.errors import ModelError
from loopserve_cli.policies.prefill import PrefillTurn
from loopserve_cli.profile import load_profile

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"
TURNS = (30, 1, 17)
ANSWER = 40
NOWHERE = Path("/nonexistent/attention-checks.json")
BOTH = ("prefill.min_new=1", "prefill.min_keys=1", "keep.budget=24", "keep.interval=4")
# What a tiny model cannot be made of, and why.
NOT_TRIED = {
    "dots3_note": "as its text part, dots3_note_text",
    "gemma3n": "as its text part, gemma3n_text; pictures and sound need the package timm",
    "gemma4_assistant": "it drafts for another model, whose keys it reads",
    "gemma4_unified_assistant": "it drafts for another model, whose keys it reads",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One architecture's row. `refusal` is None for one that answers as `generate` does."""

    kind: str
    refusal: str | None = None
    prefill: str = "no"
    compression: str = "no"
    captured: str = "no"

    def row(self) -> str:
        """The row of the table."""
        if self.refusal is not None:
            return f"| {self.kind} | no: {self.refusal} | | | |"
        return f"| {self.kind} | yes | {self.prefill} | {self.compression} | {self.captured} |"


def loaded(kind: str, **options: Any) -> LoadedModel:
    """A tiny random model of the kind; raises ModelError where the loader would."""
    from transformers import AutoConfig

    register()
    check_architecture(AutoConfig.for_model(kind), ModelOptions(kind))
    config = architectures.configuration(kind, **options)
    model = architectures.random_model(config, ATTENTION_NAME)
    layers = cache_layers(config)
    handover = checked(model, layers, kind, None, NOWHERE)
    cpu, ends = torch.device("cpu"), frozenset({2})
    return LoadedModel(model, tiny.tokenizer(), kind, cpu, layers, 4096, ends, handover=handover)


def answer(engine: Engine, ids: list[int]) -> list[int]:
    """The tokens of one greedy turn."""
    return [event.id for event in engine.turn(ids, SamplingOptions(max_new_tokens=ANSWER)) if isinstance(event, Token)]


def generated(reference: Any, ids: list[int]) -> list[int]:
    """What transformers says to the same prompt, from an empty cache."""
    prompt = torch.tensor([ids])
    ends = {"pad_token_id": 0, "eos_token_id": 2}
    with torch.inference_mode():
        said = reference.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=ANSWER, **ends)
    told: list[int] = said[0, len(ids) :].tolist()
    return told


def differing_turn(engine: Engine, reference: Any, turns: tuple[int, ...] = TURNS) -> int | None:
    """The first turn of a dialogue in which engine and `generate` differ; before the last it goes back a third."""
    rng, held = Random(engine.model_name), list[int]()
    for turn, new in enumerate(turns, 1):
        if turn == len(turns):
            del held[len(held) * 2 // 3 :]
            engine.rewind(min(len(held), len(engine.tokens)))
        asked = [rng.randrange(10, 1000) for _ in range(new)]
        ours = answer(engine, held[len(engine.tokens) :] + asked)
        held += asked
        if ours != generated(reference, held):
            return turn
        held += ours
    return None


def verdict(kind: str) -> Verdict:
    """What loopserve does with an architecture; a wrong answer is an AssertionError."""
    try:
        made = loaded(kind)
    except ModelError as error:
        return Verdict(kind, reason(str(error)))
    reference = architectures.random_model(architectures.configuration(kind), "eager")
    reference.generation_config.do_sample = False
    turn = differing_turn(Engine(made, load_profile("full")), reference)
    assert turn is None, f"{kind}: turn {turn} differs from generate"
    engine = Engine(made, load_profile("loopserve").with_overrides(BOTH))
    sparse, answered = watched_turn(engine)
    assert answered, kind
    decode = engine._state.decode
    layers = made.model.config.get_text_config().num_hidden_layers
    return Verdict(kind, None, part(sparse, layers), part(len(decode.layers), layers), captured(decode.captures))


def watched_turn(engine: Engine) -> tuple[int, bool]:
    """One turn under both phases: in how many layers lines were chosen, and whether it answered."""
    begun: list[PrefillTurn] = []
    new_prefill = engine.new_prefill

    def noted() -> PrefillTurn:
        begun.append(new_prefill())
        return begun[-1]

    engine.new_prefill = noted  # type: ignore[method-assign]
    rng = Random(0)
    said = answer(engine, [rng.randrange(10, 1000) for _ in range(90)])
    chose = {call.layer for prefill in begun for call in prefill._calls if call.sums is not None}
    return len(chose), bool(said)


def part(layers: int, of: int) -> str:
    """All layers, some, or none."""
    return "no" if not layers else "yes" if layers == of else "some layers"


def captured(captures: bool) -> str:
    """Whether a step may be captured as a CUDA graph."""
    return "yes" if captures else "no"


def reason(line: str) -> str:
    """A refusal without what every one of them says."""
    told = line.partition("architecture ")[2] or line
    told = told.partition(" ")[2].removesuffix("; use another model")
    return told.removeprefix(": ").removesuffix(", so loopserve cannot run it").replace("|", "/")


def table() -> str:
    """The whole document."""
    import transformers

    rows = [
        Verdict(kind, NOT_TRIED[kind]) if kind in NOT_TRIED else verdict(kind) for kind in architectures.text_kinds()
    ]
    runs = sum(row.refusal is None for row in rows)
    head = HEAD.format(version=transformers.__version__, runs=runs, all=len(rows))
    return head + "".join(f"{row.row()}\n" for row in rows)


HEAD = """# Models

Every causal language model of transformers {version}, tried on a tiny random model of its architecture: {runs} of {all}
answer as transformers' `generate` does, token for token, over turns and rewinds; the others are refused when they are
loaded, in one line. `python tests/models_table.py` writes this table, and a slow test holds it to what is so.

- **full**: full attention equals `generate`.
- **prefill**: sparse prefill takes part. Layers with a sliding window, soft-capped scores, sinks, values of another
  size than keys (MLA) or a mask of their own run dense.
- **compression**: decoding may read chosen keys alone. Not so where a layer attends to something else than its cache
  holds, or has one of the above.
- **captured**: on one GPU, decode steps may be captured as CUDA graphs; not where anything depends on the length.

| architecture | full | prefill | compression | captured |
|---|---|---|---|---|
"""


if __name__ == "__main__":
    from transformers.utils import logging

    logging.set_verbosity_error()
    sys.stdout.write(table())
