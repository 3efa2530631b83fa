"""Hands the stock modules their parameters, in the forms that XNNPACK takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from t5g2.export.weights import Weights
from t5g2.export.xnnpack.layers import LayerNorm, Linear, RMSNorm, gelu_tanh
from t5g2.export.xnnpack.linear import QuantizedLinear
from t5g2.quant.schemes import QuantScheme, quantize_weight
from t5g2.runtime.errors import UsageError


class StockWeights(Weights):
    def norm(self, name: str, eps: float) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight"), eps)

    def layer_norm(self, name: str, eps: float) -> LayerNorm:
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), eps)

    def gelu(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return gelu_tanh

    def linear(self, name: str, bias: bool = False) -> nn.Module:
        bias_values = self.tensor(f"{name}.bias") if bias else None
        if not self.scheme.quantized:
            return Linear(self.tensor(f"{name}.weight"), bias_values)
        name = f"{self.prefix}{name}.weight"
        return QuantizedLinear(*quantize(self.checkpoint.tensor(name), self.scheme, name), self.scheme, bias_values)


def quantize(weight: torch.Tensor, scheme: QuantScheme, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """`quantize_weight`, for rows that XNNPACK can take. Raises UsageError where groups do not divide a row."""
    columns = weight.shape[1]
    if scheme.group_size and columns % scheme.group_size:
        raise UsageError(
            f"{name}: rows of {columns} weights do not divide into groups of {scheme.group_size}, as XNNPACK needs; "
            "use another --group-size, or --backend native"
        )
    return quantize_weight(weight, scheme, name)
