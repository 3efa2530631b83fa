"""Turns modules into one .tflite file, traced and converted by litert-torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from t5g2.export.litert import operators
from t5g2.export.litert.matrices import TakesMatrices
from t5g2.runtime.quiet import quiet


@dataclass(frozen=True)
class Signature:
    """One entry point: its name, and inputs by name, of the shapes that it will always have. Outputs are named by the
    dictionary that the module returns. Each input is a tensor of its own: the converter merges those that are one object."""

    name: str
    module: nn.Module
    inputs: dict


def convert(signatures: list[Signature], path: Path) -> None:
    """Writes a program to `path` whose signatures take their matrices as inputs (see `TakesMatrices`)."""
    with quiet():
        import litert_torch

        operators.register()
        converter = None
        for signature in signatures:
            module = TakesMatrices(signature.module).eval()
            add = converter.signature if converter else litert_torch.signature
            converter = add(signature.name, module, sample_kwargs=signature.inputs | module.examples())
        converter.convert(lightweight_conversion=True, strict_export=False).export(str(path))
