"""Fidelity of a replay: forced answers against full attention's, in records, summary, gates and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from loopserve_cli import app
from loopserve_cli.config import ModelOptions, ReplayOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine import distributions
from loopserve_cli.engine.distributions import Rows, divergence, log_probabilities
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.measure.fidelity import first_difference
from loopserve_cli.measure.reference import full_of
from loopserve_cli.messages import Message
from loopserve_cli.profile import load_profile
from loopserve_cli.replay import run
from loopserve_cli.stats import TurnRecord, summarise

END = 2
SAID = [("Tell me of the north tower.", "Its gate code is 4417."), ("And the south one?", "It has none, I believe.")]
SAID += [("What was the first code?", "It was 4417, as I said.")]
SMALL = "loopserve+keep.budget=8+keep.first=prompt+keep.interval=2+keep.sinks=1+keep.recent=1"
SAME = "full+retain.tier=host"
FIELDS = ("kl_mean", "nll", "nll_change", "agreement", "tokens_forced", "diverged_at")


def dialogue(place: Path, said: Sequence[tuple[str, str | None]] = SAID, **answers: Any) -> str:
    rows: list[dict[str, Any]] = []
    for question, answer in said:
        rows.append({"role": "user", "content": question})
        rows += [] if answer is None else [{"role": "assistant", "content": answer, **answers}]
    header = {"loopserve": 1, "id": "talk", "questions_only": not any(answer for _, answer in said)}
    path = place / "talk.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [header, *rows]) + "\n")
    return str(path)


def options(path: str, *profiles: str, **rest: Any) -> ReplayOptions:
    chosen = []
    for name in profiles:
        base, *changes = name.split("+")
        chosen.append(load_profile(base).with_overrides(changes))
    sampling = rest.pop("sampling", SamplingOptions(max_new_tokens=16))
    given: dict[str, Any] = {"json": True, "fidelity": True} | rest
    return ReplayOptions(ModelOptions(), sampling, tuple(chosen), (path,), **given)


def replayed(capsys: pytest.CaptureFixture[str], given: ReplayOptions, loaded: LoadedModel | None = None) -> Any:
    """The exit status, the records by profile, and stderr."""
    model = loaded or tiny.loaded("llama")
    status = run(given, lambda options, say: Engine(model, options.profiles[0]))
    out, err = capsys.readouterr()
    records = json.loads(out)["records"]
    return status, {name: [r for r in records if r["profile"] == name] for name in by_name(given)}, err


def by_name(given: ReplayOptions) -> list[str]:
    return [profile.name for profile in given.profiles]


def test_full_against_full_is_the_same_and_a_small_budget_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found, err = replayed(capsys, options(dialogue(tmp_path), SMALL, "full", SAME))
    assert all([r[name] is None for name in ("kl_mean", "nll_change", "agreement")] for r in found["full"])
    for full, same, small in zip(found["full"], found[SAME], found[SMALL], strict=True):
        assert (same["kl_mean"], same["agreement"], same["nll_change"], same["diverged_at"]) == (0, 1, 0, None)
        assert same["nll"] == full["nll"] > 0
        assert full["tokens_forced"] == same["tokens_forced"] == small["tokens_forced"] > 3
        assert small["nll_change"] == pytest.approx(small["nll"] - full["nll"])
    assert max(small["kl_mean"] for small in found[SMALL]) > 0.1
    assert min(small["agreement"] for small in found[SMALL]) < 1
    assert any(small["diverged_at"] is not None for small in found[SMALL])
    assert "fidelity: in the first repeat" in err


def test_the_nll_is_that_of_a_plain_forward_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, _ = replayed(capsys, options(dialogue(tmp_path), "full"))
    plain = tiny.model("llama", "sdpa")
    said: list[dict[str, str]] = []
    for (question, answer), record in zip(SAID, found["full"], strict=True):
        said.append({"role": "user", "content": question})
        begins = len(ids_of(said, generation_prompt=True))
        said.append({"role": "assistant", "content": answer})
        ids = ids_of(said, generation_prompt=False)
        assert ids[-1] == END
        with torch.no_grad():
            rows = plain(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        nll = [-float(rows[place - 1, ids[place]]) for place in range(begins, len(ids))]
        assert record["tokens_forced"] == len(nll)
        assert record["nll"] == pytest.approx(sum(nll) / len(nll), rel=1e-4)


def test_the_kl_is_that_of_a_plain_forward_pass_that_sees_as_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """StreamingLLM's keys are known beforehand: the first and the last of the prompt, and all of the answer."""
    sinks, budget = 4, 12
    words = dialogue(tmp_path, SAID[:1])
    _, found, _ = replayed(capsys, options(words, "full", f"streaming-llm+keep.budget={budget}"))
    said = [{"role": "user", "content": SAID[0][0]}, {"role": "assistant", "content": SAID[0][1]}]
    begins, ids = len(ids_of(said[:1], generation_prompt=True)), ids_of(said, generation_prompt=False)
    assert begins > budget
    sees = torch.ones(len(ids), len(ids)).tril().bool()
    little = sees.clone()
    little[begins:, sinks : begins - (budget - sinks)] = False
    plain = tiny.model("llama", "eager")

    def likely(seen: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]
        with torch.no_grad():
            return plain(torch.tensor([ids]), attention_mask=mask).logits[0].double().log_softmax(-1)[begins - 1 : -1]

    full, cut = likely(sees), likely(little)
    [_, [record]] = found.values()
    assert record["kl_mean"] == pytest.approx(float((full.exp() * (full - cut)).sum(-1).mean()), rel=1e-3) and (
        record["kl_mean"] > 0.01
    )
    assert record["agreement"] == float((full.argmax(-1) == cut.argmax(-1)).double().mean())
    answer = torch.tensor(ids[begins:])[:, None]
    assert record["nll_change"] == pytest.approx(float((full - cut).gather(1, answer).mean()), rel=1e-3, abs=1e-5)


