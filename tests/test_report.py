"""report.html: what stands in the page, that nothing in it acts or is fetched, and that a run writes it."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from replay_fakes import FakeEngine, options, transcript
from report_made import chosen, left_out, made, record

from loopserve_cli import app
from loopserve_cli.engine.events import Event, TurnDone
from loopserve_cli.errors import LoopserveError
from loopserve_cli.heads import HeadFigures
from loopserve_cli.measure.figures import number
from loopserve_cli.measure.report import dialogues, middle, saved
from loopserve_cli.measure.report import page as page_module
from loopserve_cli.measure.report.by_turn import MEASURES
from loopserve_cli.measure.report.marks import COLOURS, mark
from loopserve_cli.measure.report.page import page
from loopserve_cli.measure.verdict import verdicts
from loopserve_cli.measure.verdict_lines import sentence
from loopserve_cli.replay import run
from loopserve_cli.stats import TurnRecord

HOSTILE = "</script><img src=x onerror=\"document.title='ran'\">"
MOST_BYTES = 6_000_000


class Page(HTMLParser):
    """A page taken apart: its elements with their attributes, and the text of each table, script and element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self._in: str | None = None
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        self._in = (found.get("id") or "code") if tag == "script" else "style" if tag == "style" else None
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in = None
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in is not None:
            self.scripts[self._in] = self.scripts.get(self._in, "") + data
            return
        self.text += data
        if self._in_cell:
            self.tables[-1][-1][-1] += data.strip()

    def unpacked(self, name: str) -> str:
        return gzip.decompress(base64.b64decode(self.scripts[name])).decode()

    @property
    def data(self) -> Any:
        return json.loads(self.unpacked("data"))


def series(found: Page, measure: str, dialogue: int = 0) -> list[dict[str, Any] | None]:
    return found.data["dialogues"][dialogue]["series"]["measures"][measure]


def test_the_verdict_stands_as_it_is_printed() -> None:
    document = made()
    found = Page(page(document))
    [_, verdict] = verdicts([TurnRecord.from_json(row) for row in document["records"]])
    assert sentence(verdict).startswith("loopserve against full: first token 1.9")
    assert sentence(verdict) in found.text
    header, full, loopserve = found.tables[0]
    assert header[:4] == ["profile", "TTFT ms", "first token", "KV MiB"]
    assert full[:2] == ["full", number(verdict_ttft(document, "full"))]
    assert loopserve[:2] == ["loopserve", number(verdict.ttft_ms)]
    assert dict(zip(header, loopserve, strict=True))["KL"] == "0.0031"


def verdict_ttft(document: dict[str, Any], name: str) -> float:
    return document["summary"][name]["verdict"]["ttft_ms"]


def test_nothing_is_fetched_and_only_code_of_the_page_runs() -> None:
    text = page(made())
    found = Page(text)
    assert len(text.encode()) < MOST_BYTES
    addresses = [value for _, attrs in found.elements for name, value in attrs.items() if name in ("src", "href")]
    assert addresses and all(value and value.startswith("#") for value in addresses)
    [policy] = [a["content"] or "" for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for code in (found.scripts["code"], found.unpacked("library")):
        assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() in policy
    assert "unsafe" not in policy.partition("style-src")[0]


def test_names_and_errors_of_others_are_only_text() -> None:
    failed = record(HOSTILE, 5, HOSTILE, error=f"broke {HOSTILE}")
    document = made(("full", HOSTILE), (HOSTILE, "talk"), more=[failed])
    document["environment"] = {"cpu": HOSTILE}
    document["command"]["argv"] = ["replay", HOSTILE]
    found = Page(page(document, [chosen(HOSTILE, HOSTILE, 1, 0.5)]))
    assert not [tag for tag, _ in found.elements if tag in ("img", "iframe", "object")]
    assert not [name for _, attrs in found.elements for name in attrs if name.startswith("on")]
    assert f"broke {HOSTILE}" in found.text
    assert found.data["dialogues"][1]["name"] == HOSTILE
    assert [tag for tag, _ in found.elements].count("script") == 6


def test_medians_over_repeats_with_what_they_range_over() -> None:
    found = Page(page(made(repeats=3)))
    full, loopserve = series(found, "ttft")
    assert full is not None and loopserve is not None
    assert full["y"] == [112.0, 122.0, 132.0, 142.0]
    assert (full["low"][0], full["high"][0], full["text"][0]) == (111.0, 113.0, "112 (111 to 113)")
    assert loopserve["y"] == [57.0, 62.0, 67.0, 72.0]
    assert found.data["dialogues"][0]["series"]["tokens"] == ["100", "200", "300", "400"]
    kv, keys, kl = (series(found, name) for name in ("kv", "keys", "kl"))
    assert kv[0] and kv[0]["y"] == [1.0, 2.0, 3.0, 4.0]
    assert keys[0] and keys[0]["y"] == [50, 100, 150, 200]
    assert kl[0] is None and kl[1] and kl[1]["text"] == ["0.0012", "0.0025", "0.0037", "0.0049"]


def test_several_dialogues_have_their_own_figures_and_those_of_all() -> None:
    document = made(dialogues=("a", "b", "c"), more=[record("c", 5, "full", ttft_ms=7.0)])
    every, *each = Page(page(document)).data["dialogues"]
    assert [one["name"] for one in each] == ["a", "b", "c"]
    assert (every["name"], every["count"]) == (None, 3)
    assert each[2]["series"]["measures"]["ttft"][0]["y"][-1] == 7.0
    assert every["series"]["turns"] == [1, 2, 3, 4, 5]
    assert every["series"]["measures"]["ttft"][0]["y"] == [111.5, 121.5, 131.5, 141.5, 7.0]


def test_a_run_of_very_many_dialogues_stays_small_and_says_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogues, "MOST", 1_050)
    monkeypatch.setattr(saved, "MOST", 1_000)
    found = Page(page(made(dialogues=[f"talk {n}" for n in range(40)], repeats=1)))
    shown = len(found.data["dialogues"])
    assert 1 < shown < 41
    assert f"{41 - shown} more dialogues are in the records" in found.text
    assert "saved-records.jsonl" not in found.scripts
    assert ("a", {"href": "records.jsonl"}) in found.elements


