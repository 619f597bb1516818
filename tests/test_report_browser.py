"""report.html in a real browser: every figure drawn, nothing asked for, nothing complained of, and records saved."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, program
from report_made import chosen, left_out, made, record
from test_report import HOSTILE

from loopserve_cli.measure.report.marks import mark
from loopserve_cli.measure.report.page import page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="needs Chromium"),
]
PROFILES = ("full", "loopserve", "a-shape", HOSTILE)
DIALOGUES = ("talk", HOSTILE)
HEADS = [
    *(chosen(dialogue, "loopserve", turn, 0.1 * turn) for dialogue in DIALOGUES for turn in (3, 4)),
    chosen("talk", "a-shape", 4, 0.3, coverage=None),
    left_out("talk", HOSTILE, 4, 0.2),
]
# Every figure: its name, its size on the page, and how many lines, markers, error bars and pictures of cells it has.
FIGURES = """[...document.querySelectorAll('.chart')].filter((one) => !one.hidden).map((one) => {
  const box = one.querySelector('.main-svg').getBoundingClientRect();
  const count = (what) => one.querySelectorAll(what).length;
  return {name: one.dataset.measure ?? `${one.dataset.share} ${one.dataset.profile}`,
          wide: box.width, tall: box.height, lines: count('.lines path'), points: count('.points path'),
          bars: count('.errorbar'), cells: count('.hm image')};
})"""
DRAWN = "Number(document.documentElement.dataset.drawn ?? 0)"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return made(PROFILES, DIALOGUES, repeats=3, more=[record(HOSTILE, 5, HOSTILE, error=f"broke {HOSTILE}")])


@pytest.fixture(scope="module")
def address(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(document, HEADS), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    found = program()
    assert found is not None
    browser = Chromium(found, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(running: Chromium, address: str) -> Chromium:
    """A browser that shows the page; its figures are drawn."""
    running.theme("light")
    running.size(1280, 900)
    running.open(address)
    running.until(f"{DRAWN} === 1")
    return running


def choose(browser: Chromium, dialogue: int) -> None:
    """Have the control say another dialogue, and wait until that is drawn."""
    before = browser.of(DRAWN)
    browser.of(f"dialogue.value = '{dialogue}', dialogue.dispatchEvent(new Event('change'))")
    browser.until(f"{DRAWN} > {before}")


def figures(browser: Chromium) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in browser.of(FIGURES)}


def test_every_figure_is_drawn_and_nothing_is_asked_for_or_complained_of(browser: Chromium, address: str) -> None:
    choose(browser, 1)
    found = figures(browser)
    assert list(found) == ["ttft", "tpot", "kv", "keys", "kl", "density 1", "coverage 1", "density 2", "read 3"]
    for one in found.values():
        assert one["wide"] > 400 and one["tall"] > 200
    for name in ("ttft", "tpot", "kv", "keys"):
        assert (found[name]["lines"], found[name]["points"]) == (4, 16), name
    assert (found["kl"]["lines"], found["kl"]["points"]) == (3, 12)  # full is not compared with itself
    assert found["ttft"]["bars"] == 16 and found["kl"]["bars"] == 0  # KL is of one repeat
    assert [found[name]["cells"] for name in ("density 1", "coverage 1", "density 2", "read 3")] == [1] * 4
    assert browser.of("document.querySelector('[data-share=coverage][data-profile=\"2\"] + p').textContent") == (
        "n/a: not measured for fixed patterns"
    )
    assert browser.complaints() == []
    assert {url.partition(":")[0] for url in browser.requests() if url != address} <= {"data", "blob"}


def test_what_others_wrote_does_nothing(browser: Chromium) -> None:
    for dialogue in range(3):
        choose(browser, dialogue)
    assert browser.of("document.querySelectorAll('img').length") == 0
    assert browser.of("document.title") != "ran"
    assert HOSTILE in browser.of("document.querySelector('#dialogue option:nth-child(3)').textContent")
    assert HOSTILE in browser.of("table.textContent")
    choose(browser, 2)
    first = "document.querySelector('[data-measure=ttft]')"
    browser.of(f"Plotly.Fx.hover({first}, [{{curveNumber: 3, pointNumber: 1}}])")
    said = browser.until(f"{first}.querySelector('.hoverlayer .nums')?.textContent")
    assert said == f"{HOSTILE}turn 2 · 200 tokens62.0 (61.0 to 63.0)"
    assert browser.complaints() == []


def test_light_and_dark_differ_and_profiles_keep_their_colours(browser: Chromium) -> None:
    looks = """(() => {
      const one = document.querySelector('[data-measure=ttft]');
      const of = (what, part) => getComputedStyle(one.querySelector(what))[part];
      return [getComputedStyle(document.body).backgroundColor, of('.xtick text', 'fill'), of('.lines path', 'stroke')];
    })()"""
    light = browser.of(looks)
    before = browser.of(DRAWN)
    browser.theme("dark")
    browser.until(f"{DRAWN} > {before}")
    dark = browser.of(looks)
    assert light[0] == "rgb(255, 255, 255)" and dark[0] == "rgb(20, 23, 27)"
    assert light[1] != dark[1]
    first = mark(0).colour
    assert light[2] == dark[2] == f"rgb({', '.join(str(int(first[at : at + 2], 16)) for at in (1, 3, 5))})"


@pytest.mark.parametrize("width", [400, 1280])
def test_a_window_of_any_width_holds_the_page(browser: Chromium, width: int) -> None:
    browser.size(width, 800)
    browser.until(f"[...document.querySelectorAll('.main-svg')].every((one) => one.clientWidth < {width})")
    assert browser.of("document.documentElement.scrollWidth") <= width
    assert all(one["wide"] > 250 for one in figures(browser).values())


def test_a_profile_is_hidden_and_a_scale_changed_by_the_keyboard(browser: Chromium) -> None:
    choose(browser, 1)
    for box, shown in (("input[data-profile='0']", 3), ("#logarithmic", 3)):
        before = browser.of(DRAWN)
        browser.of(f'document.querySelector("{box}").focus()')
        for kind in ("keyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ", windowsVirtualKeyCode=32)
        browser.until(f"{DRAWN} > {before}")
        assert figures(browser)["ttft"]["lines"] == shown
    assert browser.of("document.querySelector('[data-measure=ttft]').layout.yaxis.type") == "log"
    assert browser.of("document.querySelector('[data-measure=kl]').layout.yaxis.type") == "linear"


def test_the_records_are_saved_as_they_are(browser: Chromium, document: dict[str, Any], tmp_path: Path) -> None:
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path), eventsEnabled=True)
    for name in ("records.jsonl", "summary.json", "heads.jsonl"):
        browser.of(f"document.querySelector('[data-save=\"{name}\"]').click()")
        end = time.monotonic() + 30
        while not (tmp_path / name).exists() or not (tmp_path / name).stat().st_size:
            assert time.monotonic() < end, name
            time.sleep(0.05)
    read = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert read == document["records"]
    assert json.loads((tmp_path / "summary.json").read_text())["summary"] == document["summary"]
    assert [json.loads(line) for line in (tmp_path / "heads.jsonl").read_text().splitlines()] == HEADS
