"""Hands modules their parameters: one checkpoint tensor at a time, converted or quantized as it is read."""

from __future__ import annotations

import torch
from torch import nn

from t5g2.export.modules.layers import Linear, RMSNorm
from t5g2.quant.linear import QuantizedLinear
from t5g2.quant.schemes import QuantScheme, quantize_weight


class Weights:
    """A view of a checkpoint under a name prefix.

    checkpoint: anything with `tensor(name) -> torch.Tensor`. scheme: how the linears under this view are stored.
    """

    def __init__(self, checkpoint, scheme: QuantScheme, prefix: str = "") -> None:
        self.checkpoint = checkpoint
        self.scheme = scheme
        self.prefix = prefix

    def scope(self, name: str) -> Weights:
        """The view under `prefix.name`."""
        return Weights(self.checkpoint, self.scheme, f"{self.prefix}{name}.")

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as float32, its own memory."""
        return self.checkpoint.tensor(self.prefix + name).to(torch.float32, copy=True)

    def norm(self, name: str, eps: float) -> RMSNorm:
        return RMSNorm(self.tensor(f"{name}.weight"), eps)

    def linear(self, name: str, bias: bool = False) -> nn.Module:
        bias_values = self.tensor(f"{name}.bias") if bias else None
        if not self.scheme.quantized:
            return Linear(self.tensor(f"{name}.weight"), bias_values)
        stored = self.checkpoint.tensor(f"{self.prefix}{name}.weight")
        values, scales = quantize_weight(stored, self.scheme, f"{self.prefix}{name}.weight")
        return QuantizedLinear(values, scales, self.scheme, bias_values)


def release(*modules: nn.Module) -> None:
    """Frees the memory of the modules' tensors, which are of no use afterwards.

    Graphs that torch and ExecuTorch keep after lowering hold on to the tensors themselves.
    """
    for module in modules:
        for buffer in module.buffers():
            buffer.untyped_storage().resize_(0)
