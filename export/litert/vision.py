"""The `vision` signature: pixels -> image features."""

from __future__ import annotations

import torch

from t5g2.export.litert.operators import matmul_transposed
from t5g2.export.xnnpack import vision as stock
from t5g2.export.xnnpack.layers import joined

_QUERY_BLOCK = 512  # queries scored at a time: 4096 patches at once would need 1 GB of scores


class VisionAttention(stock.VisionAttention):
    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q = q.permute(1, 0, 2)  # [heads, patches, head_dim]
        k = k.permute(1, 0, 2)  # [heads, patches, head_dim]
        v = v.permute(1, 2, 0)  # [heads, head_dim, patches]
        # One block after another, in this order: LiteRT runs operators as they stand, and keeps what is still to be read.
        mixed = [
            matmul_transposed(torch.softmax(matmul_transposed(block, k), dim=-1), v) for block in stock.blocks(q, _QUERY_BLOCK)
        ]
        return joined(mixed).permute(1, 0, 2)


class VisionLayer(stock.VisionLayer):
    attention_class = VisionAttention


class Vision(stock.Vision):
    layer_class = VisionLayer

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """pixels: float32 [1, channels, side, side], normalised. Returns by name `features`, [tokens, text hidden]."""
        return {"features": super().forward(pixels)}