def test_every_axis_has_a_title_and_a_unit_and_profiles_look_the_same_everywhere() -> None:
    names = ["full", *(f"p{n}" for n in range(9))]
    data = Page(page(made(names, repeats=1))).data
    assert [one["axis"] for one in data["measures"].values()] == [measure.axis for measure in MEASURES]
    for one in data["measures"].values():
        layout, lines = one["chart"]["layout"], one["chart"]["data"]
        assert layout["xaxis"]["title"]["text"] == "turn"
        assert re.search(r"\((ms|MiB|per head|nats)\)$", layout["yaxis"]["title"]["text"])
        assert [line["line"]["color"] for line in lines] == [mark(n).colour for n in range(10)]
        looks = [(line["line"]["dash"], line["marker"]["symbol"]) for line in lines]
        assert len(set(looks)) == len(looks)
    for share in data["shares"].values():
        layout, [cells] = share["chart"]["layout"], share["chart"]["data"]
        assert layout["xaxis"]["title"]["text"] in ("query head", "key-value head")
        assert layout["yaxis"]["title"]["text"] == "layer"
        assert cells["colorbar"]["title"]["text"].endswith("(%)")


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_legible_on_light_and_on_dark() -> None:
    style = Page(page(made())).scripts["style"]
    for name, least in (("--panel", 3.0), ("--back", 3.0)):
        backs = re.findall(rf"{name}: (#\w+)", style)
        assert len(backs) == 2  # one for each theme
        assert all(contrast(colour, back) >= least for colour in COLOURS for back in backs)
    for light, text in zip(*(re.findall(rf"{name}: (#\w+)", style) for name in ("--back", "--muted")), strict=True):
        assert contrast(light, text) >= 4.5


def maps(found: Page) -> list[tuple[str | None, str | None]]:
    """The heat maps of a page: their share, and the number of their profile."""
    return [(a["data-share"], a["data-profile"]) for _, a in found.elements if "data-share" in a]


def test_a_profile_that_left_keys_out_shows_which_share_its_heads_read() -> None:
    heads = [left_out("talk", "snapkv", 3, 0.2), left_out("talk", "snapkv", 4, 0.1)]
    found = Page(page(made(("full", "snapkv")), heads))
    assert found.data["dialogues"][0]["heads"][1] == {"read": {"turns": 2, "layers": [4], "rows": [[15.0, 100.0]]}}
    assert maps(found) == [("read", "1")]
    assert found.data["shares"]["read"]["chart"]["layout"]["xaxis"]["title"]["text"] == "key-value head"


def test_heads_are_means_over_the_turns_that_chose() -> None:
    heads = [chosen("talk", "loopserve", 3, 0.2), chosen("talk", "loopserve", 4, 0.4)]
    found = Page(page(made(), heads))
    full, loopserve = found.data["dialogues"][0]["heads"]
    assert full is None
    assert loopserve == {
        "density": {"turns": 2, "layers": [0, 1], "rows": [[30.0] * 3, [100.0] * 3]},
        "coverage": {"turns": 2, "layers": [0, 1], "rows": [[95.0] * 3, [100.0] * 3]},
    }
    assert maps(found) == [("density", "1"), ("coverage", "1")]
    assert [json.loads(line) for line in found.unpacked("saved-heads.jsonl").splitlines()] == heads


