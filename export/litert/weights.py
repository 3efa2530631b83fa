"""Hands the LiteRT modules their parameters: tensors, and matrices by name and shape."""

from __future__ import annotations

from torch import nn

from t5g2.export.checkpoint import expected_shapes
from t5g2.export.litert.layers import LayerNorm, Linear, RMSNorm
from t5g2.export.litert.matrices import Matrix
from t5g2.export.weights import Weights
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.errors import UsageError


class LiteRtWeights(Weights):
    """Weights whose matrices are named here and read when a file is written."""

    def norm(self, name: str, eps: float) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight"), eps)

    def layer_norm(self, name: str, eps: float) -> LayerNorm:
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"), eps)

    def gelu(self) -> nn.Module:
        return nn.GELU(approximate="tanh")

    def linear(self, name: str, bias: bool = False) -> Linear:
        return Linear(self.matrix(f"{name}.weight", self.scheme), self.tensor(f"{name}.bias") if bias else None)

    def matrix(self, name: str, scheme: QuantScheme) -> Matrix:
        """Raises UsageError where groups do not divide a row."""
        name = self.prefix + name
        shape = expected_shapes(self.checkpoint.config)[name]
        if scheme.group_size and shape[1] % scheme.group_size:
            raise UsageError(
                f"{name}: rows of {shape[1]} weights do not divide into groups of {scheme.group_size}, as LiteRT needs; "
                "use another --group-size, or --backend native"
            )
        return Matrix(name, shape, scheme, lambda: self.checkpoint.tensor(name))
