"""Turns modules into one .tflite file: traced and converted by litert-torch, weights rounded by ai-edge-quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.quiet import quiet


@dataclass(frozen=True)
class Signature:
    """One entry point: its name, and inputs by name, of the shapes that it will always have. Outputs are named by the
    dictionary that the module returns. Each input is a tensor of its own: the converter merges those that are one object."""

    name: str
    module: nn.Module
    inputs: dict


def convert(signatures: list[Signature], path: Path) -> None:
    """Writes a float32 model to `path`. A tensor that modules share is stored once."""
    with quiet():
        import litert_torch

        converter = None
        for signature in signatures:
            add = converter.signature if converter else litert_torch.signature
            converter = add(signature.name, signature.module, sample_kwargs=signature.inputs)
        converter.convert(lightweight_conversion=True, strict_export=False).export(str(path))


def quantize(source: Path, target: Path, schemes: dict[str, QuantScheme]) -> None:
    """Rounds the constant matrices of a float32 model.

    schemes: by a pattern of the names of the operators' outputs, in which module names stand; the last that matches counts,
    and what none matches stays float32. Activations are quantized row by row as the model runs.
    """
    with quiet():
        from ai_edge_quantizer import qtyping
        from ai_edge_quantizer.quantizer import Quantizer

        quantizer = Quantizer(str(source))
        for pattern, scheme in schemes.items():
            for operation in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP):
                if scheme.quantized:
                    size = f"BLOCKWISE_{scheme.group_size}" if scheme.group_size else "CHANNELWISE"
                    granularity = qtyping.QuantGranularity(size)
                    quantizer.add_dynamic_config(pattern, operation, scheme.bits, granularity)
                else:
                    quantizer.update_quantization_recipe(pattern, operation, algorithm_key="no_quantize")
        quantizer.quantize().export_model(str(target))
