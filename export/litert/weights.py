"""Hands the LiteRT modules their parameters: float32 tensors, which the quantizer turns into the scheme's integers."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.litert.verify import Expected
from t5g2.export.weights import Weights
from t5g2.export.xnnpack.layers import Linear
from t5g2.quant.schemes import QuantScheme, quantize_weight
from t5g2.runtime.errors import UsageError


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (1 + weight) over the last dimension; the 1 is folded in here."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", 1.0 + weight)  # [hidden]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class LiteRtWeights(Weights):
    """Weights that are already rounded: values times scales, exact in float32.

    The largest value of each row, or group, is the scheme's largest integer, so that a quantizer which divides by the
    largest magnitude finds the same scales and the same integers again. expected: those, of all that was read so far.
    """

    def __init__(self, checkpoint, scheme: QuantScheme, prefix: str = "", expected: Expected | None = None) -> None:
        super().__init__(checkpoint, scheme, prefix)
        self.expected = Expected() if expected is None else expected

    def scope(self, name: str) -> LiteRtWeights:
        return LiteRtWeights(self.checkpoint, self.scheme, f"{self.prefix}{name}.", self.expected)

    def norm(self, name: str, eps: float) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight"), eps)

    def layer_norm(self, name: str, eps: float) -> LayerNorm:
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), eps)

    def linear(self, name: str, bias: bool = False) -> Linear:
        return Linear(self.rounded(f"{name}.weight", self.scheme), self.tensor(f"{name}.bias") if bias else None)

    def rounded(self, name: str, scheme: QuantScheme) -> torch.Tensor:
        """One matrix, float32 [N, K], rounded as the scheme does. Raises UsageError where groups do not divide a row."""
        weight, name = self.stored(name), self.prefix + name
        columns = weight.shape[1]
        if not scheme.quantized:
            return weight.to(torch.float32, copy=True)
        if scheme.group_size and columns % scheme.group_size:
            raise UsageError(
                f"{name}: rows of {columns} weights do not divide into groups of {scheme.group_size}, as LiteRT needs; "
                "use another --group-size, or --backend native"
            )
        values, scales = quantize_weight(weight, scheme, name)
        self.expected.add(name, values, scales, scheme)
        return dequantized(values, scales)


def dequantized(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """values: int8 [N, K]; scales: float32 [N, groups] -> float32 [N, K]."""
    weight = values.to(torch.float32)
    weight.view(*scales.shape, -1).mul_(scales.unsqueeze(-1))
    return weight
