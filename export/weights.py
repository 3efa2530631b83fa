"""Hands modules their parameters: one checkpoint tensor at a time, converted or quantized as it is read."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from t5g2.quant.packed import PackedMatrix, pack_weight
from t5g2.quant.schemes import QuantScheme


class Weights:
    """A view of a checkpoint under a name prefix.

    checkpoint: anything with `tensor(name) -> torch.Tensor`. scheme: how the linears under this view are stored.
    """

    def __init__(self, checkpoint, scheme: QuantScheme, prefix: str = "") -> None:
        self.checkpoint = checkpoint
        self.scheme = scheme
        self.prefix = prefix

    def scope(self, name: str) -> Self:
        """The view under `prefix.name`."""
        return type(self)(self.checkpoint, self.scheme, f"{self.prefix}{name}.")

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as float32, its own memory."""
        return self.checkpoint.tensor(self.prefix + name).to(torch.float32, copy=True)

    def stored(self, name: str) -> torch.Tensor:
        """One tensor as the checkpoint stores it."""
        return self.checkpoint.tensor(self.prefix + name)

    def packed(self, name: str) -> PackedMatrix:
        """One matrix in the packed format."""
        return pack_weight(self.stored(name), self.scheme, self.prefix + name)


def release(*modules: nn.Module) -> None:
    """Frees the memory of the modules' tensors, which are of no use afterwards.

    Graphs that torch and ExecuTorch keep after lowering hold on to the tensors themselves.
    """
    for module in modules:
        for buffer in module.buffers():
            buffer.untyped_storage().resize_(0)
