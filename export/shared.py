"""What both backends export alike."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

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


def trace_encoder(encoder: nn.Module, config, limits: Limits, with_images: bool) -> ExportedProgram:
    """ids [S] (and image features [S, hidden]) -> cross K/V and encoder states; S from 1 to `limits.max_source`."""
    source = Dim("source", min=1, max=limits.max_source)
    example = min(limits.max_source, 7)
    inputs = [torch.zeros(example, dtype=torch.int64)]
    shapes = [{0: source}]
    if with_images:
        inputs.append(torch.zeros(example, config.encoder.hidden_size))
        shapes.append({0: source})
    return trace(encoder, tuple(inputs), tuple(shapes))


def trace_vision(vision: nn.Module, config) -> ExportedProgram:
    """pixels [1, channels, side, side] -> image features [tokens, hidden]."""
    side = config.vision.image_size
    return trace(vision, (torch.zeros(1, config.vision.num_channels, side, side),), None)


def patches_of(pixels: torch.Tensor, side: int, patch: int) -> torch.Tensor:
    """Cuts pixels [1, channels, side * patch, side * patch] into rows, one a patch: [side * side, channels * patch * patch],
    so that the patch convolution is a linear."""
    channels = pixels.shape[1]
    grid = pixels.view(channels, side, patch, side, patch)
    return grid.permute(1, 3, 0, 2, 4).reshape(side * side, channels * patch * patch)


class RotaryTable(nn.Module):
    """cos and sin of position * inverse frequency, the half-split layout over the whole head."""

    def __init__(self, head_dim: int, theta: float, factor: float) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        self.register_buffer("inverse_frequency", 1.0 / theta**exponents / factor)  # [head_dim / 2]

    def forward(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """positions: int64 [rows]. Returns cos and sin, float32 [rows, head_dim / 2]."""
        angles = positions.float().unsqueeze(-1) * self.inverse_frequency
        return torch.cos(angles), torch.sin(angles)


def rotary_tables(text, table: type[RotaryTable] = RotaryTable) -> nn.ModuleDict:
    """The two position tables of a stack, by layer type."""
    sliding = table(text.head_dim, text.rope_theta_sliding, text.rope_factor_sliding)
    full = table(text.head_dim, text.rope_theta_full, text.rope_factor_full)
    return nn.ModuleDict({"sliding_attention": sliding, "full_attention": full})
