"""Parts that the native stacks share: modules that hold packed weights and call one operator each."""

from __future__ import annotations

import math

import torch
from torch import nn

from t5g2.export.native import ops  # noqa: F401  registers torch.ops.t5g2
from t5g2.quant.packed import BLOCK_ROWS, PackedMatrix, pack_weight

_ops = torch.ops.t5g2


class PackedWeight(nn.Module):
    """A packed matrix as a buffer, with the arguments by which operators know its layout."""

    def __init__(self, packed: PackedMatrix) -> None:
        super().__init__()
        self.register_buffer("weight", packed.data)  # uint8 [bytes]
        self.rows, self.layout = packed.shape.rows, (packed.shape.bits, packed.shape.group_size)


class Linear(PackedWeight):
    """y = x W^T + b, optionally gelu of it. x: [rows, K]; y: [rows, N]."""

    def __init__(self, packed: PackedMatrix, bias: torch.Tensor | None = None, gelu: bool = False) -> None:
        super().__init__(packed)
        self.register_buffer("bias", bias)
        self.gelu = gelu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _ops.linear(x, self.weight, self.bias, self.rows, *self.layout, self.gelu)


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)). x: [rows, hidden]. Gate and up are one matrix, in alternating blocks of 16 rows."""

    def __init__(self, weights, intermediate_size: int) -> None:
        super().__init__()
        gate, up = weights.stored("gate_proj.weight"), weights.stored("up_proj.weight")  # [ff, hidden]
        self.intermediate_size = intermediate_size
        self.gate_up = PackedWeight(pack_weight(interleave(gate, up), weights.scheme, weights.prefix + "gate_proj"))
        self.down_proj = Linear(weights.packed("down_proj.weight"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = _ops.geglu(x, self.gate_up.weight, self.intermediate_size, *self.gate_up.layout)  # [rows, ff]
        return self.down_proj(y)


def interleave(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """[ff, hidden] twice -> [2 * ff, hidden], ff padded to blocks: 16 rows of gate, the same 16 of up, the next 16, …"""
    padding = -gate.shape[0] % BLOCK_ROWS
    gate, up = (nn.functional.pad(w, (0, 0, 0, padding)).view(-1, BLOCK_ROWS, w.shape[1]) for w in (gate, up))
    return torch.stack((gate, up), dim=1).flatten(0, 2)


class Layer(nn.Module):
    """What a layer of either stack has beside its attention. Subclasses run the attention, then `finish`.

    A layer takes the residual stream and its normed value, and returns both for the next layer, so that every norm is
    fused with the residual sum before it. `next_norm` is the norm weight that follows: the next layer's or the stack's.
    """

    def __init__(self, weights, text) -> None:
        super().__init__()
        self.eps = text.rms_norm_eps
        self.heads = (text.num_heads, text.num_kv_heads)
        self.scale = text.query_pre_attn_scalar**-0.5
        attention = weights.scope("self_attn")
        qkv = torch.cat([attention.stored(f"{part}_proj.weight") for part in "qkv"])  # [(heads + 2 kv heads) * d, hidden]
        self.qkv_proj = Linear(pack_weight(qkv, weights.scheme, attention.prefix + "q_proj"))
        self.o_proj = Linear(attention.packed("o_proj.weight"))
        self.mlp = GatedMLP(weights.scope("mlp"), text.intermediate_size)
        for norm in ("q_norm", "k_norm"):
            self.register_buffer(norm, norm_weight(attention, norm))  # [head_dim]
        for norm in NORMS:
            self.register_buffer(norm, norm_weight(weights, norm))  # [hidden]

    def finish(self, x: torch.Tensor, mixed: torch.Tensor, next_norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x: the residual stream [rows, hidden]; mixed: what attention made, [rows, heads * head_dim]."""
        x, normed = _ops.add_rms_norm(
            x, self.o_proj(mixed), self.post_self_attn_layernorm, self.pre_feedforward_layernorm, self.eps
        )
        return _ops.add_rms_norm(x, self.mlp(normed), self.post_feedforward_layernorm, next_norm, self.eps)


NORMS = (
    "pre_self_attn_layernorm",
    "post_self_attn_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def norm_weight(weights, name: str) -> torch.Tensor:
    """An RMSNorm's weight with its 1 added."""
    return 1.0 + weights.tensor(f"{name}.weight")


class Embedding(PackedWeight):
    """Token rows times sqrt(hidden), in float32 as transformers keeps it for a float32 model; the end-of-image row is its
    own vector, not scaled; image rows are replaced by features."""

    def __init__(self, packed: PackedMatrix, eoi: torch.Tensor, eoi_id: int, image_id: int | None) -> None:
        super().__init__(packed)
        self.register_buffer("eoi", eoi)  # [hidden]
        self.ids = (-1 if eoi_id is None else eoi_id, -1 if image_id is None else image_id)
        self.scale = math.sqrt(eoi.shape[0])

    def forward(self, ids: torch.Tensor, image_features: torch.Tensor | None = None) -> torch.Tensor:
        """ids: int64 [rows]; image_features: float32 [rows, hidden] or None -> float32 [rows, hidden]."""
        return _ops.embedding(ids, self.weight, self.eoi, image_features, *self.ids, *self.layout, self.scale)


class Head(nn.Module):
    """Logits from the token table's own bytes: [rows, hidden] -> [rows, vocab]."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.table = embedding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _ops.linear(x, self.table.weight, None, self.table.rows, *self.table.layout, False)
