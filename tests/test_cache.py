"""The decoder's self cache: which slot holds which position."""

import pytest
import torch

from t5g2.runtime.cache import SelfCache

HEADS, HEAD_DIM = 2, 3


def rows(positions: range, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of target positions, every number of them telling layer, position, head and dimension."""
    at = torch.tensor(list(positions)).float()
    head, dim = torch.meshgrid(torch.arange(HEADS), torch.arange(HEAD_DIM), indexing="ij")
    keys = 1000 * layer + 10 * at + (head + dim / 10).unsqueeze(-1)  # [heads, head_dim, M]
    return keys, -keys.transpose(1, 2)


@pytest.mark.parametrize("block", [1, 2, 5])
def test_a_position_lives_in_its_slot_until_the_ring_comes_round(block):
    slots = [6, 40]
    cache = SelfCache(slots, HEADS, HEAD_DIM)
    end = 0
    while end < 30:
        new = range(end, end + block)
        cache.write(new.start, *zip(*(rows(new, layer) for layer in range(2))))
        end = new.stop
        for layer, n in enumerate(slots):
            for position in range(max(0, end - n), end):
                keys, values = rows(range(position, position + 1), layer)
                assert torch.equal(cache.keys[layer][:, :, [position % n]], keys)
                assert torch.equal(cache.values[layer][:, [position % n]], values)


def test_memory_is_allocated_once():
    cache = SelfCache([6, 40], HEADS, HEAD_DIM)
    tensors = cache.keys + cache.values
    addresses = [t.data_ptr() for t in tensors]
    assert [tuple(t.shape) for t in tensors] == [(2, 3, 6), (2, 3, 40), (2, 6, 3), (2, 40, 3)]
    for position in range(20):
        cache.write(position, *zip(*(rows(range(position, position + 1), layer) for layer in range(2))))
    assert [t.data_ptr() for t in cache.keys + cache.values] == addresses
