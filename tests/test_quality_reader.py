"""The reader on a small random Llama: chunks, rollback, and the queries it records."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from loopserve_cli.bench.quality.density import entry_share, sample_rows
from loopserve_cli.bench.quality.reader import Reader
from loopserve_cli.demo import tokenizer as tok
from loopserve_cli.demo.weights import load_checkpoint, load_folder
from loopserve_cli.errors import ModelError


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tok.build(dialogues=50)


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tok.VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        eos_token_id=tok.END,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data *= 8  # sharp enough that attention is not flat and the answers depend on the history
    return model


def test_chunks_and_other_questions_do_not_change_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    history = list(range(6, 300))
    whole = Reader(small_model(), tokenizer, chunk=1000)
    cut = Reader(small_model(), tokenizer, chunk=64)
    end = tokenizer.eos_token_id
    ids = torch.tensor([history + whole.encode("<|user|>What is it?<|end|><|assistant|>")])
    expected = small_model().generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=-1)[0, ids.shape[1] :]
    wanted = expected.tolist()
    for reader in (whole, cut):
        reader.read(history)
        reader.tokenizer.eos_token_id = wanted[11]  # so that an answer of a random model has an end
        reader.answer("Tell me the room of Miro.", 5)
        assert reader.cache.get_seq_length() == len(history)
        text = reader.answer("What is it?", 12)
        assert text == tokenizer.decode(wanted[: wanted.index(wanted[11])])
        assert reader.answer("What is it?", wanted.index(wanted[11])) is None
        assert reader.cache.get_seq_length() == len(history)
        reader.tokenizer.eos_token_id = end


def test_densities_are_those_of_the_models_own_attention(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = torch.randint(6, 1024, (600,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = sample_rows(len(ids), torch.Generator().manual_seed(2))
    eager = small_model()
    weights = eager(torch.tensor([ids]), output_attentions=True).attentions
    found = Reader(small_model(), tokenizer, chunk=128).densities(ids, rows, 0.9)
    assert [(h.layer, h.head) for h in found] == [(layer, head) for layer in range(2) for head in range(4)]
    for head in found:
        probabilities = weights[head.layer][0, head.head, rows[0]]
        assert head.entries == pytest.approx(entry_share(probabilities, rows[0], 0.9), rel=0.02)
        assert 0 < head.lines <= 1
        assert 0 < head.coverage <= 1.0001


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_folder(tmp_path, "cpu")
    with pytest.raises(ModelError, match=r"checkpoint\.pt does not exist"):
        load_checkpoint(tmp_path / "checkpoint.pt", "cpu")


def test_a_checkpoint_is_rounded_as_it_will_be_shipped_and_keeps_its_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from loopserve_cli.demo.train import configuration

    model = LlamaForCausalLM(configuration())
    torch.save({"model": model.state_dict(), "done": 123}, tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"tokenizer\.json does not exist"):
        load_checkpoint(tmp_path / "checkpoint.pt", "cpu")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded, beside, done = load_checkpoint(tmp_path / "checkpoint.pt", "cpu")
    assert done == 123
    assert beside.get_vocab() == tokenizer.get_vocab()
    weight = model.model.layers[0].mlp.up_proj.weight
    assert torch.equal(loaded.model.layers[0].mlp.up_proj.weight, weight.bfloat16().float())
