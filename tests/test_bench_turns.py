"""The turns benchmark: order, warm-up, ratios, the comparison of tokens, and a real run on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from replay_fakes import ByteTokenizer

from loopserve_cli.bench import TurnsOptions, run_turns
from loopserve_cli.bench.rounds import time_rounds
from loopserve_cli.bench.tables import agreement_line, prompt_table
from loopserve_cli.bench.text import prompt_ids
from loopserve_cli.bench.timing import Timing, first_difference, spread, summarise, timing_of
from loopserve_cli.config import ModelOptions
from loopserve_cli.errors import UsageError


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

    def turn(self, ids: list[int], new_tokens: int) -> Timing:
        cached = len(self.held)
        assert cached == 0 or len(self.prompts[-1]) < len(ids), "a run starts empty"
        assert ids[:cached] == self.held
        self.log.append(self.name)
        self.prompts.append(ids)
        output = list(range(100, 100 + new_tokens))
        self.held = ids + output[:-1]
        return Timing(len(ids) - cached, cached, 10.0, [1.0] * (new_tokens - 1), output)


def timing(variant: str, number: int, ttft: float, output: list[int] | None = None, task: str = "prompt") -> Timing:
    made = Timing(100, 0, ttft, [2.0, 4.0], output or [1, 2, 3])
    return made.labelled(variant, task, number, 1)


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
    assert [(t.round, t.task, t.turn) for t in timings] == [
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
    assert [(t.tokens_new, t.tokens_cached) for t in timings[-2:]] == [(2, 0), (4, 3)]


def test_a_variant_may_sit_the_dialogue_out():
    log: list[str] = []
    variants = [FakeVariant("loopserve", log), FakeVariant("static", log, dialogues=False)]
    timings = time_rounds(variants, [1, 2], new_tokens=2, turns=2, rounds=1, say=lambda text: None)
    assert {t.variant for t in timings if t.task == "dialogue"} == {"loopserve"}
    assert {t.variant for t in timings if t.task == "prompt"} == {"loopserve", "static"}


def test_stamps_become_ttft_and_gaps():
    made = timing_of(1.0, [1.25, 1.26, 1.29], [7, 8, 9], new=5, cached=2)
    assert made.ttft_ms == pytest.approx(250)
    assert made.itl_ms == pytest.approx([10, 30])
    assert made.labelled("x", "prompt", 1, 1).tpot_ms == pytest.approx(20)


def test_ratios_are_taken_round_by_round():
    timings = [timing("loopserve", 1, 10), timing("other", 1, 30), timing("loopserve", 2, 100), timing("other", 2, 50)]
    row = summarise(timings)["prompt"]
    assert row["other"]["ttft_ratio"] == {"median": 1.75, "low": 0.5, "high": 3.0}
    assert row["other"]["tpot_ratio"]["median"] == 1.0
    assert row["loopserve"]["ttft_ratio"] is None
    assert row["loopserve"]["ttft_ms"] == {"median": 55, "low": 10, "high": 100}
    assert list(row) == ["loopserve", "other"]
    assert [column.header for column in prompt_table(row).columns] == ["", "TTFT ms", "ratio", "TPOT ms", "ratio"]


def test_spread():
    assert spread([3.0, 1.0, 10.0]) == {"median": 3.0, "low": 1.0, "high": 10.0}


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
