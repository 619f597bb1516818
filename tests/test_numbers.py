"""A model that computes NaN or infinity: the turn fails in one line, and nothing of it stays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_engine import run, some_ids

from loopserve_cli import replay
from loopserve_cli.config import ModelOptions, ReplayOptions, SamplingOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.finite import healthy, numbers_error
from loopserve_cli.engine.sampling import Sampler
from loopserve_cli.errors import NumbersError
from loopserve_cli.profile import load_profile

NAN, INF = math.nan, math.inf
WAYS = {"greedy": {}, "drawn": {"temperature": 0.8, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}}


class Spoilt:
    """Replaces logits of a model's `call`-th pass from now on, or its keys by what the embedding makes of NaN."""

    def __init__(self, model: Any, call: int, value: float, everywhere: bool = False) -> None:
        self.left, self.value, self.everywhere = call, value, everywhere
        self.handle = model.lm_head.register_forward_hook(self)
        self.embedding = model.get_input_embeddings().register_forward_hook(self.spoil_input)

    def spoil_input(self, _module: Any, _inputs: Any, out: torch.Tensor) -> torch.Tensor | None:
        self.left -= 1
        return out * self.value if self.left == 0 and self.everywhere else None

    def __call__(self, _module: Any, _inputs: Any, out: torch.Tensor) -> torch.Tensor | None:
        if self.left != 0 or self.everywhere:
            return None
        spoilt = out.clone()
        spoilt[..., 7] = self.value
        return spoilt

    def mend(self) -> None:
        self.handle.remove()
        self.embedding.remove()


def engine_under(profile: str = "full", *overrides: str) -> Engine:
    loaded = replace(tiny.loaded("llama"), stop_ids=frozenset())
    return Engine(loaded, load_profile(profile).with_overrides(overrides))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_no_token_is_drawn_from_what_is_no_number(bad: float, way: str) -> None:
    options = SamplingOptions(**WAYS[way], seed=1)  # type: ignore[arg-type]
    logits = torch.randn(1, 50)
    masked = logits.clone()
    masked[0, 10:] = -INF  # legal: the model masks them
    drawn = Sampler(options, torch.device("cpu"), [1, 2]).draw(masked)
    assert drawn is not None and drawn < 10
    spoilt = torch.full((1, 50), -INF) if bad == -INF else logits
    spoilt[0, 3] = bad
    assert Sampler(options, torch.device("cpu"), [1, 2]).draw(spoilt) is None
    assert healthy(masked).tolist() == [[True]] and healthy(spoilt).tolist() == [[False]]


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("call", [1, 4])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "profile",
    [
        ("full",),
        ("full", "retain.tier=host"),
        ("snapkv", "keep.budget=24"),
        ("snapkv", "keep.budget=24", "retain.tier=evict"),
        ("loopserve", "prefill.min_new=8", "prefill.min_keys=8", "keep.budget=24", "keep.interval=2"),
    ],
)
def test_a_turn_that_fails_leaves_nothing(profile: tuple[str, ...], way: str, call: int, everywhere: bool) -> None:
    engine, straight = engine_under(*profile), engine_under(*profile)
    options = {**WAYS[way], "seed": 3, "max_new_tokens": 12}
    for one in (engine, straight):
        run(one, some_ids(60, seed=1), **options)
    held = list(engine.tokens)
    spoilt = Spoilt(engine.model, call, NAN, everywhere)
    with pytest.raises(NumbersError, match="tiny-llama computed NaN or infinity in float32, so there is no answer; "):
        run(engine, some_ids(40, seed=2), **options)
    spoilt.mend()
    assert engine.tokens == held and len(engine.tokens) == engine._store.get_seq_length()
    for seed in (2, 5):
        assert (
            run(engine, some_ids(40, seed=seed), **options)[0] == run(straight, some_ids(40, seed=seed), **options)[0]
        )


