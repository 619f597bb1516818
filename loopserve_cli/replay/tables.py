"""The tables of a replay: by turn, and the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from loopserve_cli.measure.figures import fine, mebibytes, number, percent, signed, whole
from loopserve_cli.measure.spread import median
from loopserve_cli.output import new_table, titled
from loopserve_cli.stats import TurnRecord

Column = tuple[str, Callable[[TurnRecord], float | None], Callable[[float | None], str]]
COLUMNS: tuple[Column, ...] = (
    ("TTFT\nms", lambda r: r.ttft_ms, number),
    ("prefill\ntok/s", lambda r: r.prefill_tokens_per_s, number),
    ("TPOT\nms", lambda r: r.tpot_ms, number),
    ("decode\ntok/s", lambda r: r.decode_tokens_per_s, number),
    ("new\ntokens", lambda r: r.tokens_new, whole),
    ("cached\ntokens", lambda r: r.tokens_cached, whole),
    ("output\ntokens", lambda r: r.tokens_output, whole),
    ("memory\nMiB", lambda r: r.memory_bytes, mebibytes),
)
# Shown where some turn has them: what prefill chose, what decoding read, and how near it is to full attention.
CHOICE_COLUMNS: tuple[Column, ...] = (
    ("density\n%", lambda r: r.density, percent),
    ("covered\n%", lambda r: r.coverage, percent),
    ("verti-\ncals", lambda r: r.lines_vertical, whole),
    ("slashes", lambda r: r.lines_slash, whole),
    ("choose\nms", lambda r: r.select_ms, number),
)
KEPT_COLUMNS: tuple[Column, ...] = (
    ("keys\nread", lambda r: r.keys_read, whole),
    ("chosen\nagain", lambda r: r.reselections, whole),
)
FIDELITY_COLUMNS: tuple[Column, ...] = (
    ("KL", lambda r: r.kl_mean, fine),
    ("NLL\nchange", lambda r: r.nll_change, signed),
    ("agree\n%", lambda r: r.agreement, percent),
    ("parts\nat", lambda r: r.diverged_at, whole),
)


WORDS = ("finish", "error")


def turn_tables(records: Sequence[TurnRecord], repeats: int) -> list[Group]:
    """A table per dialogue, a row per turn and profile; with repeats, medians over them."""
    profiles = list(dict.fromkeys(r.profile for r in records))
    columns = [
        *COLUMNS,
        *(CHOICE_COLUMNS if any(r.chose_lines for r in records) else ()),
        *(KEPT_COLUMNS if any(r.left_keys_out for r in records) else ()),
        *(column for column in FIDELITY_COLUMNS if any(column[1](r) is not None for r in records)),
    ]
    tables = []
    for dialogue in dict.fromkeys(r.conversation_id for r in records):
        of_dialogue = [r for r in records if r.conversation_id == dialogue]
        title = str(dialogue) + (f", medians of {repeats} repeats" if repeats > 1 else "")
        errors = any(r.error for r in of_dialogue)
        rows: list[list[str | Text]] = []
        for turn in sorted({r.turn or 0 for r in of_dialogue}):
            for profile in profiles:
                own = [r for r in of_dialogue if (r.turn or 0) == turn and r.profile == profile]
                if own:
                    cells = [show(median(get(r) for r in own)) for _, get, show in columns]
                    end = [_joined(r.finish_reason for r in own)]
                    end += [_joined(r.error for r in own)] if errors else []
                    rows.append([str(turn), profile or "n/a", *cells, *map(Text, end)])
        heads = ["turn", "profile", *(name for name, _, _ in columns), *WORDS[: 1 + errors]]
        table = new_table(heads, ("profile", *WORDS), rows)
        tables.append(titled(title, table))
    return tables


MEASURES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("TTFT ms", "ttft_ms", number),
    ("TPOT ms", "tpot_ms", number),
    ("ITL ms", "itl_ms", number),
    ("end to end ms", "e2e_ms", number),
    ("prefill tok/s", "prefill_tokens_per_s", number),
    ("decode tok/s", "decode_tokens_per_s", number),
    ("choosing ms", "select_ms", number),
    ("density %", "density", percent),
    ("coverage %", "coverage", percent),
    ("new tokens", "tokens_new", whole),
    ("output tokens", "tokens_output", whole),
    ("device peak MiB", "peak_device_bytes", mebibytes),
    ("resident MiB", "rss_bytes", mebibytes),
    ("KL to full", "kl_mean", fine),
    ("NLL", "nll", number),
    ("NLL change", "nll_change", signed),
    ("agreement %", "agreement", percent),
    ("parts from full at", "diverged_at", whole),
)


CHOICE_MEASURES = ("select_ms", "density", "coverage")


def summary_table(summary: Mapping[str, Mapping[str, Any]]) -> Group:
    """Each measure, profile under profile, over all turns that did not fail; unmeasured ones are left out."""
    counts = ", ".join(f"{name}: {row['turns']} turns, {row['failed']} failed" for name, row in summary.items())
    stats = ("mean", "p50", "p90", "p99")
    # Without a sparse profile, what was chosen says nothing: everything was computed.
    chose = any((row.get("select_ms") or {"mean": 0})["mean"] for row in summary.values())
    shown = [measure for measure in MEASURES if chose or measure[1] not in CHOICE_MEASURES]
    rows = [
        [label, profile, *(show(row[key][stat]) for stat in stats), whole(row[key]["n"])]
        for label, key, show in shown
        for profile, row in summary.items()
        if row.get(key) is not None
    ]
    table = new_table(("measure", "profile", *stats, "n"), ("measure", "profile"), rows)
    return titled(f"summary ({counts})", table)


def _joined(texts: Iterable[str | None]) -> str:
    """The different texts; "n/a" where there is none."""
    return " / ".join(dict.fromkeys(text for text in texts if text)) or "n/a"
