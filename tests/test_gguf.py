"""GGUF files: the same model as its safetensors, or one line that says what is wrong."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf_made
import numpy as np
import pytest
import tiny
import torch

from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.engine import gguf, gguf_positions, loader
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import Token
from loopserve_cli.engine.gguf_header import read_header
from loopserve_cli.errors import ModelError
from loopserve_cli.profile import load_profile


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model("llama", "sdpa")


@pytest.fixture(scope="module")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_made.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model)


def load(name: Path | str, **options: Any) -> loader.LoadedModel:
    return loader.load(ModelOptions(str(name), device="cpu", **options))


def answer(loaded: loader.LoadedModel, count: int = 12) -> list[int]:
    engine = Engine(loaded, load_profile("full"))
    return [e.id for e in engine.turn([1, 40, 50, 60], SamplingOptions(max_new_tokens=count)) if isinstance(e, Token)]


def test_a_file_is_the_model_it_was_made_of(model: Any, file: Path) -> None:
    loaded = load(file)
    made = dict(loaded.model.named_parameters())
    assert made.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(made[name], weight) for name, weight in model.named_parameters())
    assert loaded.context_limit == 4096 and loaded.layers == 2
    assert loaded.stop_ids == {tiny.tokenizer().eos_token_id}
    assert answer(loaded) == answer(tiny.loaded("llama"))


def test_its_tokenizer_is_the_one_it_was_made_of(file: Path) -> None:
    theirs, ours = tiny.tokenizer(), load(file).tokenizer
    assert len(ours) == len(theirs) == 1024
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(ours, name) == getattr(theirs, name)
    for text in ("<|endoftext|>", "Where is Miro?", "The room is 417.\n\nAnd  then?", "<|user|>x<|end|>"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        assert ours.decode(ours(text)["input_ids"]) == text
    talk = [{"role": "user", "content": "Hello."}]
    assert ours.apply_chat_template(talk, tokenize=False) == theirs.apply_chat_template(talk, tokenize=False)


def test_a_way_to_split_text_that_is_not_known_is_told(model: Any, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers.integrations.gguf", reason="an older transformers has no table of the known ways")
    for path, lines in ((file, 0), (gguf_made.write(tmp_path / "odd.gguf", model, pre="deepseek-coder"), 1)):
        said: list[str] = []
        loader.load(ModelOptions(str(path), device="cpu"), warn=said.append)
        assert len(said) == lines and all("splits text as deepseek-coder does" in line for line in said)


def test_a_folder_with_one_file_is_that_file(file: Path) -> None:
    assert answer(load(file.parent)) == answer(tiny.loaded("llama"))


def test_dtype_and_quantisation_go_on_top(model: Any, file: Path, tmp_path: Path) -> None:
    assert load(file, dtype="bfloat16").model.dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    for quant in ("nf4", "int8"):
        ours, theirs = load(file, quant=quant), load(tmp_path, quant=quant)
        assert ours.quant == quant and ours.model.config._attn_implementation == "loopserve"
        assert ours.model.model.layers[0].mlp.up_proj.weight.dtype in (torch.uint8, torch.int8)
        assert answer(ours) == answer(theirs)


def test_parts_are_one_model(model: Any, tmp_path: Path) -> None:
    files = gguf_made.write_parts(tmp_path, model, 3)
    steps: list[str] = []
    loaded = loader.load(ModelOptions(str(files[1]), device="cpu"), steps.append)
    assert steps[0].startswith("joining 3 GGUF files")
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True))
    assert answer(load(tmp_path)) == answer(tiny.loaded("llama"))
    files[2].unlink()
    with pytest.raises(ModelError, match=r"1 of its 3 parts are missing \(tiny-00003-of-00003.gguf\)"):
        load(files[0])


def test_what_the_reader_leaves_out_is_told(model: Any, tmp_path: Path) -> None:
    more = gguf_made.tensors_of(model) | {"blk.0.attn_q.bias": np.ones(64, np.float32)}
    with pytest.raises(ModelError, match=r"reader makes [\d,]+ weights of its [\d,]+, so it would be another model"):
        load(gguf_made.write(tmp_path / "biased.gguf", model, more))
    less = {name: value for name, value in gguf_made.tensors_of(model).items() if "blk.1.ffn_up" not in name}
    with pytest.raises(ModelError, match=r"1 of the tensors are missing"):
        load(gguf_made.write(tmp_path / "short.gguf", model, less))


def test_an_architecture_that_the_reader_does_not_know(file: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(file.read_bytes().replace(b"llama", b"lllma"))
    with pytest.raises(ModelError, match=r"GGUF reader cannot load it: .*lllma.* not supported") as caught:
        load(strange)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_whole(model: Any, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    old = b"GGUF" + struct.pack("<I", 1) + whole[8:]
    cases = {
        "empty": (b"", "the file is empty; copy it again"),
        "text": (b"not a model at all", "is no GGUF file"),
        "old": (old, "is GGUF version 1, but only 2 and 3"),
        "head": (whole[:3000], "is damaged: its header cannot be read; copy it again"),
        "start": (whole[:10], "is damaged: its header cannot be read; copy it again"),
        "cut": (whole[:-5000], "is cut off: it has "),
    }
    for name, (data, expected) in cases.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: {expected}"), (name, str(caught.value))
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="its tokenizer has no chat template; use an instruct or chat model"):
        load(gguf_made.write(tmp_path / "base.gguf", model, chat_template=False))


def test_several_files_in_a_folder_are_listed(file: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf", "mmproj-a.gguf"):
        (tmp_path / name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"holds 2 GGUF files; give one of them: a.gguf, b.gguf$"):
        load(tmp_path)


def test_scaled_positions_are_taken_over(model: Any, tmp_path: Path) -> None:
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 4096}
    loaded = load(gguf_made.write(tmp_path / "yarn.gguf", model, **yarn))
    assert loaded.context_limit == 4 * 4096
    assert (
        loaded.model.config.rope_parameters | {"rope_type": "yarn", "factor": 4.0}
        == loaded.model.config.rope_parameters
    )
    line = load(gguf_made.write(tmp_path / "line.gguf", model, rope__scaling__type="linear", rope__scaling__factor=2.0))
    assert torch.allclose(line.model.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq / 2)
    assert line.context_limit == 2 * 4096
    with pytest.raises(ModelError, match=r"scaled in a way \(spiral\) that is not known"):
        load(gguf_made.write(tmp_path / "odd.gguf", model, rope__scaling__type="spiral", rope__scaling__factor=2.0))


def test_the_frequencies_of_llama_3_are_taken_over(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = tiny.configuration("llama")
    config.rope_parameters = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config.max_position_embeddings = 131072
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (torch.arange(0, 16, 2) / 16)
    factors = (plain / scaled).numpy().astype(np.float32)
    assert factors.min() == 1.0 and factors.max() == 32.0 and len(set(factors.tolist())) > 2
    tensors = gguf_made.tensors_of(made) | {"rope_freqs.weight": factors}
    loaded = load(gguf_made.write(tmp_path / "llama3.gguf", made, tensors))
    assert torch.allclose(loaded.model.model.rotary_emb.inv_freq, scaled)
    assert loaded.context_limit == 131072
    tensors["rope_freqs.weight"] = factors[::-1].copy()
    with pytest.raises(ModelError, match="by factors of its own"):
        load(gguf_made.write(tmp_path / "own.gguf", made, tensors))


def test_longrope_is_taken_over(file: Path) -> None:
    from transformers import AutoConfig

    header = read_header(file)
    config = AutoConfig.for_model("phi3", hidden_size=64, num_attention_heads=4, max_position_embeddings=8192)
    entry = header.tensors["blk.0.attn_norm.weight"]  # 64 ones, of which 8 are read
    factors = {name: type(entry)(name, (8,), entry.kind, entry.offset) for name in (gguf.LONG, gguf.SHORT)}
    scaling = {"context_length": 8192, "rope.scaling.original_context_length": 4096, "rope.dimension_count": 12}
    settings = header.settings | {f"llama.{key}": value for key, value in scaling.items()}
    changed = replace(header, settings=settings, tensors=header.tensors | factors)
    gguf_positions.complete_positions(config, changed)
    rope = config.rope_parameters
    assert rope["rope_type"] == "longrope" and rope["factor"] == 2.0
    assert len(rope["long_factor"]) == len(rope["short_factor"]) == 8
    assert rope["original_max_position_embeddings"] == config.original_max_position_embeddings == 4096
    assert rope["partial_rotary_factor"] == 12 / 16


def test_the_header_says_what_the_file_holds(model: Any, file: Path) -> None:
    header = read_header(file)
    assert header.architecture == "llama" and header.own("block_count") == 2
    assert header.settings["tokenizer.ggml.tokens"] == 1024
    assert sum(t.elements for t in header.tensors.values()) == sum(p.numel() for p in model.parameters())
    assert header.numbers("output_norm.weight") == model.model.norm.weight.tolist()


def test_the_file_is_parsed_once_and_the_package_left_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf as package

    parsed: list[str] = []
    reader = package.GGUFReader

    def counted(path: str) -> Any:
        parsed.append(path)
        return reader(path)

    monkeypatch.setattr(package, "GGUFReader", counted)
    load(file)
    assert len(parsed) == 1 and package.GGUFReader is counted
