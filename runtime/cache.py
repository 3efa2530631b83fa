"""The decoder's self cache: fixed memory, a ring of `window + slack` slots on sliding layers."""

from __future__ import annotations

import torch


class SelfCache:
    """Keys [kv heads, head_dim, slots] and values [kv heads, slots, head_dim] of every decoder layer, float32.

    Target position p lives in slot p mod slots. The decoder step reads the slots as they are and works out from the
    position which of them are visible, so nothing is ever cleared.
    """

    def __init__(self, slots: list[int], kv_heads: int, head_dim: int) -> None:
        self.slots = slots
        self.keys = [torch.zeros(kv_heads, head_dim, n) for n in slots]
        self.values = [torch.zeros(kv_heads, n, head_dim) for n in slots]

    def write(self, position: int, new_keys: list[torch.Tensor], new_values: list[torch.Tensor]) -> None:
        """Stores the K/V of rows that start at `position`: per layer [kv heads, head_dim, M] and [kv heads, M, head_dim]."""
        rows = new_values[0].shape[1]
        for layer, slots in enumerate(self.slots):
            index = torch.arange(position, position + rows) % slots
            self.keys[layer][:, :, index] = new_keys[layer]
            self.values[layer][:, index] = new_values[layer]
