"""One choice for all layers: what each would have chosen alone, few launches, no waits, and few bytes from the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

import torch
from choice_counted import LAYERS, counted_choice
from test_engine import run, some_ids
from test_keep import SCALING, policy_of, random_parts
from test_tiers import GROUPS, SIZE, engine_of, tails
from test_tiers import LAYERS as TINY_LAYERS

from loopserve_cli.engine.host_tier import HostLayer
from loopserve_cli.engine.layer_decoding import accumulate
from loopserve_cli.policies.keep import ScoringWindow
from loopserve_kernels import gather_triton, key_mass_triton

POLICIES = ("streaming", "snapkv", "adakv", "h2o", "progressive")
MOST_LAUNCHES = 200
ROW = GROUPS * SIZE * 4  # bytes of one token's key, or value, in one layer


def layers_seen(policy: str, keys: int) -> list[ScoringWindow]:
    window = policy_of(policy).window and 8
    found = []
    for seed in range(5):
        query, key, _ = random_parts(keys, keys, seed)
        rows = torch.arange(keys - window, keys)
        summed = accumulate(None, query, key, SCALING) if policy == "h2o" else None
        found.append(ScoringWindow(query[:, rows], rows, key, SCALING, summed))
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_layers_at_once_choose_what_each_chooses_alone(name: str) -> None:
    policy = policy_of(name, budget=24, **({"window": 8} if name in ("snapkv", "adakv") else {}))
    layers = layers_seen(name, 90)
    looked_at = []

    def one_after_the_other() -> Iterator[ScoringWindow]:
        for number, layer in enumerate(layers):
            looked_at.append(number)
            yield layer

    together = policy.choose(one_after_the_other())
    assert looked_at == list(range(5)) and len(together) == 5
    for own, layer in zip(together, layers, strict=True):
        alone = policy.select(layer)
        assert alone is not None and own.count.tolist() == alone.count.tolist()
        for group, count in enumerate(own.count.tolist()):
            assert own.index[group, :count].tolist() == alone.index[group, :count].tolist()
        assert own.total == int(own.count.sum()) and own.even == alone.even
    if name != "streaming":
        assert any(not torch.equal(together[0].index, own.index) for own in together), "layers differ"


def test_no_length_compiles_a_kernel_anew() -> None:
    lengths = {
        key_mass_triton.ring_lse_kernel: {"slots", "keys", "span"},
        key_mass_triton.merge_lse_kernel: {"rows", "splits"},
        key_mass_triton.key_mass_kernel: {"slots", "keys"},
        gather_triton.gather_keys_kernel: {"width", "stride_index"},
    }
    for kernel, names in lengths.items():
        assert {param.name for param in kernel.params if param.do_not_specialize} == names


@pytest.mark.parametrize("name", ["progressive", "snapkv", "streaming"])
def test_a_choice_is_few_launches_and_no_wait(name: str) -> None:
    found = counted_choice(name)
    assert found.launches <= MOST_LAUNCHES and not found.waits
    assert found.triton["gather_keys_kernel"] == LAYERS
    more = counted_choice(name, layers=2 * LAYERS).launches - found.launches
    by_layer = 1 if name == "streaming" else 4
    assert more == by_layer * LAYERS, "what is not done by layer is done once"


def test_a_choice_brings_keys_alone_and_the_chosen_rows() -> None:
    """Each of two choices: the host's rows of every layer's keys, and the budget's rows of keys and values."""
    budget, prompt = 24, 200
    engine = engine_of("loopserve", "host")
    engine.feed(some_ids(prompt))
    _, record = run(engine, some_ids(1), max_new_tokens=12)
    # The prompt's last token brings all that came before it; five steps read everything, then 201 + 5 and 201 + 10
    # tokens are chosen from. The first steps' tail is flushed when they are gathered from.
    prefill = TINY_LAYERS * 2 * prompt * ROW
    steps = 5 * TINY_LAYERS * 2 * (prompt + 1) * ROW
    choices = TINY_LAYERS * ((prompt + 1) + (prompt + 6) + 2 * 2 * budget) * ROW
    assert record.reselections == 2 and record.streamed_bytes == prefill + steps + choices


@pytest.mark.parametrize(
    ("profile", "looked_at"), [("snapkv", 1), ("adakv", 1), ("h2o", 0), ("streaming-llm", 0), ("expected-attention", 2)]
)
def test_policies_that_look_at_no_key_bring_none(profile: str, looked_at: int) -> None:
    engine = engine_of(profile, "host")
    _, record = run(engine, some_ids(200), max_new_tokens=12)
    assert record.streamed_bytes == TINY_LAYERS * (looked_at * 200 + 2 * 24) * ROW


def test_nothing_is_streamed_where_everything_lies_on_the_device() -> None:
    _, record = run(engine_of("loopserve", "device"), some_ids(200), max_new_tokens=12)
    assert record.streamed_bytes == 0


@torch.inference_mode()
def test_keys_of_a_look_are_those_that_are_stored() -> None:
    engine = engine_of("loopserve", "host")
    run(engine, some_ids(90), max_new_tokens=5)
    for layer in engine._store.layers:
        assert isinstance(layer, HostLayer) and layer.next_row == 4
        looked_at = layer.all_keys().clone()
        tail_keys, _ = tails(layer)
        assert torch.equal(looked_at[:, :, 90:], tail_keys[:, :, :4])
        keys, values = (part.clone() for part in layer.everything(94))
        assert torch.equal(looked_at, keys)
        assert all(map(torch.equal, layer.sources(0), (keys, values)))
