from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch

from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.demo import curriculum, train
from loopserve_cli.demo import language as lang
from loopserve_cli.demo import tokenizer as tok

STEP = 512


@pytest.fixture
def short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages of two small steps each, the second with penalties and jumps."""
    stages = (
        curriculum.Stage(2 * STEP, (64,), jumps=False, tokens_per_step=STEP),
        curriculum.Stage(10**9, (128,), entropy=0.1, far=0.1, tokens_per_step=STEP),
    )
    monkeypatch.setattr(train, "STAGES", stages)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_goes_on_from_its_checkpoint_and_exports(short_stages: None, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = demo_model_folder()
    train.train(tmp_path, 1e-4, 2 * STEP, 0, "cpu", init=model)
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert first["progress"] == {"done": 2 * STEP, "stage": 1, "in_stage": 0}
    train.train(tmp_path, 1e-4, 3 * STEP, 0, "cpu")
    second = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert second["progress"] == {"done": 3 * STEP, "stage": 1, "in_stage": STEP}
    assert [row["length"] for row in rows(tmp_path)] == [64, 128]
    assert len(rows(tmp_path)[1]["entropy"]) == 4  # type: ignore[arg-type]
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, tensor in second["model"].items():
        assert torch.equal(exported.state_dict()[name], tensor.bfloat16().float()), name
    shipped = AutoTokenizer.from_pretrained(model)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == shipped.get_vocab()


def test_the_script_s_tokenizer_is_the_shipped_one() -> None:
    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(demo_model_folder())
    built = tok.build()
    assert built.backend_tokenizer.to_str() == shipped.backend_tokenizer.to_str()
    assert built.chat_template == shipped.chat_template


def test_the_model_is_small_enough_to_ship() -> None:
    assert (demo_model_folder() / "model.safetensors").stat().st_size <= 16 * 2**20


def test_what_is_weighted_is_what_must_be_looked_up() -> None:
    tokenizer, rng = tok.build(dialogues=200), Random(3)
    for length in (128, 512):
        ids, weights = curriculum.sample_dialogue(rng, tokenizer, length)
        assert len(ids) == len(weights) == length + 1
        looked_up = [i for i, w in enumerate(weights) if w == curriculum.LOOK_UP_WEIGHT]
        assert looked_up
        for at in looked_up:
            assert tokenizer.decode(ids[at - 1]).strip() in ("is", "now")
            assert tok.ASSISTANT in ids[at - 40 : at]


def test_alike_names_share_syllables_and_none_is_held_out() -> None:
    names = curriculum.alike_names(Random(1), 16)
    assert len(names) == len(set(names)) == 16
    assert not any(lang.is_held_out(name) for name in names)
    assert len({name[2:] for name in names}) <= 8


def test_positions_ascend_and_jump() -> None:
    rng = Random(0)
    drawn = [curriculum.jumping_positions(rng, 300) for _ in range(40)]
    assert all(p[0] == 0 and len(p) == 300 and all(a < b for a, b in zip(p, p[1:], strict=False)) for p in drawn)
    assert max(p[-1] for p in drawn) > 10_000
    assert all(p[-1] < curriculum.MOST_POSITIONS for p in drawn)


def test_the_rate_warms_up_holds_and_falls() -> None:
    rate = [train.learning_rate(done, 40_000_000) for done in (0, 300_000, 10_000_000, 30_000_000, 40_000_000)]
    assert rate[0] < rate[1] < rate[2] == 1.0 > rate[3] > rate[4] == pytest.approx(0.03)
