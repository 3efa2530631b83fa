"""Linears over quantized weights, as stock ExecuTorch runs them on XNNPACK.

The activation is quantized per row to asymmetric int8 at run time (qd8); the weight is one of
- int4 in groups, bfloat16 scales (XNNPACK's qb4w kernels);
- int8 per channel, float32 scales (qc8w);
- int8 in groups, for which XNNPACK has no kernel: two int4 planes, `values = 16 * high + low`, exact for |values| <= 119.
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


class _Plane(nn.Module):
    """One matrix of integers with its scales, dequantized where it is used; XNNPACK fuses this into its kernel."""

    def __init__(self, values: torch.Tensor, scales: torch.Tensor, value_range: tuple[int, int]) -> None:
        super().__init__()
        self.group_size = values.shape[1] // scales.shape[1]
        self.value_range = value_range
        self.register_buffer("values", values)  # int8 [N, K]
        self.register_buffer("scales", scales)  # [N, K / group_size]
        self.register_buffer("zeros", torch.zeros(scales.shape, dtype=torch.int8))

    def forward(self) -> torch.Tensor:
        return torch.ops.torchao.dequantize_affine(
            self.values, [1, self.group_size], self.scales, self.zeros, torch.int8, *self.value_range
        )


class QuantizedLinear(nn.Module):
    """y = x W^T + b with a quantized W. x: float32 [rows, K]; y: float32 [rows, N]."""

    def __init__(
        self, values: torch.Tensor, scales: torch.Tensor, scheme: QuantScheme, bias: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        if scheme.bits == 4:
            planes = [_Plane(values, scales.bfloat16(), _INT4_RANGE)]
        elif scheme.group_size is None:
            planes = [_Plane(values, scales, _INT8_RANGE)]
        else:
            high = (values + 8) >> 4  # floor; int8 does not overflow, |values| <= 119
            low = values - (high << 4)
            planes = [
                _Plane(high, (16 * scales).bfloat16(), _INT4_RANGE),
                _Plane(low, scales.bfloat16(), _INT4_RANGE),
            ]
        self.planes = nn.ModuleList(planes)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _quantize_rows(x)  # [rows, K]
        first, *others = self.planes
        y = nn.functional.linear(x, first(), self.bias)  # [rows, N]
        for plane in others:
            y = y + nn.functional.linear(x, plane())
        return y
