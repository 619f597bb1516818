"""The store: what goes in comes out, appending is amortised constant, rewinding is exact."""

from __future__ import annotations

import pytest
import torch

from loopserve_cli.engine.store import Store
from loopserve_cli.engine.store_layer import StoreLayer


def append(layer: StoreLayer, count: int, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    new = torch.arange(start, start + count, dtype=torch.float32).reshape(1, 1, count, 1).expand(1, 2, count, 4)
    return layer.update(new, -new)


def test_appended_rows_come_back_in_order() -> None:
    layer = StoreLayer()
    total = 0
    for count in (1, 300, 7, 1000, 1):
        keys, values = append(layer, count, total)
        total += count
        assert keys.shape == (1, 2, total, 4)
        assert torch.equal(keys[0, 1, :, 3], torch.arange(total, dtype=torch.float32))
        assert torch.equal(values, -keys)


def test_appending_is_amortised_constant() -> None:
    layer, copied, moves = StoreLayer(), 0, 0
    for token in range(32_768):
        before = layer.keys
        append(layer, 1, token)
        if layer.keys is not before:
            moves += 1
            copied += layer.length - 1
    assert moves < 20
    assert copied < 3 * 32_768


def test_reserving_moves_the_buffer_once() -> None:
    layer = StoreLayer()
    layer.wanted = 5000
    append(layer, 1, 0)
    first = layer.keys
    for token in range(1, 5000):
        append(layer, 1, token)
    assert layer.keys is first and layer.capacity == 5120


def test_rewind_forgets_the_tail_and_keeps_the_room() -> None:
    layer = StoreLayer()
    append(layer, 700, 0)
    held = layer.bytes
    layer.rewind(100)
    keys, _ = append(layer, 5, 9000)
    assert keys[0, 0, :, 0].tolist() == [*range(100), *range(9000, 9005)]
    assert layer.bytes == held == 2 * 2 * 768 * 4 * 4


def test_running_out_of_memory_half_way_through_growing_is_mended_by_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer, asked = StoreLayer(), 0
    append(layer, 10, 0)
    real = torch.Tensor.new_empty

    def second_fails(tensor: torch.Tensor, *shape: object) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise torch.OutOfMemoryError
        return real(tensor, *shape)

    monkeypatch.setattr(torch.Tensor, "new_empty", second_fails)
    with pytest.raises(torch.OutOfMemoryError):
        append(layer, 300, 10)
    keys, values = append(layer, 300, 10)
    assert keys[0, 0, :, 0].tolist() == list(range(310)) == (-values[0, 0, :, 0]).tolist()


def test_crop_takes_a_negative_count_as_transformers_does() -> None:
    store = Store(2)
    for index in range(2):
        store.update(torch.zeros(1, 2, 10, 4), torch.zeros(1, 2, 10, 4), index)
    store.crop(-4)
    assert store.length == store.get_seq_length() == 6
    assert store.get_mask_sizes(3, 0) == (9, 0)


def test_reset_gives_the_memory_back() -> None:
    store = Store(1)
    store.update(torch.zeros(1, 2, 10, 4), torch.zeros(1, 2, 10, 4), 0)
    assert store.host_bytes == 2 * 2 * 256 * 4 * 4 and store.device_bytes == 0
    store.reset()
    assert store.host_bytes == 0 and store.length == 0
