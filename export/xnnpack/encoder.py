"""The encoder program: source ids -> cross K/V of every decoder layer."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.xnnpack.layers import MASKED, Embedding, Layer, QueryKeyValue, rotary_tables


class EncoderAttention(QueryKeyValue):
    """Bidirectional attention, all pairs or inside a sliding window given by `mask`."""

    def forward(self, x: torch.Tensor, rotary, mask: torch.Tensor | None) -> torch.Tensor:
        """x: [S, hidden]; mask: [S, S] to add to the scores, or None -> [S, hidden]."""
        q = self.queries(x, rotary).permute(1, 0, 2)  # [heads, S, head_dim]
        k = self._per_query_head(self.rotate(self.keys(x), rotary)).permute(1, 2, 0)  # [heads, head_dim, S]
        v = self._per_query_head(self.values(x)).permute(1, 0, 2)  # [heads, S, head_dim]
        scores = torch.bmm(q, k)  # [heads, S, S]
        if mask is not None:
            scores = scores + mask
        mixed = torch.bmm(torch.softmax(scores, dim=-1), v)  # [heads, S, head_dim]
        return self.o_proj(mixed.permute(1, 0, 2).reshape(-1, self.num_heads * self.head_dim))

    def _per_query_head(self, x: torch.Tensor) -> torch.Tensor:
        """[S, kv heads, head_dim] -> [S, heads, head_dim], each kv head repeated for its group of query heads."""
        group = self.num_heads // self.num_kv_heads
        return torch.cat([x[:, h : h + 1] for h in range(self.num_kv_heads) for _ in range(group)], dim=1)


class EncoderLayer(Layer):
    attention_class = EncoderAttention

    def __init__(self, weights, text, layer_type: str) -> None:
        super().__init__(weights, text, layer_type)
        self.self_attn = self.attention_class(weights.scope("self_attn"), text)

    def forward(self, x: torch.Tensor, *state) -> torch.Tensor:
        """Takes and returns what its attention does, for a whole layer."""
        x = x + self.post_self_attn_layernorm(self.self_attn(self.pre_self_attn_layernorm(x), *state))
        return self.feed_forward(x)


def sliding_window_mask(positions: torch.Tensor, window: int) -> torch.Tensor:
    """[S, S] of 0 where query i may see key j and MASKED elsewhere: -(window // 2) <= i - j < (window + 1) // 2."""
    distance = positions.unsqueeze(1) - positions.unsqueeze(0)  # [S, S]
    inside = torch.logical_and(distance >= -(window // 2), distance < (window + 1) // 2)
    return torch.where(inside, 0.0, MASKED)


class Encoder(nn.Module):
    """Encodes a source and projects it into every decoder layer's cross keys and values.

    decoder_attention: the attention blocks of the decoder, whose key and value projections make the cross K/V.
    image_token_id: of the rows that image features replace; None for a model that reads text only.
    """

    layer_class = EncoderLayer

    def __init__(self, weights, text, embedding: Embedding, decoder_attention, image_token_id: int | None) -> None:
        super().__init__()
        self.image_token_id = image_token_id
        self.window = text.sliding_window
        self.embedding = embedding
        self.rotary = rotary_tables(text)
        self.layers = nn.ModuleList(
            self.layer_class(weights.scope(f"layers.{i}"), text, kind) for i, kind in enumerate(text.layer_types)
        )
        self.norm = weights.norm("norm", text.rms_norm_eps)
        self.decoder_attention = nn.ModuleList(decoder_attention)

    def forward(self, ids: torch.Tensor, image_features: torch.Tensor | None = None):
        """ids: int64 [S]. image_features: float32 [S, hidden], read only at rows whose id is the image token.

        Returns cross keys, a list of [kv heads, head_dim, S]; cross values, a list of [kv heads, S, head_dim], one of each per
        decoder layer; and the encoder states, float32 [S, hidden]. Keys are stored transposed because every decoder step
        multiplies by them that way.
        """
        positions = torch.arange(ids.shape[0])  # [S]
        x = self.embedding(ids)  # [S, hidden]
        if image_features is not None:
            x = torch.where((ids == self.image_token_id).unsqueeze(-1), image_features, x)
        rotary = {kind: table(positions) for kind, table in self.rotary.items()}
        masks = {"sliding_attention": sliding_window_mask(positions, self.window), "full_attention": None}
        for layer in self.layers:
            x = layer(x, rotary[layer.layer_type], masks[layer.layer_type])
        x = self.norm(x)
        cross_k = [attention.keys(x).permute(1, 2, 0) for attention in self.decoder_attention]
        cross_v = [attention.values(x).permute(1, 0, 2) for attention in self.decoder_attention]
        return cross_k, cross_v, x
