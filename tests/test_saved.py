"""A store in a file: what comes back is what was there, and nothing else is ever taken for it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_engine import run, some_ids

from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.config import ModelOptions, SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine import loader, saved_write
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import TurnDone
from loopserve_cli.engine.loader import LoadedModel
from loopserve_cli.engine.store_layer import StoreLayer
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.profile import Profile, load_profile
from loopserve_cli.stats import TurnRecord

TIERS = ("device", "host")


def profile_of(name: str, tier: str = "device") -> Profile:
    budget = [] if name in ("full", "loopserve-prefill") else ["keep.budget=24"]
    every = ["keep.interval=5", "keep.recent=4"] if name == "loopserve" else []
    sparse = ["prefill.min_new=8", "prefill.min_keys=8"] if name.startswith("loopserve") else []
    return load_profile(name).with_overrides([*budget, *every, *sparse, f"retain.tier={tier}"])


def engine_of(kind: str = "llama", profile: str = "full", tier: str = "device", **changes: object) -> Engine:
    endless = replace(tiny.loaded(kind), stop_ids=frozenset(), **changes)  # type: ignore[arg-type]
    return Engine(endless, profile_of(profile, tier))


def talked(engine: Engine) -> Engine:
    """Two turns of 40 tokens in and 20 out; the last of them is not stored."""
    for turn in range(2):
        run(engine, some_ids(40, seed=turn), max_new_tokens=20)
    return engine


@torch.inference_mode()
def same_rows(left: Engine, right: Engine) -> bool:
    pairs = zip(left._store.layers, right._store.layers, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one.rows(), other.rows(), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.kv.safetensors"


@pytest.fixture
def file(path: Path) -> Path:
    """The file of a dialogue of 118 tokens."""
    talked(engine_of()).save(path)
    return path


@pytest.mark.parametrize("after", TIERS)
@pytest.mark.parametrize("before", TIERS)
@pytest.mark.parametrize("profile", ["full", "snapkv", "loopserve"])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_a_loaded_dialogue_goes_on_as_one_that_never_stopped(
    kind: str, profile: str, before: str, after: str, path: Path
) -> None:
    straight, stopped = talked(engine_of(kind, profile, before)), talked(engine_of(kind, profile, before))
    written = stopped.save(path)
    assert written == path.stat().st_size
    goes_on = engine_of(kind, profile, after)
    goes_on.restore(goes_on.saved(path))
    assert goes_on.tokens == straight.tokens and same_rows(goes_on, straight)
    for engine in (straight, stopped, goes_on):  # and saving left no trace in the one that went on
        first, record = run(engine, some_ids(30, seed=7), max_new_tokens=30)
        assert (record.tokens_new, record.tokens_cached) == (30, 2 * 59)
        second, _ = run(engine, some_ids(30, seed=8), max_new_tokens=10)
        if engine is straight:
            expected = first, second
        assert (first, second) == expected
    assert same_rows(goes_on, straight)


@pytest.mark.parametrize("tier", TIERS)
@torch.inference_mode()
def test_the_file_is_safetensors_with_the_rows_as_they_are(tier: str, path: Path) -> None:
    engine = talked(engine_of(tier=tier))
    engine.save(path)
    tensors = load_file(path)
    assert tensors["tokens"].tolist() == engine.tokens
    names = [f"layers.{number}.{part}" for number in (0, 1) for part in ("keys", "values")]
    assert sorted(tensors) == sorted(["tokens", "sums", *names])
    for number, layer in enumerate(engine._store.layers):
        keys, values = layer.everything(len(engine.tokens))
        assert torch.equal(tensors[f"layers.{number}.keys"], keys[0])
        assert torch.equal(tensors[f"layers.{number}.values"], values[0])
    with safe_open(path, framework="pt") as opened:
        facts = json.loads(opened.metadata()["loopserve"])
    assert facts["format"] == 2 and facts["identity"]["model"] == "tiny-llama"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_as_it_is(dtype: torch.dtype, path: Path) -> None:
    def half() -> Engine:
        made = tiny.loaded("llama")
        made.model.to(dtype)
        return Engine(replace(made, stop_ids=frozenset()), profile_of("full"))

    engine = talked(half())
    engine.save(path)
    other = half()
    other.restore(other.saved(path))
    assert load_file(path)["layers.0.keys"].dtype == dtype
    assert same_rows(engine, other)


@pytest.mark.parametrize("tier", TIERS)
def test_rewinding_after_loading_is_exact(tier: str, file: Path) -> None:
    straight, loaded = talked(engine_of()), engine_of(tier=tier)
    loaded.restore(loaded.saved(file))
    for engine in (straight, loaded):
        engine.rewind(71)
        engine.feed(some_ids(5, seed=3))
        engine.rewind(60)
    assert loaded.tokens == straight.tokens
    assert (
        run(loaded, some_ids(9), max_new_tokens=12)[0] == run(straight, some_ids(9), max_new_tokens=12)[0]
    ) and same_rows(loaded, straight)


def test_loading_replaces_what_was_stored(file: Path) -> None:
    engine = engine_of()
    run(engine, some_ids(300, seed=9), max_new_tokens=3)
    engine.restore(engine.saved(file))
    assert len(engine.tokens) == engine._store.length == 118
    assert same_rows(engine, talked(engine_of()))


def other_weights() -> Engine:
    return Engine(tiny.loaded("llama", seed=1), profile_of("full"))


def one_weight_changed() -> Engine:
    made = tiny.loaded("llama")
    with torch.no_grad():
        made.model.get_decoder().layers[1].mlp.up_proj.weight[77, 5] += 1e-3
    return Engine(made, profile_of("full"))


def other_dtype() -> Engine:
    made = tiny.loaded("llama")
    made.model.to(torch.bfloat16)
    return Engine(made, profile_of("full"))


def other_geometry() -> Engine:
    from transformers import AutoModelForCausalLM

    config = tiny.configuration("llama")
    config.num_key_value_heads = 4
    model = AutoModelForCausalLM.from_config(config, attn_implementation=tiny.ATTENTION_NAME).eval()
    return Engine(replace(tiny.loaded("llama"), model=model), profile_of("full"))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: engine_of("qwen2"), "with another model (tiny-llama, now tiny-qwen2)"),
        (other_geometry, "with another model (tiny-llama, now tiny-llama)"),
        (other_weights, "with other weights (tiny-llama)"),
        (one_weight_changed, "with other weights (tiny-llama)"),
        (other_dtype, "in float32 (now bfloat16; see --dtype)"),
        (lambda: engine_of(quant="int8"), "with no quantisation (now int8; see --quant)"),
        (
            lambda: engine_of(tokenizer=tiny.fresh_tokenizer("{{ messages }}")),
            "with another tokenizer or chat template",
        ),
    ],
)
def test_another_model_is_refused_and_keeps_what_it_holds(made: object, expected: str, file: Path) -> None:
    engine = made()  # type: ignore[operator]
    engine.feed(some_ids(5))
    with pytest.raises(LoopserveError) as caught:
        engine.saved(file)
    assert str(caught.value) == f"{file} was saved {expected}"
    assert engine.tokens == some_ids(5)


def test_a_model_is_itself_on_every_load_and_under_every_name(tmp_path: Path) -> None:
    def identity(options: ModelOptions, tier: str = "device") -> object:
        return Engine(loader.load(options), profile_of("full", tier)).identity

    moved = tmp_path / "moved"
    shutil.copytree(demo_model_folder(), moved)
    first = identity(ModelOptions())
    assert identity(ModelOptions(), "host") == first
    assert replace(identity(ModelOptions(str(moved))), model="demo") == first  # type: ignore[type-var]
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    assert "another model" in str(first.difference(identity(ModelOptions(str(moved)))))  # type: ignore[attr-defined]


def test_a_quantised_model_is_the_same_whether_its_check_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start runs the model before the chat does, which packs its weights anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = (
        Engine(loader.load(ModelOptions(device="cpu", quant="int8")), profile_of("full")).identity for _ in range(2)
    )
    assert (tmp_path / "loopserve" / "attention-checks.json").is_file()
    assert first == second


@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_a_quantised_model_is_the_same_after_it_was_used(quant: str, path: Path) -> None:
    def made() -> Engine:
        return Engine(loader.load(ModelOptions(device="cpu", quant=quant)), profile_of("full"))

    engine, other = made(), made()
    _, record = run(engine, some_ids(40), max_new_tokens=8)
    engine.save(path)
    other.restore(other.saved(path))
    assert other.tokens == engine.tokens
    assert run(engine, some_ids(9, seed=1), max_new_tokens=8)[0] == run(other, some_ids(9, seed=1), max_new_tokens=8)[0]


HEADER = 8


def data_begins(file: Path) -> int:
    return HEADER + int.from_bytes(file.read_bytes()[:HEADER], "little")


def refused(file: Path) -> str:
    """Loads into an engine that then must still be of use; the error."""
    engine = engine_of()
    with pytest.raises(LoopserveError) as caught:
        engine.restore(engine.saved(file))
    assert engine.tokens == [] and engine._store.length == 0 and engine.made_under == {}
    ids = some_ids(40)
    assert run(engine, ids, max_new_tokens=5)[0] == run(engine_of(), ids, max_new_tokens=5)[0]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("place", [0.0, 0.001, 0.02, 0.5, 0.97, 0.9999])
def test_one_wrong_bit_anywhere_in_the_data_is_found(place: float, file: Path) -> None:
    data = bytearray(file.read_bytes())
    begin = data_begins(file)
    data[begin + int(place * (len(data) - begin))] ^= 4
    file.write_bytes(data)
    assert refused(file) == f"{file}: is damaged, or no safetensors file"


@pytest.mark.parametrize("kept", [0, 5, 100, 2000, -8, -1])
def test_a_file_that_was_cut_off_is_damaged(kept: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    assert refused(file) == f"{file}: is damaged, or no safetensors file"


def test_pages_that_never_reached_the_disk_are_found(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-8192:-4096] = bytes(4096)
    file.write_bytes(data)
    assert "is damaged" in refused(file)


def rewritten(file: Path, change: object, facts: object = None) -> None:
    """The same file from safetensors' own hand, with tensors or facts changed."""
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        told = json.loads(opened.metadata()["loopserve"])
    if facts is not None:
        told = facts(told)  # type: ignore[operator]
    change(tensors)  # type: ignore[operator]
    save_file(tensors, file, metadata={"loopserve": json.dumps(told)})


