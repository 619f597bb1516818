"""`replay --baseline DIR`: the run is compared with an earlier one, which is read before the model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from replay_fakes import FakeEngine, options, transcript

from loopserve_cli.config import ReplayOptions
from loopserve_cli.engine.events import Event, TurnDone
from loopserve_cli.errors import UsageError
from loopserve_cli.replay import run


class Slower(FakeEngine):
    """Takes twice as long for the first token under the profile loop."""

    def turn(self, *given: object) -> Iterator[Event]:
        for event in super().turn(*given):  # type: ignore[arg-type]
            if isinstance(event, TurnDone) and self.profile.name == "loop":
                event = replace(event, record=replace(event.record, ttft_ms=2 * (event.record.ttft_ms or 0)))
            yield event


def never(given: ReplayOptions, say: object) -> FakeEngine:
    raise AssertionError("the model is loaded")


@pytest.fixture
def talk(tmp_path: Path) -> str:
    return transcript(tmp_path / "talk.jsonl", ("talk", [(f"ask {n}", "A") for n in range(6)]))


@pytest.fixture
def before(talk: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(options(talk, "full", "loop", out=tmp_path / "before"), lambda o, say: FakeEngine(o.profiles[0])) == 0
    capsys.readouterr()
    return tmp_path / "before"


def test_what_changed_is_told_after_the_verdict_and_kept(
    talk: str, before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = options(talk, "full", "loop", out=tmp_path / "after", baseline=before, fail_if=("worse",))
    assert run(asked, lambda o, say: Slower(o.profiles[0])) == 3
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("loop against full: first token ")
    said = "loop: first token 2.00x slower (2.00 to 2.00; beside full 2.00x slower, 2.00 to"
    assert lines.count(said) == 2
    assert f"this run against {before}: 12 turns in both" in " ".join(line.strip() for line in lines)
    assert lines[-2:] == [said, "  2.00)"]
    gate = "gate worse failed: loop ttft_ms.p50 is 223, baseline 112: 2.00x slower (2.00 to 2.00)"
    assert err.splitlines()[-1] == gate
    kept = json.loads((tmp_path / "after" / "summary.json").read_text())["baseline"]
    assert (kept["baseline"], kept["turns"], kept["beside"]) == (str(before), 12, "full")
    page = (tmp_path / "after" / "report.html").read_text()
    assert f">{kept['sentences'][-1]}</p>" in page and kept["sentences"][-1].startswith(said)
    assert f">{kept['context'][-1]}</p>" in page
    assert kept["profiles"]["loop"]["first_token"]["ratio"] == pytest.approx(0.5)
    assert kept["profiles"]["full"]["first_token"]["ratio"] == 1.0
    assert kept["not_the_same"] == []


def test_the_document_and_the_markdown_hold_it(talk: str, before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = options(talk, "loop", baseline=before, json=True)
    assert run(asked, lambda o, say: Slower(o.profiles[0])) == 0
    found = json.loads(capsys.readouterr().out)["baseline"]
    assert list(found["profiles"]) == ["loop"] and found["turns"] == 6
    assert [other["text"] for other in found["not_the_same"]] == ["only the earlier run has full"]
    run(options(talk, "full", "loop", baseline=before, markdown=True), lambda o, say: FakeEngine(o.profiles[0]))
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| profile")]
    assert len(heads) == 2 and heads[1] == "| profile | figure | before | now | change |"


def test_a_gate_names_the_baselines_figures(talk: str, before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "loop.ttft_ms.p50 > 1.05 * baseline.loop.ttft_ms.p50"
    asked = options(talk, "full", "loop", baseline=before, fail_if=(text,))
    assert run(asked, lambda o, say: FakeEngine(o.profiles[0])) == 0
    assert run(asked, lambda o, say: Slower(o.profiles[0])) == 3
    assert f"gate {text} failed: loop ttft_ms.p50 is 223, baseline loop ttft_ms.p50 is 111.5" in capsys.readouterr().err


def test_it_is_read_and_checked_before_the_model_is_loaded(talk: str, before: Path, tmp_path: Path) -> None:
    other = transcript(tmp_path / "other.jsonl", ("other", [("ask", "A")]))
    for asked, message in (
        (options(talk, "full", baseline=tmp_path / "nothing"), "no such run"),
        (options(other, "full", baseline=before), "no turn in common; it holds turns of talk"),
        (options(talk, "snap", baseline=before), "no profile in common: there full, loop, here snap"),
        (options(talk, "full", fail_if=("worse",)), "there is no baseline; give --baseline DIR"),
        (options(talk, "loop", baseline=before, fail_if=("worse_beside_full",)), "without full"),
    ):
        with pytest.raises(UsageError, match=message):
            run(asked, never)


def test_a_run_goes_on_with_another_baseline_or_none(talk: str, before: Path, tmp_path: Path) -> None:
    asked = options(talk, "full", "loop", out=tmp_path / "after", baseline=before)
    assert run(asked, lambda o, say: FakeEngine(o.profiles[0])) == 0
    again = replace(asked, out=None, baseline=None, resume=tmp_path / "after")
    assert run(again, lambda o, say: FakeEngine(o.profiles[0])) == 0
