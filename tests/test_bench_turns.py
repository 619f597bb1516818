"""The turns benchmark: order, warm-up, ratios, the comparison of tokens, and a real run on a tiny model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from replay_fakes import ByteTokenizer
from rich.console import Console

from loopserve_cli import app
from loopserve_cli.bench import TurnsOptions, run_turns
from loopserve_cli.bench.comparison import Comparison
from loopserve_cli.bench.comparison_tables import landmarks, print_comparison
from loopserve_cli.bench.recorded import RecordedTurn, recorded_turns
from loopserve_cli.bench.rounds import time_recorded, time_rounds
from loopserve_cli.bench.summary import (
    FLOOR,
    first_difference,
    summarise,
    verdicts_of,
    verdicts_on_ours,
    with_agreement,
)
from loopserve_cli.bench.tables import agreement_line, parts_table, print_tables, prompt_table, ratio_cell
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.times import token_times
from loopserve_cli.errors import UsageError
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.spread import spread
from loopserve_cli.measure.verdict import Verdict
from loopserve_cli.profile import profile_names
from loopserve_cli.stats import TurnRecord


class FakeVariant:
    """Answers with ids 100, 101, ...; notes what it was asked in a list that all variants share."""

    def __init__(self, name: str, log: list[str], dialogues: bool = True) -> None:
        self.name = name
        self.dialogues = dialogues
        self.log = log
        self.held: list[int] = []
        self.prompts: list[list[int]] = []

    def reset(self) -> None:
        self.held = []

    def turn(self, ids: list[int], new_tokens: int) -> Measured:
        cached = len(self.held)
        assert cached == 0 or len(self.prompts[-1]) < len(ids), "a run starts empty"
        assert ids[:cached] == self.held
        self.log.append(self.name)
        self.prompts.append(ids)
        output = list(range(100, 100 + new_tokens))
        self.held = ids + output[:-1]
        record = TurnRecord(tokens_new=len(ids) - cached, tokens_cached=cached, ttft_ms=10.0)
        return Measured(replace(record, tpot_ms=1.0, itl_ms=[1.0] * (new_tokens - 1)), tuple(output))


def timing(variant: str, number: int, ttft: float, output: list[int] | None = None, task: str = "prompt") -> Measured:
    place = TurnRecord(conversation_id=task, profile=variant, repeat=number, turn=1)
    made = replace(place, tokens_new=100, tokens_cached=0, ttft_ms=ttft, tpot_ms=3.0, itl_ms=[2.0, 4.0])
    return Measured(made, tuple(output or [1, 2, 3]))


def records_of(turns: list[Measured]) -> list[TurnRecord]:
    return [turn.record for turn in turns]


def test_variants_alternate_and_the_first_to_go_changes():
    log: list[str] = []
    variants = [FakeVariant("loopserve", log), FakeVariant("other", log)]
    time_rounds(variants, [1, 2, 3, 4], new_tokens=3, turns=1, rounds=2, say=lambda text: None)
    a, b = "loopserve", "other"
    assert log == [a, b, a, b] + [b, a, b, a] + [a, b, a, b]


def test_the_warm_up_round_is_full_size_said_and_left_out():
    said: list[str] = []
    variants = [FakeVariant("loopserve", [])]
    timings = time_rounds(variants, [1, 2, 3, 4], new_tokens=3, turns=2, rounds=2, say=said.append)
    assert [(r.repeat, r.conversation_id, r.turn) for r in records_of(timings)] == [
        (1, "prompt", 1), (1, "dialogue", 1), (1, "dialogue", 2),
        (2, "prompt", 1), (2, "dialogue", 1), (2, "dialogue", 2),
    ]  # fmt: skip
    assert len(variants[0].prompts) == 9
    assert said[0].startswith("warm-up")


def test_a_dialogue_grows_by_its_own_answers_and_feeds_only_what_is_new():
    variant = FakeVariant("loopserve", [])
    timings = time_rounds([variant], [1, 2, 3, 4, 5], new_tokens=2, turns=2, rounds=1, say=lambda text: None)
    assert variant.prompts[-2:] == [[1, 2], [1, 2, 100, 101, 3, 4, 5]]
    # Of the first answer's two tokens the last is not held yet, so it is fed with the second turn.
    assert [(r.tokens_new, r.tokens_cached) for r in records_of(timings)[-2:]] == [(2, 0), (4, 3)]


def test_a_variant_may_sit_the_dialogue_out():
    log: list[str] = []
    variants = [FakeVariant("loopserve", log), FakeVariant("static", log, dialogues=False)]
    timings = time_rounds(variants, [1, 2], new_tokens=2, turns=2, rounds=1, say=lambda text: None)
    assert {r.profile for r in records_of(timings) if r.conversation_id == "dialogue"} == {"loopserve"}
    assert {r.profile for r in records_of(timings) if r.conversation_id == "prompt"} == {"loopserve", "static"}


def test_stamps_become_ttft_and_gaps():
    made = token_times([250, 260, 290], 290)
    assert (made["ttft_ms"], made["itl_ms"], made["tpot_ms"]) == (250, [10, 30], 20)


def test_ratios_are_taken_round_by_round():
    timings = [timing("loopserve", 1, 10), timing("other", 1, 30), timing("loopserve", 2, 100), timing("other", 2, 50)]
    row = summarise(timings)["prompt"]
    assert row["other"]["ttft_ratio"] == {"median": 1.75, "low": 0.5, "high": 3.0}
    assert row["other"]["tpot_ratio"]["median"] == 1.0
    assert row["loopserve"]["ttft_ratio"] is None
    assert row["loopserve"]["ttft_ms"] == {"median": 55, "low": 10, "high": 100}
    assert list(row) == ["loopserve", "other"]
    assert [column.header for column in prompt_table(row).columns] == ["", "TTFT ms", "ratio", "TPOT ms", "ratio"]


def rounds_of(variant: str, times: list[float], task: str = "dialogue") -> list[Measured]:
    return [timing(variant, number, ttft, task=task) for number, ttft in enumerate(times, start=1)]


def test_a_ratio_has_its_interval_and_a_sign_where_that_shows_nothing():
    clear = rounds_of("loopserve", [10.0] * 5, "prompt") + rounds_of("other", [19.0, 21.0, 20.0, 20.5, 19.5], "prompt")
    row = summarise(clear)["prompt"]["other"]
    assert 1.8 < row["ttft_interval"]["low"] < 2 < row["ttft_interval"]["high"] < 2.2
    assert row["ttft_interval"]["pairs"] == 5 and row["ttft_interval"]["ratio"] == pytest.approx(2, abs=0.01)
    assert ratio_cell(row, "ttft").startswith("2.00 (1.9") and ratio_cell(row, "tpot") == "~1.00 (1.00 to 1.00)"
    once = summarise(rounds_of("loopserve", [10.0], "prompt") + rounds_of("other", [20.0], "prompt"))["prompt"]
    assert ratio_cell(once["other"], "ttft") == "2.00" and ratio_cell(once["loopserve"], "ttft") == ""
    assert ratio_cell({"ttft_ratio": {"median": 1.5}}, "ttft") == "1.50"


def test_medians_alone_stand_on_a_narrow_terminal(monkeypatch, capsys):
    turns = [
        *rounds_of("loopserve", [1000.0, 1100.0, 1050.0], "prompt"),
        *rounds_of("transformers, static cache, compiled", [1900.0, 2100.0, 2000.0], "prompt"),
        *rounds_of("loopserve", [1000.0, 1100.0, 1050.0]),
        *rounds_of("transformers", [1001.0, 1000.0, 1052.0]),
    ]
    summary = summarise(turns) | {"generate": None}
    for width, cell in {160: "2,000 (1,900 to 2,100)", 80: "2,000   1.90     3.00  ~1.00"}.items():
        monkeypatch.setattr("loopserve_cli.bench.tables.output_console", lambda width=width: Console(width=width))
        print_tables(summary, "title")
        out = capsys.readouterr().out
        assert cell in out and "…" not in out and max(map(len, out.splitlines())) <= width
        assert "transformers, static cache, compiled" in out and "no difference that this run can show" in out


def test_ours_against_each_other_and_the_ceiling_is_the_floors():
    turns = rounds_of("loopserve", [10.0, 11.0]) + rounds_of("full", [40.0, 44.0]) + rounds_of(FLOOR, [8.0, 8.8])
    [verdict] = verdicts_on_ours(records_of(turns), ["loopserve", FLOOR, "full"])
    assert (verdict.profile, verdict.against) == ("loopserve", "full")
    assert verdict.first_token is not None and verdict.first_token.ratio == pytest.approx(4)
    assert verdict.ceiling == pytest.approx(5)


def test_each_against_the_first_turn_by_turn():
    turns = rounds_of("full", [40.0, 44.0]) + rounds_of("snapkv", [10.0, 11.0])
    full, snapkv, *rest = verdicts_of(records_of(turns), ["full", "absent", "snapkv"])
    assert not rest and full.against is None and full.ttft_ms == 42
    assert (snapkv.profile, snapkv.against) == ("snapkv", "full")
    assert snapkv.first_token is not None and snapkv.first_token.ratio == pytest.approx(4)
    assert Verdict.from_json(json.loads(json.dumps(asdict(snapkv)))) == snapkv


def test_spread():
    assert spread([3.0, 1.0, None, 10.0]) == {"median": 3.0, "low": 1.0, "high": 10.0}
    assert spread([None]) is None


@pytest.mark.parametrize(("output", "token"), [([1, 9, 3], 2), ([1, 2], 3), ([1, 2, 3, 4], 4)])
def test_a_difference_in_tokens_is_found(output, token):
    same = [timing("loopserve", 1, 1), timing("other", 1, 1)]
    assert first_difference(same) is None
    found = first_difference([*same, timing("loopserve", 2, 1), timing("other", 2, 1, output)])
    assert found == {"variant": "other", "task": "prompt", "round": 2, "turn": 1, "token": token}
    assert "NOT identical, other parts" in agreement_line(found)
    assert "identical in every round" in agreement_line(None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"against": "vllm"}, "unknown --against"),
        ({"tokens": 0}, "--tokens is 0"),
        ({"new_tokens": 1}, "--new-tokens is 1"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"turns": 0}, "--turns is 0"),
        ({"tokens": 3, "turns": 4}, "too few"),
    ],
)
def test_options_that_cannot_be_timed(wrong, message):
    with pytest.raises(UsageError, match=message):
        TurnsOptions(**wrong)


def test_a_prompt_has_exactly_its_length_and_is_the_same_each_time():
    short, longer = prompt_ids(ByteTokenizer(), 300), prompt_ids(ByteTokenizer(), 5001)
    assert (len(short), len(longer)) == (300, 5001)
    assert longer == prompt_ids(ByteTokenizer(), 5001)
    assert bytes(short).startswith(b"<u>")
    assert prompt_ids(ByteTokenizer(), 300, seed=1) != short


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    folder = tmp_path_factory.mktemp("tiny")
    tiny.model("llama", "sdpa").save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def test_a_real_run(tiny_model, capsys):
    model = ModelOptions(str(tiny_model), device="cpu")
    assert run_turns(TurnsOptions(model, tokens=130, new_tokens=6, rounds=2, turns=3, json=True)) == 0
    captured = capsys.readouterr()
    whole = json.loads(captured.out)
    assert list(whole) == ["command", "environment", "records", "summary"]
    assert whole["summary"]["first_difference"] is None
    prompts = [r for r in whole["records"] if r["task"] == "prompt"]
    assert len(prompts) == 6
    assert {r["variant"] for r in prompts} == {"loopserve", "transformers", "transformers, static cache"}
    for record in whole["records"]:
        assert len(record["output_ids"]) == 6
        assert len(record["itl_ms"]) == 5
        assert record["ttft_ms"] > 0
    talk = [r for r in whole["records"] if r["task"] == "dialogue" and r["round"] == 1]
    by_variant = {
        name: [(r["tokens_new"], r["tokens_cached"]) for r in talk if r["variant"] == name]
        for name in ("loopserve", "transformers")
    }
    # Both feed the 43 or 44 new tokens and the one answer token that is not in the cache yet.
    assert by_variant["loopserve"] == by_variant["transformers"] == [(43, 0), (44, 48), (45, 97)]
    assert whole["environment"]["dtype"] == "float32"


def test_the_tables_of_a_real_run(tiny_model, capsys):
    model = ModelOptions(str(tiny_model), device="cpu")
    assert run_turns(TurnsOptions(model, tokens=64, new_tokens=4, rounds=1, turns=2)) == 0
    out = capsys.readouterr().out
    assert "64 tokens in, 4 out:" in out
    assert "greedy tokens: identical in every round" in out
    assert "\x1b" not in out


def test_a_prompt_beyond_the_context_is_refused(tiny_model):
    with pytest.raises(UsageError, match="reads at most 4096"):
        run_turns(TurnsOptions(ModelOptions(str(tiny_model), device="cpu"), tokens=4090, new_tokens=8))


def test_a_profile_against_another_shows_what_was_chosen_and_the_floor(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
):
    model = ModelOptions(str(tiny_model), device="cpu", dtype="float32")
    sparse = "loopserve-prefill+prefill.min_new=1+prefill.min_keys=1+prefill.most_density=1+alpha=0.5+local=4"
    options = TurnsOptions(
        model, against="full", tokens=300, new_tokens=2, rounds=2, turns=2, json=True, profile=sparse
    )
    # Other tokens than full attention's are no failure of a sparse profile, but they are told.
    assert run_turns(options) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert list(summary["prompt"]) == ["loopserve", "attention for free", "full"]
    ours, full = summary["prompt"]["loopserve"], summary["prompt"]["full"]
    assert 0 < ours["density"]["median"] < 1 and ours["select_ms"]["low"] > 0
    assert 0.5 <= ours["coverage"]["median"] <= 1
    assert (full["density"]["median"], full["select_ms"]["median"]) == (1.0, 0.0)
    headers = [column.header for column in prompt_table(summary["prompt"]).columns]
    assert headers == ["", "TTFT ms", "ratio", "TPOT ms", "ratio", "density", "choosing ms"]


def test_the_parts_of_a_ttft_stand_in_one_table() -> None:
    timings = [
        Measured(replace(timing(variant, 1, ttft).record, select_ms=choosing, attention_ms=attention, density=density))
        for variant, ttft, choosing, attention, density in (
            ("loopserve", 700.0, 50.0, 150.0, 0.1),
            ("full", 1500.0, 0.0, 1000.0, 1.0),
            ("transformers", 1600.0, None, None, None),
        )
    ]
    rows = summarise(timings)["prompt"]
    assert rows["loopserve"]["rest_ms"]["median"] == 500 and rows["transformers"]["rest_ms"] is None
    columns = {column.header: list(column.cells) for column in parts_table(rows).columns}
    assert columns == {
        "": ["loopserve", "full", "transformers"],
        "attention": ["150", "1,000", "n/a"],
        "of its share": ["1.50", "n/a", "n/a"],
        "choosing": ["50.0", "0.000", "n/a"],
        "of dense": ["5.0%", "n/a", "n/a"],
        "rest": ["500", "500", "n/a"],
    }


def test_two_dense_profiles_must_agree(tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    model = ModelOptions(str(tiny_model), device="cpu", dtype="float32")
    options = TurnsOptions(model, against="full", tokens=40, new_tokens=3, rounds=1, turns=2, profile="a-shape")
    assert run_turns(options) == 0
    out = capsys.readouterr().out
    assert "loopserve is a-shape" in out and "identical in every round" in out


def test_the_floor_computes_no_attention():
    import torch

    from loopserve_cli.bench.floor import NoAttention
    from loopserve_cli.policies.prefill.dense import Dense

    query, key = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 9, 8)
    turn = NoAttention(Dense())
    out = turn.attend(0, query, key, torch.randn(1, 2, 9, 6), 1.0)
    assert out.shape == (1, 4, 5, 6) and not out.any()
    assert turn.layers == 1


# Comparisons of many


class RewindingFake(FakeVariant):
    """A variant that can take back what it answered, and notes what it was fed."""

    def __init__(self, name: str, log: list[str], rewinds: bool = True, forgets: bool = False) -> None:
        super().__init__(name, log)
        self.rewinds = rewinds
        self.forgets = forgets  # three tokens or fewer are lost when it rewinds to them
        self.fed: list[list[int]] = []

    def rewind(self, length: int) -> int:
        assert self.rewinds and length <= len(self.held)
        self.held = self.held[: length if length > 3 else 0] if self.forgets else self.held[:length]
        return len(self.held)

    def feed(self, ids: list[int]) -> None:
        assert ids, "nothing is fed in vain"
        self.held = self.held + ids
        self.fed.append(ids)


# Two turns: [1 2 3] is answered [7 8], and then 4 5 is said.
TALK = [RecordedTurn([1, 2, 3], 0), RecordedTurn([1, 2, 3, 7, 8, 4, 5], 5)]


def test_a_recorded_answer_takes_the_place_of_the_generated_one():
    variant = RewindingFake("full", [])
    timings = time_recorded([variant], TALK, new_tokens=4, rounds=1, say=lambda text: None)
    # Each round: the prompt at once, and the dialogue; its answers are never in a later prompt.
    assert variant.prompts == [[1, 2, 3, 7, 8, 4, 5], [1, 2, 3], [1, 2, 3, 7, 8, 4, 5]] * 2
    assert variant.fed == [[7, 8], [7, 8]]
    assert [(r.conversation_id, r.turn, r.tokens_new, r.tokens_cached) for r in records_of(timings)] == [
        ("prompt", 1, 7, 0), ("dialogue", 1, 3, 0), ("dialogue", 2, 2, 5),
    ]  # fmt: skip


def test_who_cannot_take_an_answer_back_runs_the_prompt_alone():
    variants = [RewindingFake("full", []), RewindingFake("static", [], rewinds=False)]
    timings = time_recorded(variants, TALK, new_tokens=2, rounds=1, say=lambda text: None)
    assert [(r.profile, r.conversation_id) for r in records_of(timings) if r.profile == "static"] == [
        ("static", "prompt")
    ]


def test_a_template_that_writes_old_turns_anew_is_rewound_to_where_it_still_agrees():
    variant = RewindingFake("full", [])
    talk = [TALK[0], RecordedTurn([1, 9, 9, 9, 4], 3)]
    [*_, last] = records_of(time_recorded([variant], talk, new_tokens=2, rounds=1, say=lambda text: None))
    assert variant.fed == [[9, 9], [9, 9]]
    assert (last.tokens_new, last.tokens_cached) == (2, 3)


def test_what_was_lost_in_rewinding_is_fed_again():
    variant = RewindingFake("full", [], forgets=True)
    [*_, last] = records_of(time_recorded([variant], TALK, new_tokens=2, rounds=1, say=lambda text: None))
    assert variant.fed == [[1, 2, 3, 7, 8]] * 2
    assert (last.tokens_new, last.tokens_cached) == (2, 5)


def test_recorded_turns_are_the_transcript_in_the_template():
    turns = recorded_turns(ByteTokenizer(), "demo", None)  # type: ignore[arg-type]
    assert len(turns) == 13
    assert turns[0].history == 0
    first, second = (bytes(turn.ids).decode() for turn in turns[:2])
    assert first.startswith("<u>") and first.endswith("<e><a>")
    past = bytes(turns[1].ids[: turns[1].history]).decode()
    assert past == second[: second.rindex("<u>")]
    assert past.startswith(first) and past.endswith("<e>") and len(past) > len(first) + len("<e>")
    lengths = [len(turn.ids) for turn in turns]
    assert lengths == sorted(lengths)
    capped = recorded_turns(ByteTokenizer(), "demo", lengths[4])  # type: ignore[arg-type]
    assert capped == turns[:5] == recorded_turns(ByteTokenizer(), "demo", lengths[5] - 1)  # type: ignore[arg-type]


def test_agreement_is_the_share_of_places_with_full_attentions_token():
    timings = [
        timing("full", 1, 1, [1, 2, 3, 4]),
        timing("snapkv", 1, 1, [1, 9, 3, 9]),
        timing("full", 2, 1, [9, 9, 9, 9]),
        timing("snapkv", 2, 1, [9, 9, 9, 9]),
        timing("snapkv", 2, 1, [1], task="dialogue"),
    ]
    agreements = [r.agreement for r in records_of(with_agreement(timings, "full"))]
    assert agreements == [None, 0.5, None, 1.0, None]
    assert with_agreement(timings, None) == timings
    summary = summarise(with_agreement(timings, "full")[:4], ["full", "snapkv"])
    assert summary["agreement"] == {
        "full": {"prompt": None, "dialogue": None},
        "snapkv": {"prompt": 0.75, "dialogue": None},
    }
    assert summary["prompt"]["snapkv"]["agreement"] == {"median": 0.75, "low": 0.5, "high": 1.0}
    assert summary["prompt"]["full"]["agreement"] is None


def test_the_baseline_of_a_summary_is_the_first_in_its_order():
    timings = [timing("adakv", 1, 10), timing("full", 1, 40)]
    summary = summarise(timings, ["full", "adakv"])
    assert summary["baseline"] == "full" and list(summary["prompt"]) == ["full", "adakv"]
    assert summary["prompt"]["full"]["ttft_ratio"] is None
    assert summary["prompt"]["adakv"]["ttft_ratio"]["median"] == 0.25
    assert summarise([timing("loopserve", 1, 1)])["baseline"] == "loopserve"


@pytest.mark.parametrize(
    ("lengths", "most", "shown"),
    [
        ([10, 20, 30], 3, [0, 1, 2]),
        # 481 is the last within 512, 973 and 1,000 end at 1,024, and the last of all is always there.
        ([38, 481, 973, 1000, 1500, 1600], 5, [0, 1, 3, 5]),
        ([38, 481, 973, 1000, 1500, 1600], 2, [3, 5]),
        ([5] * 4, 1, [3]),
        ([1, 1024, 1025, 2048], 3, [0, 1, 3]),
    ],
)
def test_few_turns_stand_for_many(lengths, most, shown):
    assert landmarks(lengths, most) == shown


def comparison(tiny_model: Path, *profiles: str, **given: Any) -> TurnsOptions:
    model = ModelOptions(str(tiny_model), device="cpu", dtype="float32")
    settings = {"against": None, "tokens": 300, "new_tokens": 24, "rounds": 1, "turns": 2, "json": True, **given}
    return TurnsOptions(model, profiles=profiles, **settings)


SMALL = "snapkv+keep.budget=40"
# Two layers, two key-value heads of 16, keys and values, four bytes.
BYTES_PER_TOKEN = 2 * 2 * 16 * 2 * 4


def test_a_comparison_over_a_bundled_dialogue(tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    options = comparison(tiny_model, SMALL, "full", against="transformers", dialogue="demo", tokens=700, rounds=2)
    assert run_turns(options) == 0
    captured = capsys.readouterr()
    whole = json.loads(captured.out)
    assert list(whole) == ["command", "environment", "records", "summary"]
    assert "transformers, static cache: its cache cannot take an answer back" in captured.err
    names = ["full", SMALL, "transformers", "transformers, static cache"]
    assert list(whole["summary"]["prompt"]) == names
    assert whole["summary"]["exact"] == ["full", *names[2:]]
    assert whole["summary"]["exact_difference"] is None

    by_turn: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in whole["records"]:
        if record["task"] == "dialogue":
            by_turn.setdefault((record["variant"], record["turn"]), []).append(record)
    turns = max(turn for _, turn in by_turn)
    assert turns > 3 and len(by_turn) == 3 * turns
    for (name, turn), records in by_turn.items():
        assert [record["round"] for record in records] == [1, 2]
        for record in records:
            full = by_turn["full", turn][record["round"] - 1]
            # All feed the same and have the same before it: nobody goes on from an answer of its own.
            assert record["tokens_new"] == full["tokens_new"]
            assert record["tokens_cached"] == full["tokens_cached"]
            assert len(record["output_ids"]) == 24
            assert record["keys_stored"] == record["tokens_new"] + record["tokens_cached"] + 23
            same = sum(a == b for a, b in zip(record["output_ids"], full["output_ids"], strict=True)) / 24
            assert record["agreement"] == (None if name == "full" else same)
    # The last turn is the prompt at once: what was rolled back has left nothing behind.
    prompts = {r["variant"]: r for r in whole["records"] if r["task"] == "prompt" and r["round"] == 1}
    for name in ("full", "transformers"):
        assert by_turn[name, turns][0]["output_ids"] == prompts["full"]["output_ids"]
    assert prompts["full"]["tokens_new"] == by_turn["full", turns][0]["keys_stored"] - 23

    last = by_turn["transformers", turns][0]
    assert last["kv_store_host_bytes"] == last["keys_stored"] * BYTES_PER_TOKEN
    assert (last["kv_store_device_bytes"], last["working_set_bytes"], last["keys_read"]) == (0, None, None)
    static = prompts["transformers, static cache"]
    assert static["kv_store_host_bytes"] == (static["keys_stored"] + 1) * BYTES_PER_TOKEN
    small, full = by_turn[SMALL, turns][0], by_turn["full", turns][0]
    assert small["keys_read"] == 40 + 23 and small["working_set_bytes"] > 0
    assert full["keys_read"] == full["keys_stored"] and full["working_set_bytes"] == 0
    assert full["kv_store_host_bytes"] >= full["keys_stored"] * BYTES_PER_TOKEN
    agreement = whole["summary"]["agreement"]
    assert agreement["transformers"] == {"dialogue": 1.0, "prompt": 1.0}
    assert 0 < agreement[SMALL]["dialogue"] < 1
    assert agreement["transformers, static cache"]["dialogue"] is None


def test_a_comparison_over_the_synthetic_dialogue_has_long_answers(tiny_model: Path, capsys):
    assert run_turns(comparison(tiny_model, "full", "a-shape", against="transformers", tokens=130, turns=3)) == 0
    whole = json.loads(capsys.readouterr().out)
    talk = [r for r in whole["records"] if r["task"] == "dialogue"]
    assert {len(r["output_ids"]) for r in talk} == {24}
    # 130 tokens in three turns; of the answers before them all but the newest token are held.
    places = [(43, 0), (44, 66), (45, 133)]
    for name in ("full", "a-shape", "transformers"):
        assert [(r["tokens_new"], r["tokens_cached"]) for r in talk if r["variant"] == name] == places
    assert whole["summary"]["agreement"]["a-shape"] == {"prompt": 1.0, "dialogue": 1.0}


def test_without_full_attention_there_is_no_agreement_and_the_first_is_the_baseline(tiny_model: Path, capsys):
    assert run_turns(comparison(tiny_model, SMALL, "h2o", new_tokens=4)) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["summary"]["baseline"] == SMALL
    assert {r["agreement"] for r in whole["records"]} == {None}
    assert whole["summary"]["exact"] == []


def test_every_profile_fits_the_terminal(tiny_model: Path, capsys, monkeypatch):
    options = comparison(
        tiny_model, *profile_names(), against="transformers", dialogue="demo", tokens=1000, new_tokens=2, json=False
    )
    seen = {}
    monkeypatch.setattr(
        "loopserve_cli.bench.comparison_tables.print_comparison", lambda *given: seen.update(given=given)
    )
    run_turns(options)
    summary, title = seen["given"]
    # Times of a long dialogue on a slow machine.
    for rows in (summary["prompt"], *(turn["variants"] for turn in summary["dialogue"])):
        for row in rows.values():
            row["ttft_ms"] = {"median": 151_338.0, "low": 1.0, "high": 1.0}
            row["ttft_ratio"] = row["ttft_ratio"] and {"median": 0.08, "low": 1.0, "high": 1.0}
    assert title.startswith("demo dialogue, 2 tokens out: ")
    capsys.readouterr()
    for width, turns in {80: 2, 100: 4}.items():
        monkeypatch.setattr(
            "loopserve_cli.bench.comparison_tables.output_console",
            lambda width=width: Console(width=width, highlight=False, markup=False),
        )
        print_comparison(summary, title)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= width
        assert "…" not in out and "151,338 x12.50" in out  # as in the verdict below, above 1 is faster
        for name in profile_names():
            assert sum(line.split()[:1] == [name] for line in out.splitlines()) == 4
        assert out.count("turn 13") == 2
        assert f"{turns} of 13 turns are shown" in out
        assert "of those that read everything (full, transformers" in " ".join(out.split())


def test_a_sliding_window_cannot_be_taken_back():
    import tiny

    from loopserve_cli.bench.generate import Generate

    assert not Generate(tiny.model("mistral", "sdpa")).rewinds
    assert not Generate(tiny.model("llama", "sdpa"), static=40).rewinds
    assert Generate(tiny.model("llama", "sdpa")).rewinds


def test_the_dynamic_cache_rewinds_and_goes_on():
    import tiny

    from loopserve_cli.bench.generate import Generate

    model = tiny.model("llama", "sdpa")
    prompt = prompt_ids(ByteTokenizer(), 60)
    at_once = Generate(model).turn(prompt, 6)
    variant = Generate(model)
    variant.turn(prompt[:30], 9)
    variant.rewind(20)
    variant.feed(prompt[20:50])
    again = variant.turn(prompt, 6)
    assert again.output_ids == at_once.output_ids
    record = again.record
    assert (record.tokens_new, record.tokens_cached, record.keys_stored) == (10, 50, 65)


def test_those_that_read_everything_must_answer_alike(capsys, monkeypatch):
    class Odd(RewindingFake):
        def turn(self, ids: list[int], new_tokens: int) -> Measured:
            return replace(super().turn(ids, new_tokens), output_ids=(5,) * new_tokens)

    def status(exact: tuple[str, ...], dtype: str) -> int:
        variants = [RewindingFake("full", []), Odd("odd", [])]
        made = Comparison(variants, [], TALK, ("full", "odd"), exact, "cpu", dtype)
        monkeypatch.setattr("loopserve_cli.bench.comparison.open_comparison", lambda *given: made)
        return run_turns(TurnsOptions(profiles=("full",), dialogue="demo", tokens=None, new_tokens=3, rounds=1))

    assert status(("full",), "float32") == 0
    assert status(("full", "odd"), "bfloat16") == 0
    assert status(("full", "odd"), "float32") == 1
    assert "(full, odd) greedy tokens: NOT identical, odd parts from full first at prompt" in capsys.readouterr().out


class Caught:
    """Stands for the run: keeps the options."""

    options: TurnsOptions

    def __call__(self, options: TurnsOptions) -> int:
        self.options = options
        return 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", {"against": "transformers", "tokens": 16384, "new_tokens": 64, "profiles": (), "profile": "full"}),
        ("--profile h2o", {"profile": "h2o", "profiles": (), "against": "transformers", "new_tokens": 64}),
        ("--profile h2o --against full", {"profile": "h2o", "profiles": (), "against": "full"}),
        ("--profile h2o --profile full", {"profiles": ("h2o", "full"), "against": None, "new_tokens": 32}),
        ("--profile h2o --profile h2o", {"profiles": (), "profile": "h2o"}),
        ("--profile h2o --profile full --against transformers", {"against": "transformers", "tokens": 16384}),
        ("--dialogue demo:long", {"profiles": ("full",), "against": "transformers", "tokens": None, "turns": 4}),
        ("--tokens 2k --rounds 3", {"tokens": 2048, "rounds": 3}),
        ("--dialogue demo --tokens 99 --new-tokens 8", {"dialogue": "demo", "tokens": 99, "new_tokens": 8}),
    ],
)
def test_flags_of_a_comparison(words: str, expected: dict[str, object], monkeypatch):
    caught = Caught()
    monkeypatch.setattr("loopserve_cli.bench.run_turns", caught)
    assert app.main(["bench", "turns", *words.split()]) == 0
    assert {name: getattr(caught.options, name) for name in expected} == expected


def test_all_is_every_shipped_profile_full_attention_first(monkeypatch):
    caught = Caught()
    monkeypatch.setattr("loopserve_cli.bench.run_turns", caught)
    assert app.main(["bench", "turns", "--profile", "all"]) == 0
    assert caught.options.profiles[0] == "full"
    assert sorted(caught.options.profiles) == profile_names()


UNRUNNABLE = {
    "--profile full --profile nope": "no profile 'nope'; known: {profiles}; or give the path of a .toml file",
    "--profile h2o --against loopserve": (
        "'loopserve' is what our side is called here; give both as --profile instead of --against"
    ),
    "--dialogue demo:huge": "unknown --dialogue 'demo:huge'; choose one of synthetic, demo, demo:long, demo:xlong",
    "--dialogue demo --turns 3": (
        "--turns cuts the synthetic dialogue, but demo has its own; shorten it with --tokens"
    ),
    "--dialogue demo --tokens 0": "--tokens: '0' is no length from 1 to 16777216; write for example 4096 or 16k",
    "--dialogue demo --tokens 9": "--tokens 9 is under the first turn of demo, which is {first} tokens; give more",
    "--dialogue demo:xlong --new-tokens 5": (
        "--dialogue demo:xlong with its last answer is {needed} tokens, but {model} reads at most 4096; "
        "shorten it with --tokens"
    ),
    "--profile full --profile h2o --tokens 4000": (
        "--tokens 4000 with its answers is 4128 tokens, but {model} reads at most 4096; give fewer"
    ),
}


@pytest.mark.parametrize("words", UNRUNNABLE)
def test_comparisons_that_cannot_be_run(words: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    import tiny

    turns = {name: recorded_turns(tiny.tokenizer(), name, None) for name in ("demo", "demo:xlong")}
    known = {
        "profiles": ", ".join(profile_names()),
        "first": len(turns["demo"][0].ids),
        "needed": len(turns["demo:xlong"][-1].ids) + 5,
        "model": tiny_model,
    }
    assert app.main(["bench", "turns", "--model", str(tiny_model), "--device", "cpu", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "loopserve: " + UNRUNNABLE[words].format(**known)
    assert err.count("loopserve: ") == 1


def test_two_variants_of_one_name_are_refused(tmp_path: Path, tiny_model: Path):
    (tmp_path / "full.toml").write_text(
        'description = "x"\n[prefill]\npolicy = "dense"\n[keep]\npolicy = "everything"\n'
    )
    with pytest.raises(UsageError, match="two variants would be called 'full'"):
        run_turns(comparison(tiny_model, "full", str(tmp_path / "full.toml")))