def test_coverage_that_nobody_measured_is_unknown() -> None:
    found = Page(page(made(("full", "a-shape")), [chosen("talk", "a-shape", 1, 0.2, coverage=None)]))
    assert found.data["dialogues"][0]["heads"][1] == {
        "density": {"turns": 1, "layers": [0, 1], "rows": [[20.0] * 3, [100.0] * 3]},
        "coverage": None,
    }


def test_records_and_summary_can_be_taken_out_of_the_page() -> None:
    document = made()
    found = Page(page(document))
    assert [json.loads(line) for line in found.unpacked("saved-records.jsonl").splitlines()] == document["records"]
    assert json.loads(found.unpacked("saved-summary.json")) == {k: v for k, v in document.items() if k != "records"}


def test_command_settings_and_machine_are_told_and_what_is_unknown_is_na() -> None:
    found = Page(page(made()))
    assert "loopserve replay 'a talk.jsonl'" in found.text
    rows = [row for table in found.tables for row in table]
    assert ["keep.policy", "everything"] in rows and ["keep.a", "1"] in rows
    assert ["cpu", "n/a"] in rows and ["versions.torch", "2"] in rows and ["memory_bytes", "1,073,741,824"] in rows
    assert ["sampling.seed", "n/a"] in rows and ["dialogues, history recorded", "1"] in rows


def test_a_measure_that_was_not_taken_has_no_figure() -> None:
    found = Page(page(made(("full",))))
    assert "n/a: not measured in this run" in found.text
    drawn = [attrs["data-measure"] for _, attrs in found.elements if "data-measure" in attrs]
    assert drawn == ["ttft", "tpot", "kv", "keys"]
    assert "One profile: there is none to compare it with." in found.text


def test_failed_turns_are_listed_and_drawn_nowhere() -> None:
    found = Page(page(made(more=[record("talk", 5, "full", ttft_ms=9.0, error="out of memory")])))
    assert ["talk", "5", "full", "1", "out of memory"] in [row for table in found.tables for row in table]
    assert "Failed turns (1)" in found.text and "more failed turns" not in found.text
    assert found.data["dialogues"][0]["series"]["turns"] == [1, 2, 3, 4]


def test_of_very_many_failed_turns_the_page_lists_some_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MOST_FAILED", 2)
    failed = [record("talk", turn, "full", error=f"broke {turn}") for turn in (5, 6, 7)]
    found = Page(page(made(turns=1, more=failed)))
    assert "broke 6" in found.text and "broke 7" not in found.text
    assert "Failed turns (3)" in found.text and "1 more failed turns are in the records" in found.text


@pytest.mark.parametrize(("count", "place"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (25, 8), (100, 40)])
def test_the_medians_interval_is_that_of_the_sign_test(count: int, place: int) -> None:
    assert middle.rank(count) == place
    found = middle.of_repeats(range(count))
    assert (found.low, found.high, found.count) == (place - 1, count - place, count)


class Choosing(FakeEngine):
    """Under `loop` heads choose lines, where somebody keeps that."""

    keeps_heads = False

    def turn(self, *given: Any) -> Any:
        for event in super().turn(*given):
            keeps = self.keeps_heads and self.profile.name == "loop"
            yield self.with_heads(event) if keeps and isinstance(event, TurnDone) else event

    def with_heads(self, event: TurnDone) -> Event:
        return TurnDone(event.record, HeadFigures((0,), ((0.25, 1.0),), ((0.9, 1.0),)))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_writes_its_page_and_what_heads_chose_in_the_first_repeat(tmp_path, capsys) -> None:
    talk = transcript(tmp_path / "talk.jsonl", ("x", [("one", "A1"), ("two", "A2")]))
    out = tmp_path / "out"
    assert run(options(talk, "full", "loop", out=out, repeat=2), lambda given, say: Choosing(given.profiles[0])) == 0
    heads = lines(out / "heads.jsonl")
    assert [(row["profile"], row["repeat"], row["turn"]) for row in heads] == [("loop", 1, 1), ("loop", 1, 2)]
    assert heads[0]["density"] == [[0.25, 1.0]]
    found = Page((out / "report.html").read_text())
    assert found.data["dialogues"][0]["heads"] == [
        None,
        {
            "density": {"turns": 2, "layers": [0], "rows": [[25.0, 100.0]]},
            "coverage": {"turns": 2, "layers": [0], "rows": [[90.0, 100.0]]},
        },
    ]
    assert [json.loads(line) for line in found.unpacked("saved-records.jsonl").splitlines()] == lines(
        out / "records.jsonl"
    )
    assert f"wrote records, summary and report.html to {out}" in capsys.readouterr().err