def ids_of(said: list[dict[str, str]], generation_prompt: bool) -> list[int]:
    text = tiny.tokenizer().apply_chat_template(said, tokenize=False, add_generation_prompt=generation_prompt)
    return list(tiny.tokenizer()(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
@pytest.mark.parametrize("history", ["recorded", "live"])
def test_timed_turns_are_what_they_are_without_it(
    history: str, tier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "output_text tokens_new tokens_cached tokens_rolled_back keys_read kv_store_host_bytes".split()
    profiles = "full", f"{SMALL}+retain.tier={tier}"
    with_it, without = (
        replayed(capsys, options(dialogue(tmp_path), *profiles, history=history, fidelity=fidelity))[1]
        for fidelity in (True, False)
    )
    for name in profiles:
        for one, other in zip(with_it[name], without[name], strict=True):
            assert {n: one[n] for n in names} == {n: other[n] for n in names}
            assert one["nll"] is not None and other["nll"] is None


@pytest.mark.parametrize("partial", [False, True])
def test_a_cancelled_answer_has_no_end_to_force(
    partial: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = {"partial": True} if partial else {}
    _, found, _ = replayed(capsys, options(dialogue(tmp_path, SAID[:1], **marks), "full", SAME))
    words = len(tiny.tokenizer()(SAID[0][1], add_special_tokens=False).input_ids)
    assert [r["tokens_forced"] for r in found[SAME]] == [words if partial else words + 1]


def test_an_answer_ends_with_the_token_that_ends_a_turn() -> None:
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    talk = conversation(template)
    ids = talk.answer_ids("Well. ")
    assert ids == [*tiny.tokenizer()("Well. ", add_special_tokens=False).input_ids, END]
    assert talk.answer_ids("Well. ", partial=True) == ids[:-1]


def test_an_answer_that_is_written_otherwise_than_asked_for_is_forced_as_written() -> None:
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>THINK{% endif %}"
    )
    assert conversation(template).answer_ids("Well.")[-1] == END
    rewrites = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + (messages|length)|string + m['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert conversation(rewrites).answer_ids("Well.") == []


def conversation(template: str) -> Conversation:
    loaded = replace(tiny.loaded("llama"), tokenizer=tiny.fresh_tokenizer(template))
    talk = Conversation(Engine(loaded, load_profile("full")))
    talk.load([Message("user", "Hello."), Message("assistant", "Yes?")])
    return talk


def test_without_recorded_answers_full_attentions_own_are_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [(question, None) for question, _ in SAID]
    for said, history in ((asked, "recorded"), (SAID, "live")):
        _, found, _ = replayed(capsys, options(dialogue(tmp_path, said), "full", SMALL, SAME, history=history))
        assert [r["tokens_forced"] for r in found["full"]] == [r["tokens_output"] for r in found["full"]]
        # The small budget says something else at once, and goes on from that; it is still compared at every turn.
        assert found[SMALL][0]["diverged_at"] is not None
        assert found[SMALL][2]["output_text"] != found["full"][2]["output_text"]
        assert all(r["kl_mean"] > 0 for r in found[SMALL])
        assert [(r["kl_mean"], r["agreement"]) for r in found[SAME]] == [(pytest.approx(0, abs=1e-6), 1)] * 3


def test_the_last_turn_may_have_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, _ = replayed(capsys, options(dialogue(tmp_path, [*SAID[:2], (SAID[2][0], None)]), "full", SAME))
    assert found["full"][2]["tokens_forced"] == found["full"][2]["tokens_output"]
    assert [r["kl_mean"] for r in found[SAME]] == [0, 0, 0]


def test_without_full_only_the_nll_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, _ = replayed(capsys, options(dialogue(tmp_path), SMALL, "snapkv"))
    for record in [*found[SMALL], *found["snapkv"]]:
        known = {name for name in FIELDS if record[name] is not None}
        assert known == {"nll", "tokens_forced"}


def test_only_the_first_repeat_is_judged_and_full_leads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, _ = replayed(capsys, options(dialogue(tmp_path), SMALL, "full", repeat=2))
    assert [r["kl_mean"] is None for r in found[SMALL]] == [False] * 3 + [True] * 3
    assert [r["diverged_at"] for r in found[SMALL][:3]] == [r["diverged_at"] for r in found[SMALL][3:]]


def test_no_more_tokens_are_forced_than_may_be_generated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found, _ = replayed(
        capsys, options(dialogue(tmp_path), "full", SAME, sampling=SamplingOptions(max_new_tokens=4))
    )
    assert [r["tokens_forced"] for r in found["full"] + found[SAME]] == [4] * 6


def test_an_answer_that_the_context_cuts_off_is_forced_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = tiny.loaded("llama")
    begins = len(ids_of([{"role": "user", "content": SAID[0][0]}], generation_prompt=True))
    short = replace(loaded, context_limit=begins + 5)
    _, found, _ = replayed(capsys, options(dialogue(tmp_path, SAID[:1]), "full", SAME), short)
    assert [(r["tokens_forced"], r["kl_mean"]) for r in found["full"] + found[SAME]] == [(5, None), (5, 0)]


def test_sampled_turns_are_judged_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampling = SamplingOptions(temperature=1.0, repetition_penalty=1.3, max_new_tokens=8, seed=3)
    _, found, _ = replayed(capsys, options(dialogue(tmp_path), "full", SAME, sampling=sampling))
    assert [(r["kl_mean"], r["agreement"], r["diverged_at"]) for r in found[SAME]] == [(0, 1, None)] * 3


def test_a_full_disk_costs_the_fidelity_and_no_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Rows, row: torch.Tensor) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(distributions.Rows, "append", full)
    status, found, err = replayed(capsys, options(dialogue(tmp_path), "full", SMALL))
    assert status == 0
    assert all(r["ttft_ms"] is not None and r["kl_mean"] is None for r in found["full"] + found[SMALL])
    assert err.count("fidelity is unknown for some turns: [Errno 28] No space left on device") == 1


def test_a_turn_whose_start_is_gone_is_unknown_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "force", lambda *_: 0)
    status, found, err = replayed(capsys, options(dialogue(tmp_path), "full", SMALL))
    assert status == 0
    assert {r["tokens_forced"] for r in found["full"] + found[SMALL]} == {None}
    assert err.count("the model's positions changed within their answers") == 1


def test_ctrl_c_while_an_answer_is_forced_keeps_its_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(self: Engine, *_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "force", pressed)
    status, found, _ = replayed(capsys, options(dialogue(tmp_path), "full", SMALL))
    assert status == 130
    assert [(r["turn"], r["kl_mean"], r["ttft_ms"] is not None) for r in found["full"]] == [(1, None, True)]


@pytest.mark.parametrize("history", ["recorded", "live"])
def test_a_resumed_run_knows_what_an_unbroken_one_knows(
    history: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dialogue(tmp_path)
    _, unbroken, _ = replayed(capsys, options(path, "full", SMALL, history=history))
    force, forced = Engine.force, []

    def pressed(self: Engine, *given: Any) -> int:
        forced.append(self.profile.name)
        if history == "recorded" and forced.count(SMALL) == 2:
            raise KeyboardInterrupt
        return force(self, *given)

    monkeypatch.setattr(Engine, "force", pressed)
    stop = 130 if history == "recorded" else 0
    assert replayed(capsys, options(path, "full", SMALL, history=history, out=tmp_path / "out"))[0] == stop
    monkeypatch.setattr(Engine, "force", force)
    for name in ("records.jsonl", "output_ids.jsonl"):
        kept = (tmp_path / "out" / name).read_text().splitlines(keepends=True)
        (tmp_path / "out" / name).write_text("".join(kept[:4]))  # full's three, and the first of the other
    status, found, err = replayed(capsys, options(path, "full", SMALL, history=history, resume=tmp_path / "out"))
    missing = 2 if history == "recorded" else 3  # a live dialogue begins anew
    assert status == 0 and f"{missing} of 6 turns are missing" in err
    for one, other in zip(found[SMALL], unbroken[SMALL], strict=True):
        assert {name: one[name] for name in FIELDS} == pytest.approx({name: other[name] for name in FIELDS}, abs=1e-5)


def test_a_gate_on_kl_fails_with_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = dialogue(tmp_path)
    status, _, err = replayed(capsys, options(path, "full", SMALL, fail_if=(f"{SMALL}.kl_mean>0.01",)))
    assert status == 3
    assert f"gate {SMALL}.kl_mean>0.01 failed: {SMALL} kl_mean.mean is " in err
    fine = (f"{SAME}.kl_mean>0.01", f"{SAME}.agreement<1", f"{SAME}.nll_change>0", f"{SAME}.nll>100")
    assert replayed(capsys, options(path, "full", SAME, fail_if=fine))[0] == 0


def test_the_tables_have_it_where_it_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fidelity in (True, False):
        given = options(dialogue(tmp_path), "full", SMALL, json=False, turns=True, fidelity=fidelity)
        assert run(given, lambda options, say: Engine(tiny.loaded("llama"), options.profiles[0])) == 0
        out = capsys.readouterr().out
        assert ("KL to full" in out) == ("NLL change" in out) == ("agreement %" in out) == fidelity
        assert "parts from full at" in out


def test_the_command_does_it_for_several_profiles_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    small = "loopserve+keep.budget=8+keep.first=prompt+keep.sinks=2+keep.recent=2"
    words = f"replay demo:long --max-turns 2 --max-new-tokens 8 --json --profile {small}".split()
    assert app.main([*words, "--profile", "full", "--fail-if", f"{small}.kl_mean > 0.01"]) == 3
    second = [r for r in json.loads(capsys.readouterr().out)["records"] if r["profile"] == small][1]
    assert second["kl_mean"] > 0.01 and second["agreement"] < 1
    for more in (["--profile", "full", "--no-fidelity"], []):
        assert app.main([*words, *more]) == 0
        assert {r["nll"] for r in json.loads(capsys.readouterr().out)["records"]} == {None}
    assert app.main([*words, "--fidelity"]) == 0
    assert None not in {r["nll"] for r in json.loads(capsys.readouterr().out)["records"]}


def test_means_over_turns_are_means_over_tokens() -> None:
    records = [
        TurnRecord(profile="p", kl_mean=0.1, agreement=1.0, tokens_forced=30, ttft_ms=1.0),
        TurnRecord(profile="p", kl_mean=0.5, agreement=0.5, tokens_forced=10, ttft_ms=3.0),
        TurnRecord(profile="p", tokens_forced=None, ttft_ms=5.0),
    ]
    row = summarise(records)["p"]
    assert row["kl_mean"]["mean"] == pytest.approx((0.1 * 30 + 0.5 * 10) / 40)
    assert row["agreement"]["mean"] == pytest.approx(35 / 40)
    assert (row["kl_mean"]["p50"], row["kl_mean"]["n"], row["ttft_ms"]["mean"]) == (pytest.approx(0.3), 2, 3.0)


def test_the_divergence_is_kl() -> None:
    torch.manual_seed(0)
    left, right = (log_probabilities(torch.randn(1, 1000) * 3) for _ in range(2))
    expected = torch.nn.functional.kl_div(right.double(), left.double(), reduction="sum", log_target=True)
    assert divergence(left, right) == pytest.approx(float(expected), rel=1e-9)
    assert divergence(left, left) == 0.0
    masked = log_probabilities(torch.tensor([[0.0, 1.0, -torch.inf]]))
    assert divergence(masked, masked) == 0.0


def test_rows_come_back_bit_for_bit_from_the_disk() -> None:
    rows, kept = Rows(), [torch.randn(50) for _ in range(4)]
    for row in kept:
        rows.append(row)
    assert all(torch.equal(rows[place], kept[place]) for place in (2, 0, 3, 1))
    rows.append(kept[0])
    assert torch.equal(rows[4], kept[0]) and rows.count == 5
    rows.close()


def test_a_dialogue_has_no_more_of_the_disk_than_its_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "MOST_BYTES", 20 * 1024 * 4)  # an answer, and a part of the next
    status, found, err = replayed(capsys, options(dialogue(tmp_path), "full", SAME))
    assert status == 0
    assert [r["kl_mean"] for r in found[SAME]] == [0, None, None]
    assert all(r["nll"] is not None for r in found[SAME])
    assert err.count("fidelity is unknown for some turns: what full attention said") == 1


def test_where_two_answers_part() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([], []) is None


def test_who_the_others_are_compared_with() -> None:
    full, host, other = (load_profile(n) for n in ("full", "full", "snapkv"))
    host = host.with_overrides(["retain.tier=host"])
    assert full_of([other, host, full]) is full
    assert full_of([other, host]) is host
    assert full_of([other]) is None
    assert full_of([full.with_overrides(["keep.policy=snapkv"]), other]) is None