def test_a_fed_history_is_checked_too() -> None:
    engine = engine_under()
    engine.feed(some_ids(30))
    spoilt = Spoilt(engine.model, 1, INF)
    with pytest.raises(NumbersError):
        engine.feed(some_ids(20, seed=2))
    spoilt.mend()
    assert engine.tokens == some_ids(30)


def test_keys_of_a_chunk_that_was_cancelled_do_not_stay() -> None:
    engine = engine_under()
    run(engine, some_ids(30), max_new_tokens=4)
    held = len(engine.tokens)
    spoilt = Spoilt(engine.model, 1, NAN, everywhere=True)
    asked = iter([False, True, True])
    list(engine.turn(some_ids(20, seed=2), SamplingOptions(), lambda: next(asked)))
    spoilt.mend()
    assert len(engine.tokens) == held + 20  # nobody looked at it yet
    with pytest.raises(NumbersError):
        run(engine, some_ids(5, seed=3), max_new_tokens=4)
    assert len(engine.tokens) == held
    assert len(run(engine, some_ids(5, seed=3), max_new_tokens=4)[0]) == 4


@pytest.mark.parametrize(
    ("dtype", "quant", "remedy"),
    [
        ("float16", None, "float16 overflows above 65,504: use --dtype bfloat16 or --dtype float32"),
        ("bfloat16", "nf4", "leave --quant nf4 out, or use --dtype float32"),
        ("float32", None, "its weights are damaged"),
    ],
)
def test_the_line_names_the_dtype_and_what_to_do(dtype: str, quant: str | None, remedy: str) -> None:
    told = str(numbers_error("m", dtype, quant))
    assert (
        told.startswith(f"m computed NaN or infinity in {dtype}, so there is no answer; {remedy}") and "\n" not in told
    )


def test_a_weight_too_large_for_float16_fails() -> None:
    loaded = tiny.loaded("llama")
    loaded.model.get_decoder().layers[1].mlp.down_proj.weight.data.mul_(1e5)
    loaded.model.to(torch.float16)
    with pytest.raises(NumbersError, match="in float16, so there is no answer; float16 overflows"):
        run(Engine(loaded, load_profile("full")), some_ids(20), max_new_tokens=3)


@pytest.mark.parametrize("broken", ["always", "second turn"])
def test_replay_records_it_and_goes_on(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = [{"role": role, "content": f"{role} {n}"} for n in range(3) for role in ("user", "assistant")]
    (tmp_path / "t.json").write_text(json.dumps({"id": "t", "messages": talk}))
    engine = engine_under()
    if broken == "always":
        engine.model.lm_head.weight.data.fill_(NAN)
    else:
        plain: Callable[..., Any] = Engine.turn
        seen: list[str] = []

        def turn(self: Engine, *args: Any) -> Any:
            seen.append(self.profile.name)
            if seen.count("full") == 3 and self.profile.name == "full":  # the warm-up is the first
                spoilt = Spoilt(self.model, 1, NAN)
                try:
                    yield from plain(self, *args)
                finally:
                    spoilt.mend()
            else:
                yield from plain(self, *args)

        monkeypatch.setattr(Engine, "turn", turn)
    profiles = (load_profile("full"), load_profile("snapkv"))
    options = ReplayOptions(
        ModelOptions(), SamplingOptions(max_new_tokens=4), profiles, (str(tmp_path / "t.json"),), json=True
    )
    assert replay.run(options, lambda _options, _say: engine) == 1
    rows = json.loads(capsys.readouterr().out)["records"]
    told = {(row["profile"], row["turn"]): row["error"] for row in rows}
    nan = "tiny-llama computed NaN or infinity in float32, so there is no answer; "
    if broken == "always":
        assert list(told) == [("full", 1), ("snapkv", 1)]
        assert all(line.startswith(nan) and line.endswith(" (2 later turns not run)") for line in told.values())
    else:
        assert [key for key, error in told.items() if error] == [("full", 2)]
        assert sorted(told) == [("full", 1), ("full", 2), ("snapkv", 1), ("snapkv", 2), ("snapkv", 3)]
        assert told["full", 2].startswith(nan) and told["full", 2].endswith(" (1 later turn not run)")