def test_a_run_that_goes_on_keeps_the_heads_of_both_processes_and_mends_a_torn_line(tmp_path, capsys) -> None:
    talk = transcript(tmp_path / "talk.jsonl", ("x", [("one", "A1"), ("two", "A2"), ("three", "A3")]))
    out = tmp_path / "out"

    def stopped(text: str) -> None:
        if text == "three":
            raise KeyboardInterrupt

    assert run(options(talk, "loop", out=out), lambda given, say: Choosing(given.profiles[0], stopped)) == 130
    assert Page((out / "report.html").read_text()).data["dialogues"][0]["series"]["turns"] == [1, 2]
    with (out / "heads.jsonl").open("a") as file:
        file.write('{"conversation_id": "x", "tu')  # torn by a kill
    assert run(options(talk, "loop", resume=out), lambda given, say: Choosing(given.profiles[0])) == 0
    assert [row["turn"] for row in lines(out / "heads.jsonl")] == [1, 2, 3]
    [dialogue] = Page((out / "report.html").read_text()).data["dialogues"]
    assert dialogue["series"]["turns"] == [1, 2, 3]
    assert dialogue["heads"][0]["density"]["turns"] == 3


@pytest.mark.parametrize(
    ("full", "told"),
    [("heads.jsonl", "the last turn could not be kept: No space left"), ("report.html", "report.html.*No space left")],
)
def test_a_disk_that_is_full_is_one_line(full: str, told: str, tmp_path, monkeypatch, capsys) -> None:
    talk = transcript(tmp_path / "talk.jsonl", ("x", [("one", "A1"), ("two", "A2")]))
    out, real = tmp_path / "out", os.write

    def write(handle: int, data: bytes) -> int:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        if name == full or (full == "report.html" and len(data) > 1_000_000):  # the page alone is that large
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(LoopserveError, match=told):
        run(options(talk, "loop", out=out, json=True), lambda given, say: Choosing(given.profiles[0]))
    assert len(json.loads(capsys.readouterr().out)["records"]) == (1 if full == "heads.jsonl" else 2)
    assert (out / "summary.json").exists() and (out / "report.html").exists() == (full == "heads.jsonl")


def test_without_a_folder_no_heads_are_kept(tmp_path) -> None:
    talk = transcript(tmp_path / "talk.jsonl", ("x", [("one", "A1")]))
    engines: list[Choosing] = []

    def opened(given: Any, say: Any) -> Choosing:
        engines.append(Choosing(given.profiles[0]))
        return engines[0]

    assert run(options(talk, "loop"), opened) == 0
    assert engines[0].keeps_heads is False


def test_the_page_of_a_killed_run_is_made_from_what_it_left(tmp_path, capsys) -> None:
    talk = transcript(tmp_path / "talk.jsonl", ("x", [("one", "A1"), ("two", "A2")]))
    out = tmp_path / "out"
    assert run(options(talk, "full", "loop", out=out), lambda given, say: Choosing(given.profiles[0])) == 0
    whole = Page((out / "report.html").read_text())
    for name in ("summary.json", "summary.csv", "records.csv", "report.html"):
        (out / name).unlink()
    for name in ("records.jsonl", "heads.jsonl"):
        with (out / name).open("a") as file:
            file.write('{"conversation_id": "x", "tu')  # torn by the kill
    capsys.readouterr()
    assert app.main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    again = Page((out / "report.html").read_text())
    assert again.data == whole.data
    assert again.tables[0] == whole.tables[0]


def test_a_folder_without_a_run_has_no_report(tmp_path, capsys) -> None:
    assert app.main(["report", str(tmp_path / "none")]) == 2
    assert "none: no such run; give a folder" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{")
    assert app.main(["report", str(tmp_path)]) == 2
    assert "run.json: is damaged, so there is no report of it" in capsys.readouterr().err
    (tmp_path / "run.json").write_text('{"command": 5}')
    (tmp_path / "records.jsonl").write_text(json.dumps(TurnRecord(turn=1).to_json()) + "\n")
    assert app.main(["report", str(tmp_path)]) == 2
    assert "run.json: is damaged, so there is no report of it" in capsys.readouterr().err
