"""What both backends export alike."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import ExportedProgram

from t5g2.quant.schemes import FLOAT32, INT8_CHANNEL, QuantScheme
from t5g2.runtime.bundle import Limits


def vision_scheme(text_scheme: QuantScheme) -> QuantScheme:
    """How the vision tower is stored beside a text scheme: int8 per channel wherever the text is quantized.

    Its features are worth more than the bytes of int4, and 4096 patches are bound by arithmetic, which groups slow down.
    """
    return INT8_CHANNEL if text_scheme.quantized else FLOAT32


def cache_slots(config, limits: Limits) -> list[int]:
    """Slots of each decoder layer's self cache: window + slack on sliding layers, max_target on full ones."""
    window = config.decoder.sliding_window + limits.max_rows
    return [
        min(window, limits.max_target) if kind == "sliding_attention" else limits.max_target
        for kind in config.decoder.layer_types
    ]


def trace(module: nn.Module, inputs: tuple, shapes) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
