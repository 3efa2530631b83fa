"""Parts that the stacks share. All activations are float32; all tensors are without a batch dimension."""

from __future__ import annotations

import math

import torch
from torch import nn

from t5g2.export import shared

MASKED = -1e30  # added to a score that must not count: exp() of it is exactly 0, and unlike -inf it never makes NaN


class Linear(nn.Module):
    """y = x W^T + b in float32. x: [rows, K]; weight: [N, K]; y: [rows, N]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (1 + weight) over the last dimension; the 1 is folded in here."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", 1.0 + weight)  # [hidden]
        # The mean as a product with a column of 1/hidden: XNNPACK takes a linear of any rank, and no mean of rank 2 or 3.
        self.register_buffer("average", torch.full((1, weight.numel()), 1.0 / weight.numel()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean_square = nn.functional.linear(x * x, self.average)  # [..., 1]
        return x * torch.rsqrt(mean_square + self.eps) * self.weight


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension, means as products (see `RMSNorm`)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("average", torch.full((1, weight.numel()), 1.0 / weight.numel()))

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.average)  # [..., 1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - self.mean(x)
        variance = self.mean(centred * centred)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """GELU, tanh approximation, as x * sigmoid(2u): 0.5 (1 + tanh u) = sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).

    Spelled out because XNNPACK's delegate lowers aten.gelu to the exact GELU whatever `approximate` says.
    """
    return x * torch.sigmoid((2.0 * math.sqrt(2.0 / math.pi)) * (x + 0.044715 * (x * x * x)))


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)). x: [rows, hidden]."""

    def __init__(self, weights) -> None:
        super().__init__()
        self.gelu = weights.gelu()
        self.gate_proj = weights.linear("gate_proj")
        self.up_proj = weights.linear("up_proj")
        self.down_proj = weights.linear("down_proj")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.gelu(self.gate_proj(x)) * self.up_proj(x))


class PerHeadRotaryTable(shared.RotaryTable):
    """cos and sin as float32 [rows, 1, head_dim / 2], ready for [rows, heads, ...]."""

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = super().forward(positions)
        return cos.unsqueeze(1), sin.unsqueeze(1)


def rotary_tables(text) -> nn.ModuleDict:
    return shared.rotary_tables(text, PerHeadRotaryTable)


def rotate(x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Applies rotary positions to x [rows, heads, head_dim]."""
    cos, sin = rotary
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def joined(blocks: list[torch.Tensor]) -> torch.Tensor:
    """Blocks of rows [heads, rows, head_dim] under each other."""
    return torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]


class QueryKeyValue(nn.Module):
    """The four projections of an attention block, with query and key norms; the same for both stacks."""

    rotate = staticmethod(rotate)

    def __init__(self, weights, text) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = text.num_heads, text.num_kv_heads, text.head_dim
        self.scale = text.query_pre_attn_scalar**-0.5
        self.q_proj = weights.linear("q_proj")
        self.k_proj = weights.linear("k_proj")
        self.v_proj = weights.linear("v_proj")
        self.o_proj = weights.linear("o_proj")
        self.q_norm = weights.norm("q_norm", text.rms_norm_eps)
        self.k_norm = weights.norm("k_norm", text.rms_norm_eps)

    def queries(self, x: torch.Tensor, rotary) -> torch.Tensor:
        """x: [rows, hidden] -> normed, rotated and scaled queries [rows, heads, head_dim]."""
        q = self.q_norm(self.q_proj(x).view(-1, self.num_heads, self.head_dim))
        return self.rotate(q, rotary) * self.scale

    def keys(self, x: torch.Tensor) -> torch.Tensor:
        """x: [rows, hidden] -> normed keys [rows, kv heads, head_dim], not rotated: cross keys stay so."""
        return self.k_norm(self.k_proj(x).view(-1, self.num_kv_heads, self.head_dim))

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """x: [rows, hidden] -> values [rows, kv heads, head_dim]."""
        return self.v_proj(x).view(-1, self.num_kv_heads, self.head_dim)


class Layer(nn.Module):
    """What a layer of either stack has beside its attention: four norms and the MLP. Subclasses add `self_attn`."""

    def __init__(self, weights, text, layer_type: str) -> None:
        super().__init__()
        self.layer_type = layer_type
        eps = text.rms_norm_eps
        self.mlp = GatedMLP(weights.scope("mlp"))
        self.pre_self_attn_layernorm = weights.norm("pre_self_attn_layernorm", eps)
        self.post_self_attn_layernorm = weights.norm("post_self_attn_layernorm", eps)
        self.pre_feedforward_layernorm = weights.norm("pre_feedforward_layernorm", eps)
        self.post_feedforward_layernorm = weights.norm("post_feedforward_layernorm", eps)

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        """The second half of the layer, residual included. x: [rows, hidden]."""
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Embedding(nn.Module):
    """Token rows times sqrt(hidden); the end-of-image row is its own vector, not scaled.

    sqrt(hidden) is kept in float32, as transformers has it when a checkpoint is loaded in float32. A bfloat16 run rounds
    it (25.25 for 25.298 at 270M).
    """

    def __init__(self, table: nn.Module, hidden_size: int, eoi: torch.Tensor, eoi_token_id: int) -> None:
        super().__init__()
        self.table = table
        self.scale = math.sqrt(hidden_size)
        self.eoi_token_id = eoi_token_id
        self.register_buffer("eoi", eoi)  # [hidden]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: int64 [rows] -> float32 [rows, hidden]."""
        is_eoi = (ids == self.eoi_token_id).unsqueeze(-1)  # [rows, 1]
        return torch.where(is_eoi, self.eoi, self.table(ids) * self.scale)


class TokenTable(nn.Module):
    """The float32 token table, which the float32 vocabulary head reads too."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)  # [vocab, hidden]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.weight)


class TiedHead(nn.Module):
    """Logits from the float32 token table itself: [rows, hidden] -> [rows, vocab].

    Written as table x hidden^T, not as a linear, so that no delegate takes a second copy of the table.
    """

    def __init__(self, table: TokenTable) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mm(self.table.weight, x.t()).t()
