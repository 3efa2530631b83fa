"""Parts of the LiteRT programs that differ from the stock ones."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.litert.matrices import Matrix
from t5g2.export.litert.operators import rms_norm, rotate
from t5g2.export.xnnpack import layers as stock


class Linear(nn.Module):
    """y = x W^T + b. x: [rows, K]; y: [rows, N]."""

    def __init__(self, matrix: Matrix, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.matrix.value, self.bias)


class TokenTable(nn.Module):
    """Rows of the token table: ids [rows] -> [rows, hidden]."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, self.matrix.value)


class RMSNorm(stock.RMSNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(stock.LayerNorm):
    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(-1, keepdim=True)


class QueryKeyValue(stock.QueryKeyValue):
    """Queries are scaled by their norm's weight: rotations are linear."""

    rotate = staticmethod(rotate)

    def __init__(self, weights, text) -> None:
        super().__init__(weights, text)
        self.q_norm.weight *= self.scale

    def queries(self, x: torch.Tensor, rotary) -> torch.Tensor:
        q = self.q_norm(self.q_proj(x).view(-1, self.num_heads, self.head_dim))
        return self.rotate(q, rotary)
