"""The token table: rows looked up from the same integers that the quantized vocabulary head multiplies by."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.quant.schemes import QuantScheme


class QuantizedEmbedding(nn.Module):
    """ids int64 [rows] -> float32 [rows, hidden]. int4 values are stored two to a byte, the even column in the low half."""

    def __init__(self, values: torch.Tensor, scales: torch.Tensor, scheme: QuantScheme) -> None:
        super().__init__()
        self.packed = scheme.bits == 4
        self.group_size = values.shape[1] // scales.shape[1]
        if self.packed:
            unsigned = (values + 8).to(torch.uint8)  # 0..15
            values = unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)
        self.register_buffer("values", values)  # int8 [vocab, hidden] or uint8 [vocab, hidden / 2]
        self.register_buffer("scales", scales.bfloat16())  # [vocab, hidden / group_size]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(ids, self.values)
        if self.packed:
            low = torch.bitwise_and(rows, 15)
            high = torch.bitwise_right_shift(rows, 4)
            rows = torch.stack((low, high), dim=-1).float() - 8.0  # [rows, hidden / 2, 2]
        scales = nn.functional.embedding(ids, self.scales).float().unsqueeze(-1)  # [rows, groups, 1]
        values = rows.float().view(-1, scales.shape[1], self.group_size)  # [rows, groups, group_size]
        return (values * scales).view(-1, scales.shape[1] * self.group_size)
