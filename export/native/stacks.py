"""The native encoder and decoder step."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.native.layers import Embedding, Head, Layer, norm_weight
from t5g2.export.shared import rotary_tables

_ops = torch.ops.t5g2
SLIDING = "sliding_attention"


class EncoderLayer(Layer):
    def __init__(self, weights, text, kind: str, exact: bool) -> None:
        super().__init__(weights, text)
        self.kind = kind
        self.window = text.sliding_window if kind == SLIDING else 0
        self.exact = exact

    def forward(self, x, normed, rotary, next_norm):
        mixed = _ops.attention(
            self.qkv_proj(normed), *rotary, self.q_norm, self.k_norm, *self.heads, self.window, self.scale, self.eps, self.exact
        )
        return self.finish(x, mixed, next_norm)


class DecoderLayer(Layer):
    def __init__(self, weights, text, kind: str, index: int, start: int, slots: int) -> None:
        """start: of this layer's keys in the flat self cache; slots: of its ring."""
        super().__init__(weights, text)
        self.kind = kind
        self.place = (index, start, slots, text.sliding_window if kind == SLIDING else 0)

    def forward(self, x, normed, rotary, position, cache, cross, next_norm):
        mixed = _ops.merged_attention(
            self.qkv_proj(normed), *rotary, self.q_norm, self.k_norm, position, cache, cross, *self.place, *self.heads,
            self.scale, self.eps,
        )  # fmt: skip
        return self.finish(x, mixed, next_norm)


class _Stack(nn.Module):
    """Layers with the norms between them."""

    def __init__(self, weights, text, embedding: Embedding, layers) -> None:
        super().__init__()
        self.embedding = embedding
        self.rotary = rotary_tables(text)
        self.layers = nn.ModuleList(layers)
        self.register_buffer("norm", norm_weight(weights, "norm"))
        self.eps = text.rms_norm_eps

    def run(self, x: torch.Tensor, position: torch.Tensor | None, *state) -> torch.Tensor:
        """x: embedded ids [rows, hidden], the first of them at `position` (int64 [1]; None: 0) -> the stack's normed output
        [rows, hidden]."""
        rotary = {kind: _ops.rotary(x, position, table.inverse_frequency) for kind, table in self.rotary.items()}
        normed = _ops.rms_norm(x, self.layers[0].pre_self_attn_layernorm, self.eps)
        following = [layer.pre_self_attn_layernorm for layer in self.layers[1:]] + [self.norm]
        for layer, next_norm in zip(self.layers, following):
            x, normed = layer(x, normed, rotary[layer.kind], *state, next_norm)
        return normed


class Encoder(_Stack):
    """Encodes a source and projects it into every decoder layer's cross keys and values."""

    def __init__(self, weights, text, embedding: Embedding, decoder: DecoderStep, exact: bool) -> None:
        kinds = text.layer_types
        super().__init__(
            weights, text, embedding, (EncoderLayer(weights.scope(f"layers.{i}"), text, k, exact) for i, k in enumerate(kinds))
        )
        self.decoder_layers = nn.ModuleList(decoder.layers)
        self.half = not exact

    def forward(self, ids: torch.Tensor, image_features: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """ids: int64 [S]. image_features: float32 [S, hidden], read only at rows whose id is the image token.

        Returns cross K/V of all decoder layers, [layers, 2, kv heads, S, head_dim], float16 (float32 where exact), and the
        encoder states, float32 [S, hidden].
        """
        states = self.run(self.embedding(ids, image_features), None)
        layers = self.decoder_layers
        cross = _ops.cross_kv(
            states,
            [layer.qkv_proj.weight for layer in layers],
            [layer.k_norm for layer in layers],
            *layers[0].heads,
            *layers[0].qkv_proj.layout,
            layers[0].eps,
            self.half,
        )
        return cross, states


class DecoderStep(_Stack):
    """M rows of the decoder, from ids to logits. The self cache is the caller's memory, written in place."""

    def __init__(self, weights, text, embedding: Embedding, slots: list[int]) -> None:
        """slots: of each layer's ring."""
        starts = [0]
        for n in slots:
            starts.append(starts[-1] + 2 * text.num_kv_heads * n * text.head_dim)
        self_layers = (
            DecoderLayer(weights.scope(f"layers.{i}"), text, kind, i, starts[i], slots[i])
            for i, kind in enumerate(text.layer_types)
        )
        super().__init__(weights, text, embedding, self_layers)
        self.cache_elements = starts[-1]
        self.head = Head(embedding)

    def forward(self, ids: torch.Tensor, position: torch.Tensor, cache: torch.Tensor, cross: torch.Tensor) -> torch.Tensor:
        """ids: int64 [M]; position: int64 [1], the target position of ids[0]; cache: float16 or float32 [cache_elements];
        cross: what the encoder returns, in the same dtype -> logits float32 [M, vocab]."""
        return self.head(self.run(self.embedding(ids), position, position, cache, cross))
