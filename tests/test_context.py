"""How many tokens a model reads: from its configuration, and as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from loopserve_cli import app
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import loader
from loopserve_cli.engine.context import context_limit, own_limit
from loopserve_cli.errors import ModelError, UsageError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
LINEAR = {"rope_type": "linear", "factor": 8.0}
# Kind, tokens as the configuration states them, scaling, and what is to be read.
LIMITS: list[tuple[str, int, dict[str, Any] | None, int]] = [
    ("llama", 512, None, 512),
    ("qwen2", 512, YARN, 2048),
    ("qwen3", 640, YARN, 2048),
    ("mistral", 2048, YARN, 2048),
    ("llama", 4096, YARN, 4096),
    ("llama", 512, {"type": "yarn", "factor": 2.0}, 1024),
    ("llama", 512, {"rope_type": "linear", "factor": 2.5}, 1280),
    ("llama", 512, {"rope_type": "dynamic", "factor": 2.0}, 1024),
    ("llama", 4096, LLAMA3, 4096),
    ("phi3", 4096, LONGROPE | {"original_max_position_embeddings": 512}, 4096),
    ("gemma3_text", 4096, LINEAR, 4096),
]


def configuration(kind: str, stated: int, scaling: dict[str, Any] | None) -> Any:
    from transformers import AutoConfig

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": stated}
    extra = {} if scaling is None else {"rope_scaling": dict(scaling)}
    if kind == "phi3":
        extra["original_max_position_embeddings"] = 512
    return AutoConfig.for_model(kind, **sizes, **extra)


@pytest.mark.parametrize(("kind", "stated", "scaling", "limit"), LIMITS)
def test_the_limit_of_a_configuration(kind: str, stated: int, scaling: dict[str, Any] | None, limit: int) -> None:
    assert own_limit(configuration(kind, stated, scaling)) == limit


@pytest.mark.parametrize(
    ("kind", "name", "limit"), [("gpt2", "n_positions", 96), ("mpt", "max_seq_len", 80), ("bloom", "n_layer", None)]
)
def test_the_limit_under_other_names(kind: str, name: str, limit: int | None) -> None:
    from transformers import AutoConfig

    assert own_limit(AutoConfig.for_model(kind, **{name: limit or 2})) == limit


def test_layers_of_their_own_scaling() -> None:
    config = configuration("gemma3_text", 512, None)
    config.rope_parameters["full_attention"] |= YARN
    assert own_limit(config) == 2048


def test_asking_lowers_the_limit_and_raises_it_with_a_warning() -> None:
    config, said = configuration("llama", 512, None), list[str]()
    assert context_limit(config, None, "m", said.append) == 512
    assert context_limit(config, 100, "m", said.append) == 100
    assert context_limit(config, 512, "m", said.append) == 512
    assert said == []
    assert context_limit(config, 2000, "m", said.append) == 2000
    assert said == ["--context 2,000 is above the 512 tokens that m is made for: past them its answers may be wrong"]


def test_a_table_of_positions_cannot_grow() -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model("gpt2", n_positions=96)
    assert context_limit(config, 90, "m") == 90
    with pytest.raises(ModelError, match=r"--context 97 is above the 96 tokens of m, whose positions are a table"):
        context_limit(config, 97, "m")


@pytest.mark.parametrize(("text", "tokens"), [("64", 64), ("2k", 2048), (" 1k ", 1024)])
def test_the_flag_is_a_number_of_tokens(text: str, tokens: int) -> None:
    from loopserve_cli.flags import model_flags

    assert model_flags(context=text).context == tokens


@pytest.mark.parametrize("text", ["0", "-5", "many", "1.5k", "9999999k", ""])
def test_other_flags_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["chat", f"--context={text}", "hi"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"loopserve: --context: {text!r} is no length from 1 to ") and said.count("\n") == 1


def test_options_check_the_number() -> None:
    with pytest.raises(UsageError, match="--context is 0"):
        ModelOptions(context=0)


def test_a_dialogue_is_held_to_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = "where is it? " * 20
    assert app.main(["chat", "--context", "40", question]) == 1
    assert "but demo reads at most 40; shorten the message" in capsys.readouterr().err
    assert app.main(["chat", "--context", "128k", "--max-new-tokens", "2", "hi"]) == 0
    assert "--context 131,072 is above the 65,536 tokens that demo is made for" in capsys.readouterr().err
    assert app.main(["replay", "demo", "--max-turns", "1", "--max-new-tokens", "2", "--context", "128k"]) == 0
    assert "--context 131,072 is above the 65,536 tokens" in capsys.readouterr().err


def test_a_loaded_model_has_the_limit(tmp_path: Path) -> None:
    tiny.model("qwen2", "sdpa").save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert loader.load(ModelOptions(str(tmp_path), device="cpu", context=77)).context_limit == 77
