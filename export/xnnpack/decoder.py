"""The decoder step program: M target ids at a position -> logits, with merged attention over a static cache."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.xnnpack.layers import MASKED, Embedding, Layer, QueryKeyValue, rotary_tables


class MergedAttention(QueryKeyValue):
    """One softmax over [self ; cross], one output projection.

    Self keys are the cached ones and the M new ones. The three score blocks are concatenated, never the keys or values.
    """

    def forward(self, x, rotary, masks, cached_k, cached_v, cross_k, cross_v):
        """x: [M, hidden]; masks: for the cached and the new keys, [group * M, R] and [group * M, M];
        cached_k: [kv heads, head_dim, R]; cached_v: [kv heads, R, head_dim]; cross_k: [kv heads, head_dim, S];
        cross_v: [kv heads, S, head_dim].

        Returns [M, hidden] and the M new keys and values, [kv heads, head_dim, M] and [kv heads, M, head_dim].
        """
        group = self.num_heads // self.num_kv_heads
        q = self.queries(x, rotary).view(-1, self.num_kv_heads, group, self.head_dim)
        q = q.permute(1, 2, 0, 3).reshape(self.num_kv_heads, -1, self.head_dim)  # [kv heads, group * M, head_dim]
        new_k = self.rotate(self.keys(x), rotary).permute(1, 2, 0)  # [kv heads, head_dim, M]
        new_v = self.values(x).permute(1, 0, 2)  # [kv heads, M, head_dim]

        cached_mask, new_mask = masks
        scores = torch.cat(
            (torch.bmm(q, cached_k) + cached_mask, torch.bmm(q, new_k) + new_mask, torch.bmm(q, cross_k)), dim=-1
        )  # [kv heads, group * M, R + M + S]
        weights = torch.softmax(scores, dim=-1)
        cached, new = cached_k.shape[-1], new_k.shape[-1]
        mixed = (
            torch.bmm(weights[..., :cached], cached_v)
            + torch.bmm(weights[..., cached : cached + new], new_v)
            + torch.bmm(weights[..., cached + new :], cross_v)
        )  # [kv heads, group * M, head_dim]
        mixed = mixed.view(self.num_kv_heads, group, -1, self.head_dim).permute(2, 0, 1, 3)
        return self.o_proj(mixed.reshape(-1, self.num_heads * self.head_dim)), new_k, new_v


class DecoderLayer(Layer):
    attention_class = MergedAttention

    def __init__(self, weights, text, layer_type: str) -> None:
        super().__init__(weights, text, layer_type)
        self.self_attn = self.attention_class(weights.scope("self_attn"), text)

    def forward(self, x, *state):
        """Takes and returns what its attention does, for a whole layer."""
        mixed, k, v = self.self_attn(self.pre_self_attn_layernorm(x), *state)
        return self.feed_forward(x + self.post_self_attn_layernorm(mixed)), k, v


def cached_positions(position: torch.Tensor, slots: int) -> torch.Tensor:
    """Which target position each cache slot holds before `position` is written: int64 [slots], negative where empty.

    Position p lives in slot p mod slots, so slot s holds the largest p < position with p = s (mod slots).
    """
    last = position - 1  # [1]
    # `+ slots` keeps the dividend from being negative, where ExecuTorch's remainder has C's sign and torch's has Python's.
    return last - torch.remainder(last + slots - torch.arange(slots), slots)


def visibility_mask(visible: torch.Tensor, group: int) -> torch.Tensor:
    """bool [M, keys] -> float32 [group * M, keys]: 0 or MASKED, once for every query head of a kv head."""
    return torch.cat([torch.where(visible, 0.0, MASKED)] * group, dim=0)


class DecoderStep(nn.Module):
    """M rows of the decoder, from ids to logits.

    The caller owns the cache: it passes it in, gets the M new keys and values back, and writes them to slots
    `position mod slots`. Sliding layers have `window + slack` slots, full layers one per target position.
    """

    layer_class = DecoderLayer

    def __init__(self, weights, text, embedding: Embedding, head: nn.Module) -> None:
        super().__init__()
        self.group = text.num_heads // text.num_kv_heads
        self.window = text.sliding_window
        self.embedding = embedding
        self.rotary = rotary_tables(text)
        self.layers = nn.ModuleList(
            self.layer_class(weights.scope(f"layers.{i}"), text, kind) for i, kind in enumerate(text.layer_types)
        )
        self.norm = weights.norm("norm", text.rms_norm_eps)
        self.head = head

    def forward(self, ids, position, cached_k, cached_v, cross_k, cross_v):
        """ids: int64 [M]; position: int64 [1], the target position of ids[0]; the others are lists with one tensor a layer,
        shaped as in `MergedAttention.forward`.

        Returns logits float32 [M, vocab] and the new keys and values, lists with one tensor a layer.
        """
        rows = position + torch.arange(ids.shape[0])  # [M]
        x = self.embedding(ids)  # [M, hidden]
        rotary = {kind: table(rows) for kind, table in self.rotary.items()}
        masks = {
            kind: self._masks(kind, rows, position, cached_k[self._first(kind)].shape[-1])
            for kind in {layer.layer_type for layer in self.layers}
        }
        new_k, new_v = [], []
        for i, layer in enumerate(self.layers):
            kind = layer.layer_type
            x, k, v = layer(x, rotary[kind], masks[kind], cached_k[i], cached_v[i], cross_k[i], cross_v[i])
            new_k.append(k)
            new_v.append(v)
        return self.head(self.norm(x)), new_k, new_v

    def _first(self, kind: str) -> int:
        return next(i for i, layer in enumerate(self.layers) if layer.layer_type == kind)

    def _masks(self, kind: str, rows: torch.Tensor, position: torch.Tensor, slots: int):
        """Masks for the cached and for the new keys, [group * M, slots] and [group * M, M]."""
        query = rows.unsqueeze(1)  # [M, 1]
        cached = cached_positions(position, slots).unsqueeze(0)  # [1, slots]
        new = rows.unsqueeze(0)  # [1, M]
        cached_visible = torch.logical_and(cached >= 0, cached < query)  # [M, slots]
        new_visible = new <= query  # [M, M]
        if kind == "sliding_attention":
            cached_visible = torch.logical_and(cached_visible, cached > query - self.window)
            new_visible = torch.logical_and(new_visible, new > query - self.window)
        return visibility_mask(cached_visible, self.group), visibility_mask(new_visible, self.group)
