"""The `decode` signature: one target id at a position -> logits, with merged attention over caches updated in place."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.litert.layers import QueryKeyValue
from t5g2.export.litert.operators import matmul_transposed, write_rows
from t5g2.export.xnnpack import decoder as stock
from t5g2.export.xnnpack.layers import MASKED, Embedding


class MergedAttention(QueryKeyValue):
    """One softmax over [self ; cross], one output projection. Keys lie by position, values by dimension: both products then
    run along rows."""

    def forward(self, x, rotary, slot, mask, self_k, self_v, cross_k, cross_v):
        """x: [1, hidden]; slot: int32 scalar, where the new key and value go; mask: [1, R + B] to add to the scores;
        self_k: [kv heads, R, head_dim]; self_v: [kv heads, head_dim, R]; cross_k: [kv heads, B, head_dim]; cross_v:
        [kv heads, head_dim, B]. Returns [1, hidden] and the caches self_k and self_v with the new row.
        """
        q = self.queries(x, rotary).reshape(self.num_kv_heads, -1, self.head_dim)  # [kv heads, group, head_dim]
        new_k = self.rotate(self.keys(x), rotary).permute(1, 0, 2)  # [kv heads, 1, head_dim]
        new_v = self.values(x).permute(1, 2, 0)  # [kv heads, head_dim, 1]
        start = torch.zeros_like(slot)
        self_k = write_rows(self_k, new_k, [start, slot, start])
        self_v = write_rows(self_v, new_v, [start, start, slot])
        scores = torch.cat((matmul_transposed(q, self_k), matmul_transposed(q, cross_k)), dim=-1)
        weights = torch.softmax(scores + mask, dim=-1)  # [kv heads, group, R + B]
        slots = self_k.shape[1]
        mixed = matmul_transposed(weights[..., :slots], self_v) + matmul_transposed(weights[..., slots:], cross_v)
        # [kv heads, group, head_dim]
        return self.o_proj(mixed.reshape(1, self.num_heads * self.head_dim)), self_k, self_v


class DecoderLayer(stock.DecoderLayer):
    attention_class = MergedAttention


class DecoderStep(stock.DecoderStep):
    """One row of the decoder, from its id to logits. slots: of each layer's self cache, which is a ring."""

    layer_class = DecoderLayer

    def __init__(self, weights, text, embedding: Embedding, head: nn.Module, slots: list[int]) -> None:
        super().__init__(weights, text, embedding, head)
        self.slots = slots

    def forward(self, id: torch.Tensor, position: torch.Tensor, length: torch.Tensor, **caches: torch.Tensor) -> dict:
        """id, position, length: int32 [1], the target id, its position, and how many of the B source positions count.
        caches: `self_k_<layer>`, `self_v_<layer>`, `cross_k_<layer>`, `cross_v_<layer>`, shaped as in `MergedAttention`.

        Returns by name `logits`, float32 [1, vocab], and the self caches with the new row.
        """
        cross_visible = torch.arange(caches["cross_k_0"].shape[1]) < length  # [B]
        places = {
            kind: self._place(kind, position, cross_visible, slots)
            for kind, slots in {layer.layer_type: slots for layer, slots in zip(self.layers, self.slots)}.items()
        }
        rotary = {kind: table(position) for kind, table in self.rotary.items()}
        x = self.embedding(id)  # [1, hidden]
        updated = {}
        for i, layer in enumerate(self.layers):
            names = f"self_k_{i}", f"self_v_{i}", f"cross_k_{i}", f"cross_v_{i}"
            x, *new = layer(x, rotary[layer.layer_type], *places[layer.layer_type], *(caches[name] for name in names))
            updated |= zip(names, new)
        return {"logits": self.head(self.norm(x))} | updated

    def _place(self, kind: str, position: torch.Tensor, cross_visible: torch.Tensor, slots: int):
        """The slot of the new row, int32 scalar, and the mask over [self ; cross], [1, R + B]."""
        held = stock.cached_positions(position + 1, slots)  # [R]
        visible = held >= 0
        if kind == "sliding_attention":
            visible = torch.logical_and(visible, held > position - self.window)
        slot = torch.remainder(position, slots).reshape(())
        return slot, torch.where(torch.cat((visible, cross_visible)), 0.0, MASKED).unsqueeze(0)
