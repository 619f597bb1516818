"""The forms in which transformers' `generate` runs here, and which of them was its best: every comparison is with that.

A dynamic cache grows by copies; a static one is full-sized from the start; with a static one the step can be compiled,
which on a GPU is captured as a graph too. On a CPU compiling takes about a minute, so there it is asked for.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from loopserve_cli.bench.generate import COMPILED, GENERATE, STATIC, Generate
from loopserve_cli.errors import ModelError
from loopserve_cli.measure.measured import Measured

FORMS = {GENERATE: "dynamic", STATIC: "static", COMPILED: "static, compiled"}


def generate_forms(model: Any, room: int, compile_asked: bool, say: Callable[[str], None]) -> list[Generate]:
    """`generate` with a dynamic cache, with a static one of `room` tokens, and compiled on a GPU or where asked.

    Raises ModelError where compiling was asked for and cannot be done; on a GPU `say` is told, and it is left out.
    """
    forms = [Generate(model), Generate(model, static=room)]
    if model.device.type == "cpu" and not compile_asked:
        return forms
    compiled = Generate(model, static=room, compiled=True)
    say("compiling transformers' step")
    try:
        compiled.prepare()
    except ModelError as error:
        if compile_asked:
            raise
        say(f"{error}; generate runs with its other caches")
        return forms
    return [*forms, compiled]


def best_form(turns: Sequence[Measured], variants: Sequence[Any]) -> dict[str, Any] | None:
    """The form that took the least time for the prompt and its answer, all of them, and the time of compiling.

    `ms` is the median over the rounds, first to last token; `compile_ms` is in none of them. None without `generate`.
    """
    taken: dict[str, list[float]] = {}
    for record in (turn.record for turn in turns):
        if record.profile in FORMS and record.conversation_id == "prompt" and record.ttft_ms is not None:
            taken.setdefault(FORMS[record.profile], []).append(record.ttft_ms + sum(record.itl_ms))
    if not taken:
        return None
    medians = {form: statistics.median(times) for form, times in taken.items()}
    compiling = [variant.compile_ms for variant in variants if getattr(variant, "compile_ms", None) is not None]
    return {
        "best": min(medians, key=medians.__getitem__),
        "ms": medians,
        "compile_ms": compiling[0] if compiling else None,
    }


def form_lines(generate: dict[str, Any] | None) -> list[str]:
    """What a table says below itself of the forms of `generate`."""
    if generate is None:
        return []
    others = ", ".join(f"{form} {ms:,.0f} ms" for form, ms in generate["ms"].items())
    lines = [f"generate: {generate['best']} is its best here; the prompt and its answer took {others}"]
    if generate["compile_ms"] is not None:
        lines.append(f"generate: compiling took {generate['compile_ms'] / 1e3:.1f} s, which is in no figure")
    return lines
