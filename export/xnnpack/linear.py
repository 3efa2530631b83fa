"""Linears over quantized weights, as stock ExecuTorch runs them on XNNPACK.

The activation is quantized per row to asymmetric int8 at run time (qd8); the weight is one of
- int4 in groups, bfloat16 scales (XNNPACK's qb4w kernels);
- int8 per channel, float32 scales (qc8w). XNNPACK has no kernel for int8 in groups.
"""

from __future__ import annotations

import torch
import torchao  # noqa: F401  registers torch.ops.torchao
from torch import nn

from t5g2.quant.schemes import QuantScheme

_INT8_RANGE = (-128, 127)
_INT4_RANGE = (-8, 7)


def _quantize_rows(x: torch.Tensor) -> torch.Tensor:
    """Rounds each row of x [rows, K] to 256 levels between its minimum and maximum; returns them as float32."""
    block = [1, x.shape[-1]]
    ops = torch.ops.torchao
    scale, zero = ops.choose_qparams_affine(x, "ASYMMETRIC", block, torch.int8, *_INT8_RANGE, None, None, torch.int8)
    rounded = ops.quantize_affine(x, block, scale, zero, torch.int8, *_INT8_RANGE)
    return ops.dequantize_affine(rounded, block, scale, zero, torch.int8, *_INT8_RANGE)


class QuantizedLinear(nn.Module):
    """y = x W^T + b with a quantized W. x: float32 [rows, K]; y: float32 [rows, N]."""

    def __init__(
        self, values: torch.Tensor, scales: torch.Tensor, scheme: QuantScheme, bias: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.group_size = values.shape[1] // scales.shape[1]
        self.value_range = _INT4_RANGE if scheme.bits == 4 else _INT8_RANGE
        self.register_buffer("values", values)  # int8 [N, K]
        self.register_buffer("scales", scales.bfloat16() if scheme.group_size else scales)  # [N, K / group_size]
        self.register_buffer("zeros", torch.zeros(scales.shape, dtype=torch.int8))
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.ops.torchao.dequantize_affine(
            self.values, [1, self.group_size], self.scales, self.zeros, torch.int8, *self.value_range
        )  # [N, K]; XNNPACK fuses this into its kernel
        return nn.functional.linear(_quantize_rows(x), weight, self.bias)
