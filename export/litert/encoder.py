"""The `encode` signature: source ids padded to a bucket's length -> cross K/V of every decoder layer and encoder states."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from t5g2.export.litert.layers import QueryKeyValue
from t5g2.export.litert.operators import matmul_transposed
from t5g2.export.xnnpack import encoder as stock
from t5g2.export.xnnpack.layers import MASKED, joined

_MIN_BLOCK = 256  # queries scored at a time: fewer would be many more operators


@dataclass(frozen=True)
class Span:
    """Queries [query, query_end) and the keys [key, key_end) that some of them see."""

    query: int
    query_end: int
    key: int
    key_end: int


def block_spans(length: int, window: int) -> dict[str, list[Span]]:
    """Blocks of queries with what they see, by layer type: memory for scores is linear in the length, and in sliding layers
    so is their cost."""
    block = max(window, _MIN_BLOCK)
    starts = range(0, length, block)

    def spans(before: int, after: int) -> list[Span]:
        ends = (min(start + block, length) for start in starts)
        return [Span(start, end, max(0, start - before), min(length, end + after)) for start, end in zip(starts, ends)]

    return {"sliding_attention": spans((window - 1) // 2, window // 2), "full_attention": spans(length, length)}


class EncoderAttention(QueryKeyValue):
    """Bidirectional attention over a padded source."""

    def forward(self, x: torch.Tensor, rotary, spans: list[Span], masks: list[torch.Tensor]) -> torch.Tensor:
        """x: [B, hidden] -> [B, hidden]. masks: of each span, bool [queries or 1, keys], True where a query sees a key."""
        q = self.queries(x, rotary).permute(1, 0, 2)  # [heads, B, head_dim]
        k = self.rotate(self.keys(x), rotary).permute(1, 0, 2)  # [kv heads, B, head_dim]
        v = self.values(x).permute(1, 2, 0)  # [kv heads, head_dim, B]
        parts = [self._attend(q, k, v, span, mask) for span, mask in zip(spans, masks)]
        mixed = joined(parts)  # [heads, B, head_dim]
        return self.o_proj(mixed.permute(1, 0, 2).reshape(-1, self.num_heads * self.head_dim))

    def _attend(self, q, k, v, span: Span, mask: torch.Tensor) -> torch.Tensor:
        """One span's rows, [heads, queries, head_dim]."""
        q = q[:, span.query : span.query_end]
        queries = q.shape[1]
        q = q.reshape(self.num_kv_heads, -1, self.head_dim)  # a kv head's group of query heads under each other
        scores = matmul_transposed(q, k[:, span.key : span.key_end]).view(self.num_heads, queries, -1)
        weights = torch.softmax(scores + torch.where(mask, 0.0, MASKED), dim=-1)  # [heads, queries, keys]
        weights = weights.view(self.num_kv_heads, -1, weights.shape[-1])
        return matmul_transposed(weights, v[:, :, span.key : span.key_end]).view(self.num_heads, queries, -1)


class EncoderLayer(stock.EncoderLayer):
    attention_class = EncoderAttention


class Encoder(stock.Encoder):
    """Encodes a padded source and projects it into every decoder layer's cross keys and values."""

    layer_class = EncoderLayer

    def forward(self, ids: torch.Tensor, length: torch.Tensor, features: torch.Tensor | None = None) -> dict:
        """ids: int32 [B], of which the first `length` (int32 [1]) count. features: image features, float32 [B, hidden], read
        only at rows whose id is the image token.

        Returns by name `cross_k_<layer>` [kv heads, B, head_dim] and `cross_v_<layer>` [kv heads, head_dim, B], and `states`,
        float32 [B, hidden]; rows from `length` on mean nothing.
        """
        bucket = ids.shape[0]
        positions = torch.arange(bucket)  # [B]
        valid = positions < length  # [B]
        x = self.embedding(ids)  # [B, hidden]
        if features is not None:
            x = torch.where((ids == self.image_token_id).unsqueeze(-1), features, x)
        rotary = {kind: table(positions) for kind, table in self.rotary.items()}
        spans = block_spans(bucket, self.window)
        masks = {
            "sliding_attention": [self._sliding_mask(valid, span) for span in spans["sliding_attention"]],
            "full_attention": [valid.unsqueeze(0)] * len(spans["full_attention"]),
        }
        for layer in self.layers:
            kind = layer.layer_type
            x = layer(x, rotary[kind], spans[kind], masks[kind])
        x = self.norm(x)
        cross = {}
        for i, attention in enumerate(self.decoder_attention):
            cross[f"cross_k_{i}"] = attention.keys(x).permute(1, 0, 2)
            cross[f"cross_v_{i}"] = attention.values(x).permute(1, 2, 0)
        return cross | {"states": x}

    def _sliding_mask(self, valid: torch.Tensor, span: Span) -> torch.Tensor:
        """bool [queries, keys]: -(window // 2) <= query - key < (window + 1) // 2, and the key counts."""
        queries, keys = torch.arange(span.query, span.query_end), torch.arange(span.key, span.key_end)
        distance = queries.unsqueeze(1) - keys.unsqueeze(0)
        inside = torch.logical_and(distance >= -(self.window // 2), distance < (self.window + 1) // 2)
        return torch.logical_and(inside, valid[span.key : span.key_end].unsqueeze(0))