def shorter(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("keys", "values"):
        tensors[f"layers.1.{name}"] = tensors[f"layers.1.{name}"][:, :-1].contiguous()


def flat(tensors: dict[str, torch.Tensor]) -> None:
    tensors["layers.0.keys"] = tensors["layers.0.keys"].flatten()


@pytest.mark.parametrize(
    "change",
    [
        shorter,
        flat,
        lambda tensors: tensors.pop("layers.1.keys"),
        lambda tensors: tensors.pop("tokens"),
        lambda tensors: tensors.pop("sums"),
        lambda tensors: tensors.update(sums=tensors["sums"][:3].clone()),
        lambda tensors: tensors.update(tokens=tensors["tokens"].float()),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(change: object, file: Path) -> None:
    rewritten(file, change)
    assert "is damaged" in refused(file)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (lambda told: told | {"format": 3, "version": "9.0"}, "was saved by loopserve 9.0 in another format"),
        (lambda told: {}, "is damaged"),
        (lambda told: [], "is damaged"),
        (lambda told: told | {"identity": {"model": "x"}}, "is damaged"),
        (lambda told: told | {"profiles": 3}, "is damaged"),
    ],
)
def test_facts_that_are_not_ours_are_refused(facts: object, expected: str, file: Path) -> None:
    rewritten(file, lambda tensors: None, facts)
    assert expected in refused(file)


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    assert refused(path) == f"{path}: no such file"
    assert refused(tmp_path) == f"{tmp_path}: is a folder, not a saved cache"
    path.write_text("this is a text about safetensors\n" * 100)
    assert "is damaged, or no safetensors file" in refused(path)
    save_file({"tokens": torch.arange(5)}, path)
    assert refused(path) == f"{path}: is no cache that loopserve saved"


def test_only_an_own_file_is_replaced_and_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    engine, link = engine_of(), tmp_path / "link.kv.safetensors"
    link.symlink_to(file)
    engine.feed(some_ids(7))
    engine.save(link)
    assert link.is_symlink() and engine.saved(file).tokens == some_ids(7)
    foreign = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(3)}, foreign)
    before = foreign.read_bytes()
    with pytest.raises(UsageError, match="exists already and is no cache that loopserve saved"):
        engine.save(foreign)
    assert foreign.read_bytes() == before


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """The system lets no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(file: Path) -> None:
    before = file.read_bytes()
    engine = engine_of()
    engine.feed(some_ids(400))
    with small_disk(len(before)), pytest.raises(OSError):
        engine.save(file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    engine.save(file)
    assert engine.saved(file).tokens == some_ids(400)


def test_ctrl_c_while_writing_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, engine = file.read_bytes(), talked(engine_of())
    calls = iter(range(100))
    plain = saved_write.raw

    def pressed(block: torch.Tensor) -> memoryview:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return plain(block)

    monkeypatch.setattr(saved_write, "raw", pressed)
    with pytest.raises(KeyboardInterrupt):
        engine.save(file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_what_a_killed_process_left_is_not_read_and_goes_with_the_next_save(file: Path) -> None:
    left = file.with_name(f".{file.name}.0123abcd.tmp")
    left.write_bytes(file.read_bytes()[:500])
    other = file.with_name(".y.kv.safetensors.0123abcd.tmp")
    other.write_bytes(b"another file's")
    engine = engine_of()
    engine.restore(engine.saved(file))
    assert len(engine.tokens) == 118
    engine.save(file)
    assert sorted(os.listdir(file.parent)) == [other.name, file.name]


def test_memory_that_runs_out_while_loading_leaves_an_empty_engine(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = StoreLayer.update
    engine = engine_of()

    def no_room(self: StoreLayer, *states: torch.Tensor) -> object:
        if self is engine._store.layers[1] and states[0].shape[2] == 118:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, *states)

    monkeypatch.setattr(StoreLayer, "update", no_room)
    assert engine._store.layers
    with pytest.raises(LoopserveError, match=r"out of memory at 118 tokens"):
        engine.restore(engine.saved(file))
    assert engine.tokens == [] and engine.kv_bytes == 0
    assert run(engine, some_ids(40), max_new_tokens=5)[1].tokens_new == 40


def test_there_is_nothing_to_save_before_the_first_token(path: Path) -> None:
    with pytest.raises(UsageError, match="nothing in the cache yet"):
        engine_of().save(path)
    assert not path.exists()


def test_a_tier_that_evicts_neither_saves_nor_loads(file: Path, tmp_path: Path) -> None:
    engine = talked(engine_of(profile="snapkv", tier="evict"))
    held = list(engine.tokens)
    with pytest.raises(UsageError, match=r"retain\.tier is evict: what it has dropped could not be loaded"):
        engine.save(tmp_path / "y.kv.safetensors")
    with pytest.raises(UsageError, match=r"retain\.tier is evict, which loads no saved cache"):
        engine.saved(file)
    assert engine.tokens == held and os.listdir(tmp_path) == [file.name]


def test_the_profiles_that_computed_the_rows_are_told(path: Path) -> None:
    engine = engine_of(profile="snapkv")
    assert engine.made_otherwise == []
    run(engine, some_ids(40), max_new_tokens=5)
    engine.set_profile(profile_of("full"))
    run(engine, some_ids(40, seed=1), max_new_tokens=5)
    assert engine.made_otherwise == [profile_of("snapkv").name]
    engine.save(path)
    for profile, others in {"full": ["snapkv"], "snapkv": ["full"], "h2o": ["snapkv", "full"]}.items():
        for tier in TIERS:  # where the rows lie changes nothing in them
            other = engine_of(profile=profile, tier=tier)
            other.restore(other.saved(path))
            assert [name.partition("+")[0] for name in other.made_otherwise] == others
    other.rewind(0)
    assert other.made_under == {}


def demo(tier: str, profile: str) -> Conversation:
    loaded: LoadedModel = loader.load(ModelOptions(device="cpu"))
    return Conversation(Engine(loaded, load_profile(profile).with_overrides([f"retain.tier={tier}"])))


def ask(conversation: Conversation, text: str) -> TurnRecord:
    *_, done = conversation.ask(text, SamplingOptions(max_new_tokens=40))
    assert isinstance(done, TurnDone)
    return done.record


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("profile", ["full", "loopserve"])
def test_a_demo_dialogue_that_was_saved_goes_on_with_the_same_words(profile: str, tier: str, path: Path) -> None:
    questions = ["The colour of Anna is red.", "The home of Bert is Rome.", "What is the colour of Anna?"]
    straight, stopped, goes_on = demo("device", profile), demo("device", profile), demo(tier, profile)
    for text in questions:
        ask(straight, text)
        ask(stopped, text)
    stopped.engine.save(path)
    goes_on.load(stopped.messages)
    assert goes_on.take_up(path) == len(stopped.engine.tokens)
    assert 0 < goes_on.missing == straight.missing <= 3
    for text in ("What is the home of Bert?", "The home of Bert is now Oslo.", "What is the home of Bert?"):
        expected, got = ask(straight, text), ask(goes_on, text)
        assert got.output_text == expected.output_text
        assert (got.tokens_new, got.tokens_cached, got.tokens_rolled_back) == (
            expected.tokens_new,
            expected.tokens_cached,
            0,
        )
    assert goes_on.engine.tokens == straight.engine.tokens


def test_a_cache_is_used_as_far_as_it_agrees(path: Path) -> None:
    stopped, goes_on = demo("device", "full"), demo("device", "full")
    for text in ("The colour of Anna is red.", "The home of Bert is Rome.", "What is the colour of Anna?"):
        ask(stopped, text)
    stopped.engine.save(path)
    held = len(stopped.engine.tokens)
    goes_on.load(stopped.messages[:-2])
    agreed = goes_on.take_up(path)
    assert held / 2 < agreed == len(goes_on.engine.tokens) < held
    assert goes_on.take_up(path) == 0  # it is there already
    goes_on.undo()
    record = ask(goes_on, "The home of Bert is Rome.")
    assert record.output_text == stopped.messages[3].content
    another = demo("device", "full")
    another.load([replace(stopped.messages[0], content="Hello. " * 50)])
    with pytest.raises(LoopserveError, match=r"only \d of its \d+ tokens are of this dialogue"):
        another.take_up(path)
    assert another.engine.tokens == []
