"""The page: everything in one file, which asks nothing of anywhere else and runs no code but its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loopserve_cli.measure.report import by_head, by_turn, charts, dialogues
from loopserve_cli.measure.report.facts import command_line, options_rows, profile_facts, rows_of
from loopserve_cli.measure.report.marks import mark
from loopserve_cli.measure.report.packed import packed, source_hash
from loopserve_cli.measure.report.saved import saved
from loopserve_cli.measure.verdict import Verdict
from loopserve_cli.measure.verdict_lines import sentence
from loopserve_cli.measure.verdict_table import LEGEND, known_columns
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from jinja2 import Environment

NAME = "report.html"
MOST_FAILED = 500  # turns that are listed
DRAWN = (
    "conversation_id turn profile repeat model device dtype error tokens_logical ttft_ms tpot_ms keys_read kl_mean "
    "kv_store_device_bytes kv_store_host_bytes working_set_bytes"
).split()


def page(document: Mapping[str, Any], heads: Sequence[Mapping[str, Any]] = ()) -> str:
    """The whole page of a run's document (command, environment, records, summary) and its lines of heads.jsonl."""
    # Only what is drawn: the lists and texts of a hundred thousand records take their time.
    records = [TurnRecord(**{name: row[name] for name in DRAWN if name in row}) for row in document["records"]]
    profiles = list(dict.fromkeys([*document["summary"], *(record.profile or "n/a" for record in records)]))
    by_name = dialogues.by_name(records)
    drawn, known = dialogues.drawn(by_name, profiles, heads)
    shown = dialogues.fitting(drawn)
    failed = [record for record in records if record.error is not None]
    code, library = _source("report.js"), charts.library()
    environment = _environment()
    return environment.get_template(NAME).render(
        title=_title(document, by_name),
        policy=f"default-src 'none'; script-src {source_hash(code)} {library.source}; "
        "style-src 'unsafe-inline'; img-src data: blob:",
        style=_source("report.css"),
        code=code,
        library=library.text,
        data=packed(json.dumps(_data(profiles, shown, known), separators=(",", ":"), ensure_ascii=False)),
        profiles=[(number, name, mark(number)) for number, name in enumerate(profiles)],
        measures=[(measure, measure.key in known) for measure in by_turn.MEASURES],
        shown=shown,
        left_out=len(drawn) - len(shown),
        heat=_heat_profiles(drawn, profiles),
        against=document.get("baseline", {}).get("sentences", []),
        against_context=document.get("baseline", {}).get("context", []),
        failed=failed[:MOST_FAILED],
        failures=len(failed),
        command=command_line(document["command"]),
        options=options_rows(document["command"]),
        facts=profile_facts(document["command"]),
        environment=rows_of(document["environment"]),
        saved=saved(document, heads),
        facts_line=_facts_line(document, records, by_name, profiles),
        **_verdict(document),
    )


def _data(profiles: Sequence[str], shown: Sequence[Mapping[str, Any]], known: set[str]) -> dict[str, Any]:
    """What the page's own code draws from."""
    marks = [mark(number) for number in range(len(profiles))]
    found = [one for dialogue in shown for of_profile in dialogue["heads"] if of_profile for one in of_profile.values()]
    layers = max((len(one["layers"]) for one in found if one), default=0)
    return {
        "profiles": list(profiles),
        "measures": {
            measure.key: {
                "chart": charts.line_chart(measure, marks),
                "axis": measure.axis,
                "title": measure.title,
                "logarithmic": measure.logarithmic,
            }
            for measure in by_turn.MEASURES
            if measure.key in known
        },
        "shares": {
            share.name: {"chart": charts.heat_map(share, layers), "title": share.title, "head": share.heads}
            for share in by_head.SHARES
        },
        "dialogues": list(shown),
    }


def _heat_profiles(
    dialogues: Iterable[Mapping[str, Any]], profiles: Sequence[str]
) -> list[tuple[int, str, list[by_head.Share]]]:
    """The profiles that left something out in some turn, with the shares that say of what."""
    chose: dict[int, set[str]] = {}
    for dialogue in dialogues:
        for number, one in enumerate(dialogue["heads"]):
            if one:
                chose.setdefault(number, set()).update(one)
    return [
        (number, profiles[number], [share for share in by_head.SHARES if share.name in chose[number]])
        for number in sorted(chose)
    ]


def _verdict(document: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences, and the table with its legend, as they are printed."""
    rows = [row["verdict"] for row in document["summary"].values() if row.get("verdict")]
    verdicts = [Verdict.from_json(row) for row in rows]
    verdicts.sort(key=lambda verdict: verdict.against is not None)
    columns = known_columns(verdicts)
    against = next((verdict.against for verdict in verdicts if verdict.against), None)
    return {
        "sentences": [sentence(verdict) for verdict in verdicts if verdict.against is not None],
        "columns": [column.name for column in columns],
        "rows": [(verdict.profile, [column.cell(verdict) for column in columns]) for verdict in verdicts],
        "legend": LEGEND.format(against=against) if against else "",
    }


def _title(document: Mapping[str, Any], dialogues: Mapping[str, object]) -> str:
    name = str(document["command"].get("name", "run"))
    return f"{name} of {next(iter(dialogues))}" if len(dialogues) == 1 else f"{name} of {len(dialogues):,} dialogues"


def _facts_line(
    document: Mapping[str, Any], records: Sequence[TurnRecord], dialogues: Mapping[str, object], profiles: Sequence[str]
) -> list[str]:
    """What was measured, on what, and when: as far as it is known."""
    first = records[0] if records else TurnRecord()
    counts = [
        (len(dialogues), "dialogue"),
        (len(profiles), "profile"),
        (len({record.repeat for record in records}), "repeat"),
        (len(records), "turn"),
    ]
    said = [f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts]
    known = (first.model, first.device, first.dtype, document["environment"].get("timestamp"))
    return [*(str(one) for one in known if one is not None), *said]


def _environment() -> Environment:
    """Templates in which every value is escaped, but those that the template says are ours."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("loopserve_cli.measure.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    from importlib.resources import files

    return files("loopserve_cli.measure.report").joinpath("assets", name).read_text(encoding="utf-8")
