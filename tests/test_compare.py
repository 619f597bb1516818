"""Two runs compared: which turns are paired, what is said of them, what makes them hard to compare, and gates on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loopserve_cli.app import main
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.compare.comparison import Comparison, check_common, compare_runs, paired_names
from loopserve_cli.measure.compare.lines import NOTHING, comparison_lines, context_lines, heading, sentence
from loopserve_cli.measure.compare.past_run import PastRun, read_run
from loopserve_cli.measure.compare.shown import show
from loopserve_cli.measure.compare.table import comparison_markdown, rows
from loopserve_cli.measure.gates import parse_gate
from loopserve_cli.measure.interval import Place
from loopserve_cli.stats import TurnRecord

# Full attention, then a profile: what each takes on its first turn.
TTFT = {"full": 100.0, "fast": 50.0}
TURNS = 6
MEASURED = Path(__file__).parent.parent / "docs" / "measurements"


def turn(profile: str, number: int, repeat: int = 1, **rest: object) -> TurnRecord:
    record = TurnRecord(
        conversation_id="d", profile=profile, turn=number, repeat=repeat, model="m", device="cpu", dtype="float32",
        ttft_ms=TTFT.get(profile, 70.0) * number, tpot_ms=10.0, keys_read=50 * number, keys_stored=100 * number,
        kv_store_device_bytes=2**20, kv_store_host_bytes=0, working_set_bytes=0, output_text=f"answer {number}",
        kl_mean=0.0 if profile == "full" else 0.01, tokens_forced=number, agreement=1.0, tokens_new=9, tokens_cached=0,
    )  # fmt: skip
    return replace(record, **rest)  # type: ignore[arg-type]


def records(*profiles: str, repeats: int = 1) -> list[TurnRecord]:
    return [turn(p, t, r) for p in profiles or TTFT for r in range(1, repeats + 1) for t in range(1, TURNS + 1)]


def past(found: Sequence[TurnRecord], greedy: bool | None = True, **facts: object) -> PastRun:
    return PastRun("a", tuple(found), facts, greedy)


def changed(change: Callable[[TurnRecord], TurnRecord], found: Sequence[TurnRecord] | None = None) -> Comparison:
    """What comes of a change to every record."""
    before = records() if found is None else found
    return compare_runs(past(before), past([change(record) for record in before]))


def slower(by: float, *profiles: str) -> Callable[[TurnRecord], TurnRecord]:
    return lambda r: replace(r, ttft_ms=(r.ttft_ms or 0) * by) if r.profile in profiles else r


def sentences(comparison: Comparison) -> list[str]:
    return [sentence(change, comparison.beside) for change in comparison.changes]


def test_the_same_run_shows_no_difference() -> None:
    comparison = changed(lambda r: r)
    assert sentences(comparison) == [f"full: {NOTHING}", f"fast: {NOTHING}"]
    assert heading(comparison) == "a against a: 12 turns in both"
    assert comparison.changes[1].first_token is not None and comparison.changes[1].first_token.ratio == 1.0


def test_a_slower_profile_is_told_beside_full_which_is_not() -> None:
    full, fast = sentences(changed(slower(1.12, "fast")))
    assert full == f"full: {NOTHING}"
    assert fast == "fast: first token 1.12x slower (1.12 to 1.12; beside full 1.12x slower, 1.12 to 1.12)"


def test_a_machine_slower_as_a_whole_changes_nothing_beside_full() -> None:
    comparison = changed(slower(1.5, "full", "fast"))
    assert sentences(comparison)[0] == "full: first token 1.50x slower (1.50 to 1.50)"
    assert sentences(comparison)[1] == (
        "fast: first token 1.50x slower (1.50 to 1.50; beside full as before, 1.00 to 1.00)"
    )
    beside = comparison.changes[1].first_token_beside
    assert beside is not None
    assert (beside.before, beside.now, beside.change.ratio) == (pytest.approx(2), pytest.approx(2), pytest.approx(1))
    assert comparison.changes[0].first_token_beside is None


def test_without_full_a_time_stands_alone_and_the_reader_is_told_what_helps() -> None:
    comparison = changed(slower(0.5, "fast"), records("fast"))
    assert sentences(comparison) == ["fast: first token 2.00x faster (2.00 to 2.00)"]
    assert "replay with --profile full in both" in " ".join(context_lines(comparison))


def test_what_speed_cost_is_compared_too() -> None:
    def worse(record: TurnRecord) -> TurnRecord:
        if record.profile == "full":
            return record
        said = "another" if record.turn == 2 else record.output_text
        return replace(record, kl_mean=0.03, keys_read=(record.keys_read or 0) // 2, output_text=said, agreement=0.5)

    comparison = changed(worse)
    assert sentences(comparison)[1] == (
        "fast: keys read 2.00x fewer (2.00 to 2.00), KL 0.03, was 0.01 (+0.02 to +0.02), 1 of 6 answers changed"
    )
    fast = comparison.changes[1]
    assert (fast.agreement.before, fast.agreement.now) == (1.0, 0.5)
    assert fast.kl is not None and fast.kl.mean == pytest.approx(0.02) and fast.kl.pairs == TURNS


def test_kl_weighs_turns_by_their_tokens_and_rounding_is_no_change() -> None:
    last = changed(lambda r: replace(r, kl_mean=0.01 + 0.21 * (r.turn == TURNS)), records("fast"))
    assert last.changes[0].kl is not None
    assert last.changes[0].kl.mean == pytest.approx(0.21 * 6 / 21)
    assert last.changes[0].kl_mean.now == pytest.approx(0.01 + 0.21 * 6 / 21)
    tiny = changed(lambda r: replace(r, kl_mean=0.01 + 1e-6), records("fast"))
    assert sentences(tiny) == [f"fast: {NOTHING}"]


def test_sampled_answers_are_not_counted() -> None:
    comparison = compare_runs(past(records(), greedy=False), past(records()))
    assert comparison.changes[0].changed_answers is None
    assert compare_runs(past(records(), greedy=None), past(records())).changes[0].changed_answers == 0


def test_only_turns_that_both_have_and_that_ended_well_are_compared() -> None:
    before = records("fast", repeats=2)
    now = [replace(r, ttft_ms=9e9, error="lost") if r.turn == 3 else r for r in records("fast")]
    now += [turn("fast", 1, conversation_id="new", ttft_ms=1e9)]
    comparison = compare_runs(past(before), past(now))
    assert (comparison.turns, comparison.only_before, comparison.only_now) == (TURNS, TURNS, 1)
    (change,) = comparison.changes
    assert change.turns == TURNS - 1 and (change.failed.before, change.failed.now) == (0, 1)
    assert sentences(comparison) == ["fast: failed turns 1, was 0"]
    assert heading(comparison) == "a against a: 6 turns in both, 6 only in the earlier, 1 only in the later"


def test_turns_of_a_changed_dialogue_with_other_input_are_left_out() -> None:
    other = [replace(r, tokens_new=99, ttft_ms=1e9) if r.turn == 2 else r for r in records("fast")]
    comparison = compare_runs(past(records("fast"), dialogues={"d": "1"}), past(other, dialogues={"d": "2"}))
    assert (comparison.turns, comparison.other_input) == (TURNS - 1, 1)
    assert sentences(comparison) == [f"fast: {NOTHING}"]
    assert [other.text for other in comparison.others if other.incomparable] == [
        "changed, cut elsewhere or of other words: dialogue d"
    ]


def test_profiles_are_paired_by_name_or_as_the_only_other_ones_of_their_kind() -> None:
    assert paired_names(["full", "h2o"], ["h2o", "full", "snapkv"]) == {"h2o": "h2o", "full": "full"}
    assert paired_names(["full", "h2o"], ["h2o+keep.budget=8"]) == {"h2o+keep.budget=8": "h2o"}
    assert paired_names(["h2o"], ["h2o", "h2o+keep.budget=8"]) == {"h2o": "h2o"}
    assert paired_names(["h2o"], ["h2o+keep.budget=8", "h2o+keep.budget=9"]) == {}
    comparison = compare_runs(past(records("fast")), past([replace(r, profile="fast+x.y=1") for r in records("fast")]))
    assert sentences(comparison) == [f"fast+x.y=1 (was fast): {NOTHING}"]
    assert [other.text for other in comparison.others] == ["profile fast is fast+x.y=1 now"]


def test_what_is_not_the_same_is_named_and_another_model_or_device_is_a_warning() -> None:
    facts = {
        "model": {"model": "m", "dtype": "float32", "quant": None, "weights": "1"},
        "device": "cpu",
        "dialogues": {"d": "1", "gone": "2"},
        "profiles": {"fast": {"keep": {"policy": "h2o", "settings": {"budget": 512}}}},
        "settings": {"sampling": {"max_new_tokens": 16}, "device": "auto"},
        "versions": {"torch": "1"},
        "machine": {"cpu": "x", "cuda": None},
        "load": [0.5, 1.0, 1.0],
    }
    other = {
        "model": {"model": "n", "dtype": "bfloat16", "quant": None, "weights": "2"},
        "device": "cuda",
        "dialogues": {"d": "1"},
        "profiles": {"fast": {"keep": {"policy": "h2o", "settings": {"budget": 8}}}},
        "settings": {"sampling": {"max_new_tokens": 32}, "device": "cpu"},
        "versions": {"torch": "2"},
        "machine": {"cpu": "x"},
        "load": [6.5, 1.0, 1.0],
    }
    comparison = compare_runs(past(records(), **facts), past(records("fast"), **other))
    assert [one.text for one in comparison.others] == [
        "model was m and is n",
        "model's dtype was float32 and is bfloat16",
        "device was cpu and is cuda",
        "only the earlier run has dialogue gone",
        "profile fast: keep.budget was 512 and is 8",
        "only the earlier run has full",
        "sampling.max_new_tokens was 16 and is 32",
        "torch was 1 and is 2",
        "the machine's load was 0.500 and is 6.50 as the run began",
    ]
    assert context_lines(comparison)[:3] == [f"warning: {one.text}" for one in comparison.others[:3]]
    weights = facts | {"model": {**facts["model"], "weights": "2"}}  # type: ignore[dict-item]
    assert [one.text for one in compare_runs(past(records(), **facts), past(records(), **weights)).others] == [
        "the model's weights changed"
    ]
    assert not compare_runs(past(records(), **facts), past(records(), device="cpu")).others
    here, there = ({"server": {"url": f"http://{host}/v1", "model": model}} for host, model in (("a", "m"), ("b", "n")))
    found = compare_runs(past(records(), endpoints=here), past(records(), endpoints=there | {"new": {}})).others
    assert [(one.text, one.incomparable) for one in found] == [
        ("endpoint server.url was http://a/v1 and is http://b/v1", False),
        ("endpoint server.model was m and is n", True),
    ]


def test_the_table_holds_every_figure_of_both() -> None:
    comparison = changed(slower(2, "fast"))
    found = list(rows(comparison))
    fast = found[next(place for place, row in enumerate(found) if row[0] == "fast") :]
    assert fast[:3] == [
        ("fast", "first token ms", "175", "350", "2.00x slower (2.00 to 2.00)"),
        ("", "  beside full", "2.00x", "1.00x", "2.00x slower (2.00 to 2.00)"),
        ("", "next tokens ms", "10.0", "10.0", "as before (1.00 to 1.00)"),
    ]
    named = {row[1]: row[2:] for row in fast}
    assert named["KL"] == ("0.01", "0.01", "as before (0 to 0)")
    assert named["keys read"] == ("300", "300", "as before (1.00 to 1.00)")
    assert named["answers"] == ("", "", "0 of 6 changed")
    lines = comparison_markdown(comparison).splitlines()
    assert lines[0] == "| profile | figure | before | now | change |" and len(lines) == 2 + len(found)
    assert all(line.startswith("|") and line.endswith("|") for line in lines)


def test_lines_fold_to_eighty_columns() -> None:
    comparison = changed(lambda r: replace(slower(3, "fast", "full")(r), tpot_ms=20.0, kl_mean=0.5, output_text="no"))
    for width in (80, 40, 200):
        lines = comparison_lines(comparison, width) + context_lines(comparison, width)
        assert max(map(len, lines)) <= min(width, 80)


def test_runs_without_anything_in_common_are_refused() -> None:
    before = past(records("fast"))
    check_common(before, ["fast"], [Place("d", 1, 1)])
    with pytest.raises(UsageError, match="no turn in common; it holds turns of d"):
        check_common(before, ["fast"], [Place("e", 1, 1), Place("d", 2, 1)])
    with pytest.raises(UsageError, match="no profile in common: there fast, here full, other"):
        check_common(before, ["full", "other"], [Place("d", 1, 1)])


def failures(text: str, comparison: Comparison) -> list[str]:
    gate = parse_gate(text, comparison.run.profiles, comparison.baseline.profiles)
    return gate.failures(comparison.run.records, comparison.run.profiles, True, comparison)


def test_a_gate_on_the_baseline_shows_both_numbers() -> None:
    comparison = changed(slower(1.12, "fast"))
    text = "fast.ttft_ms.p50 > 1.05 * baseline.fast.ttft_ms.p50"
    assert failures(text, comparison) == [
        f"gate {text} failed: fast ttft_ms.p50 is 196, baseline fast ttft_ms.p50 is 175, "
        "1.05 * baseline.fast.ttft_ms.p50 is 183.75"
    ]
    assert failures("ttft_ms.p50 > 1.15 * baseline.ttft_ms.p50", comparison) == []
    assert len(failures("ttft_ms.p50 >= baseline.ttft_ms.p50", comparison)) == 2
    assert failures("first_token < baseline.first_token", comparison) == [
        "gate first_token < baseline.first_token failed: fast first_token.ratio is 1.78571, "
        "baseline fast first_token.ratio is 2"
    ]


def test_a_profile_without_an_earlier_one_cannot_pass() -> None:
    now = [*records("fast"), *(replace(r, profile="fast+a.b=1") for r in records("fast"))]
    comparison = compare_runs(past(records("fast")), past(now))
    assert failures("ttft_ms > 2 * baseline.ttft_ms", comparison) == [
        "gate ttft_ms > 2 * baseline.ttft_ms failed: baseline fast+a.b=1 ttft_ms.mean is n/a (not measured)"
    ]


def test_worse_fails_for_times_kl_keys_and_failures_with_both_numbers() -> None:
    assert failures("worse", changed(lambda r: r)) == []
    assert failures("worse", changed(slower(0.5, "full", "fast"))) == []
    assert failures("worse", changed(slower(1.12, "fast"))) == [
        "gate worse failed: fast ttft_ms.p50 is 196, baseline 175: 1.12x slower (1.12 to 1.12)"
    ]
    kl = changed(lambda r: replace(r, kl_mean=0.5 if r.profile == "fast" else 0.0))
    assert failures("worse", kl) == ["gate worse failed: fast kl_mean is 0.5, baseline 0.01: +0.49 (+0.49 to +0.49)"]
    keys = changed(lambda r: replace(r, keys_read=(r.keys_read or 0) * 2) if r.profile == "fast" else r)
    assert failures("worse", keys) == [
        "gate worse failed: fast keys_read is 600, baseline 300: 2.00x more (2.00 to 2.00)"
    ]
    lost = changed(lambda r: replace(r, error="lost" if r.turn == 1 else None))
    assert failures("worse", lost)[0] == "gate worse failed: full failed is 1, baseline 0"
    other = compare_runs(past(records("fast")), past([replace(r, conversation_id="e") for r in records("fast")]))
    assert failures("worse", other) == ["gate worse failed: no turn can be compared with the baseline"]


def test_what_the_later_run_does_not_know_may_be_worse() -> None:
    unknown = changed(lambda r: replace(r, kl_mean=None, tpot_ms=None) if r.profile == "fast" else r)
    for text in ("worse", "worse_beside_full"):
        assert failures(text, unknown) == [
            f"gate {text} failed: fast tpot_ms is n/a, baseline 10.0: what is unknown may be worse",
            f"gate {text} failed: fast kl_mean is n/a, baseline 0.01: what is unknown may be worse",
        ]
    known = [replace(r, kl_mean=None, tpot_ms=None) for r in records()]
    assert failures("worse", compare_runs(past(known), past(records()))) == []


def test_a_run_whose_turns_all_failed_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = changed(lambda r: replace(r, error="lost"))
    assert comparison_lines(comparison)[1:] == ["no turn ended well in both, so nothing is compared"]
    show([comparison], Console(width=80))
    assert "figure" not in capsys.readouterr().out


def test_a_single_turn_has_no_interval() -> None:
    one = [turn("fast", 1)]
    assert heading(changed(lambda r: r, one)) == "a against a: 1 turn in both"
    cells = {name: change for _, name, *_, change in rows(changed(slower(2, "fast"), one))}
    assert cells["first token ms"] == "2.00x slower (one turn: no interval)"
    assert cells["next tokens ms"] == "as before (one turn: no interval)"


def test_an_interval_that_holds_no_change_among_others_does_not_say_as_before() -> None:
    noisy = [0.5, 2.2, 0.9, 1.3, 1.0, 0.8]

    def change(record: TurnRecord) -> TurnRecord:
        by = noisy[(record.turn or 1) - 1]
        return replace(record, ttft_ms=(record.ttft_ms or 0) * by, kl_mean=0.01 * by)

    cells = {name: said for _, name, *_, said in rows(changed(change, records("fast")))}
    assert cells["first token ms"].startswith("no change shown (0.")
    assert cells["KL"].startswith("no change shown (-0.")
    assert cells["keys read"] == "as before (1.00 to 1.00)"


def test_worse_beside_full_lets_a_slow_machine_pass_and_a_slow_profile_not() -> None:
    machine = changed(slower(1.5, "full", "fast"))
    assert len(failures("worse", machine)) == 2 and failures("worse_beside_full", machine) == []
    assert failures("worse_beside_full", changed(slower(1.5, "fast"))) == [
        "gate worse_beside_full failed: fast first token beside full is 1.33x, baseline 2.00x: "
        "1.50x slower (1.50 to 1.50)"
    ]
    with pytest.raises(UsageError, match="one of the runs is without full; replay both with --profile full"):
        parse_gate("worse_beside_full", ["fast"], ["full", "fast"])


def test_two_runs_of_the_same_on_a_busy_machine_seldom_fail_beside_full() -> None:
    """Of 29 repeats that were measured one after another, three in a row against three others in a row."""
    measured = json.loads((MEASURED / "demo-29-repeats-busy-cpu.json").read_text())["records"]

    def starting(first: int) -> PastRun:
        rows = [row for row in measured if first <= row["repeat"] < first + 3]
        turns = [turn(row["variant"], row["turn"], row["repeat"] - first + 1, ttft_ms=row["ttft_ms"]) for row in rows]
        return past(turns)

    starts = [(one, other) for one in range(1, 27, 3) for other in range(1, 27, 3) if one != other]
    failed = {"worse": 0, "worse_beside_full": 0}
    for one, other in starts:
        comparison = compare_runs(starting(one), starting(other))
        assert comparison.turns == 2 * 3 * 13
        for text in failed:
            failed[text] += bool(failures(text, comparison))
    assert failed["worse_beside_full"] < len(starts) / 8 < failed["worse"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("baseline.ttft_ms > 1", "there is no baseline; give --baseline DIR"),
        ("worse", "there is no baseline; give --baseline DIR"),
    ],
)
def test_without_a_baseline_such_a_gate_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gate(text, ["full"])


def test_names_of_the_baseline_are_its_own() -> None:
    with pytest.raises(UsageError, match="'fsat' is not in the baseline; there: full, fast; did you mean fast"):
        parse_gate("baseline.fsat.ttft_ms > 1", ["loop"], ["full", "fast"])
    assert str(parse_gate("baseline.fast.ttft_ms>1", ["loop"], ["fast"]).condition) == "baseline.fast.ttft_ms.mean > 1"  # type: ignore[union-attr]
    assert "baseline" in str(parse_gate("baseline.ttft_ms>1", ["baseline"]))


def kept(folder: Path, found: Sequence[TurnRecord], **run: Any) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(record.to_json()) + "\n" for record in found)
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    if run:
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


def test_a_run_is_read_from_its_folder_its_records_or_its_document(tmp_path: Path) -> None:
    told = {"command": {"options": {"sampling": {"temperature": 0.5}}}, "environment": {"cpu": "x", "loadavg": [1]}}
    folder = kept(tmp_path / "a", records(), **told, fingerprints={"device": "cuda", "profiles": {}})
    run = read_run(folder)
    assert run.records == tuple(records()) and run.profiles == ["full", "fast"] and run.greedy is False
    assert run.facts["device"] == "cuda" and run.facts["machine"] == {"cpu": "x"}
    assert run.facts["model"] == {"model": "m", "dtype": "float32", "quant": None}
    assert read_run(folder / "records.jsonl").facts == run.facts
    moved = (folder / "records.jsonl").rename(tmp_path / "moved.jsonl")
    assert read_run(moved).greedy is None and read_run(moved).facts["device"] == "cpu"
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps({**told, "records": [r.to_json() for r in records("fast")]}) + "\n")
    assert read_run(whole).profiles == ["fast"] and read_run(whole).greedy is False


def test_what_a_kill_left_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = kept(tmp_path / "a", [*records("fast"), turn("fast", 1, ttft_ms=7.0)])
    file = folder / "records.jsonl"
    file.write_bytes(file.read_bytes() + b'{"conversation_id": "d", "tu')
    before = file.read_bytes()
    run = read_run(folder)
    assert len(run.records) == TURNS and run.records[0].ttft_ms == 7.0
    assert file.read_bytes() == before and sorted(path.name for path in folder.iterdir()) == ["records.jsonl"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no run (records.jsonl); give a folder that `loopserve replay --out` wrote"),
        ({"records.jsonl": ""}, "no turn was measured there"),
        ({"records.jsonl": '{"conversation_id": "d'}, "no turn was measured there"),
        ({"records.jsonl": '{"role": "user"}\n'}, "records.jsonl, line 1: is no turn that a replay kept"),
        ({"records.jsonl": "hello\n"}, "records.jsonl, line 1: is no turn that a replay kept"),
        ({"records.jsonl": "[]\n{}\n"}, "records.jsonl, line 1: is no turn that a replay kept"),
        ({"records.jsonl": json.dumps(turn("fast", 1).to_json()) + "\n", "run.json": "{"}, "run.json: is damaged"),
    ],
)
def test_what_is_no_run_is_one_line(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_run(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_is_not_there_brings_the_nearest(tmp_path: Path) -> None:
    kept(tmp_path / "before", records("fast"))
    with pytest.raises(UsageError, match="no such run; give a folder .*; did you mean .*before"):
        read_run(tmp_path / "befor")


def test_the_command_compares_each_later_run_with_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = kept(tmp_path / "a", records()), kept(tmp_path / "b", [slower(2, "fast")(r) for r in records()])
    c = kept(tmp_path / "c", records("fast"))
    assert main(["compare", str(a), str(b), str(c)]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("fast: ")]
    assert [line.partition(" (")[0] for line in said] == [
        "fast: first token 2.00x slower", "fast: first token 2.00x slower", f"fast: {NOTHING}", f"fast: {NOTHING}",
    ]  # fmt: skip
    assert main(["compare", str(a), str(b), "--json", "--fail-if", "worse"]) == 3
    out, err = capsys.readouterr()
    (found,) = json.loads(out)["comparisons"]
    assert (found["baseline"], found["run"], found["turns"]) == (str(a), str(b), 12)
    assert found["profiles"]["fast"]["first_token"]["ratio"] == pytest.approx(0.5)
    assert err == "gate worse failed: fast ttft_ms.p50 is 350, baseline 175: 2.00x slower (2.00 to 2.00)\n"
    assert main(["compare", str(a), str(b), "--markdown", "--fail-if", "fast.first_token < 0.1"]) == 0
    assert capsys.readouterr().out.startswith("| profile | figure |")
    assert main(["compare", str(a), str(c), str(b), "--fail-if", "worse"]) == 3
    assert capsys.readouterr().err.startswith(f"{b}: gate worse failed: fast ttft_ms.p50")
    for wrong in (["compare", str(a)], ["compare", str(a), str(b), "--json", "--markdown"]):
        assert main(wrong) == 2
    assert main(["compare", str(a), str(b), "--fail-if", "nonsense > 1"]) == 2
