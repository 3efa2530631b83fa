"""Weight matrices that a program takes as inputs while it is traced, so that no converter ever holds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from t5g2.quant.schemes import QuantScheme


@dataclass(eq=False)
class Matrix:
    """A weight matrix of a checkpoint, by shape; its values are read when a file is written.

    name: canonical. shape: (N, K). scheme: how a file holds it. read: the tensor as the checkpoint stores it.
    """

    name: str
    shape: tuple[int, int]
    scheme: QuantScheme
    read: Callable[[], torch.Tensor]
    traced: torch.Tensor | None = None  # what stands for it in the trace that is being taken

    @property
    def input(self) -> str:
        """What the input is called that stands for it: a trace makes identifiers of names."""
        return "weights_" + self.name.replace(".", "_")

    @property
    def value(self) -> torch.Tensor:
        assert self.traced is not None, f"{self.name}: read outside of a trace"
        return self.traced


class TakesMatrices(nn.Module):
    """A module whose matrices come as inputs, float32, beside its own."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.matrices = matrices_of(module)

    def examples(self) -> dict[str, torch.Tensor]:
        """Inputs for a trace: of the right shapes, and a few bytes of memory each."""
        return {matrix.input: torch.zeros(1).expand(matrix.shape) for matrix in self.matrices}

    def forward(self, **inputs: torch.Tensor):
        for matrix in self.matrices:
            matrix.traced = inputs.pop(matrix.input)
        try:
            return self.module(**inputs)
        finally:
            for matrix in self.matrices:
                matrix.traced = None


def matrices_of(module: nn.Module) -> list[Matrix]:
    """All that a module multiplies by or looks up in, each once."""
    found = {part.matrix.name: part.matrix for part in module.modules() if isinstance(getattr(part, "matrix", None), Matrix)}
    return list(found.values())
