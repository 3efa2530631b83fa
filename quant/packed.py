"""The packed weight format, version 1: what `native` bundles store and its kernels read where the file is mapped.

A matrix [N, K] is stored as blocks of 16 rows. N is padded to a multiple of 16 and K to a multiple of the group size
(per channel: of 8) with zeros. A block is its weights, then its scales, then zeros up to a multiple of 64 bytes.

    int8     weights int8 [K / 4][16 rows][4]: four consecutive k of a row side by side
    int4     weights uint8 [K / 8][16 rows][4]: byte j of a row holds k + j in its low half and k + 4 + j in its high half,
             both as value + 8 (0..15)
    scales   bfloat16 [K / group size][16 rows]; one group per row where per channel
    float32  weights float32 [K][16 rows], no scales, K not padded

Numbers are little-endian. `weight[n, k] ~= value * scale`, values within +-127 (int8) or +-7 (int4).

Why this order: 64 bytes are 16 rows of four products each, which is what a 512-bit dot-product instruction sums into 16
lanes, and what a 16-row matrix tile wants; a 128-bit one takes it in quarters. A token's row of the table is a strided
read inside one block. A bfloat16 scale times a 32-weight int4 dot product is exact in float32, so that all CPUs agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from t5g2.quant.schemes import QuantScheme, quantize_weight

VERSION = 1
BLOCK_ROWS = 16
ALIGNMENT = 64  # of a block, in bytes
_CHANNEL_MULTIPLE = 8  # K is padded to this per channel: an int4 block of 8 k is one 64-byte line


@dataclass(frozen=True)
class PackedShape:
    """Sizes of a packed matrix [rows, columns]: everything a reader derives from shape, bits and group size.

    group_size: 0 for per channel and for float32.
    """

    rows: int
    columns: int
    bits: int
    group_size: int

    @property
    def padded_columns(self) -> int:
        multiple = 1 if self.bits == 32 else self.group_size or _CHANNEL_MULTIPLE
        return -(-self.columns // multiple) * multiple

    @property
    def groups(self) -> int:
        """Scales per row."""
        if self.bits == 32:
            return 0
        return self.padded_columns // self.group_size if self.group_size else 1

    @property
    def blocks(self) -> int:
        return -(-self.rows // BLOCK_ROWS)

    @property
    def weight_bytes(self) -> int:
        """Of one block."""
        return BLOCK_ROWS * self.padded_columns * self.bits // 8

    @property
    def block_bytes(self) -> int:
        used = self.weight_bytes + 2 * BLOCK_ROWS * self.groups
        return -(-used // ALIGNMENT) * ALIGNMENT

    @property
    def bytes(self) -> int:
        return self.blocks * self.block_bytes


@dataclass(frozen=True)
class PackedMatrix:
    """A packed matrix: its bytes (uint8 [shape.bytes]) and its shape."""

    data: torch.Tensor
    shape: PackedShape


def shape_of(rows: int, columns: int, scheme: QuantScheme) -> PackedShape:
    return PackedShape(rows, columns, scheme.bits, scheme.group_size or 0)


def pack(values: torch.Tensor, scales: torch.Tensor | None, scheme: QuantScheme) -> PackedMatrix:
    """Lays a matrix out.

    values: [N, K], int8 as `quantize_weight` makes them, or float32 for the float32 scheme.
    scales: float32 [N, groups] that bfloat16 holds exactly, or None for float32.
    """
    shape = shape_of(*values.shape, scheme)
    data = torch.zeros(shape.blocks, shape.block_bytes, dtype=torch.uint8)
    step = max(1, 2**22 // shape.block_bytes)  # blocks at a time: a padded copy of a large table is never whole
    for first in range(0, shape.blocks, step):
        last = min(first + step, shape.blocks)
        part = values[first * BLOCK_ROWS : last * BLOCK_ROWS]
        data[first:last, : shape.weight_bytes] = _pack_weights(part, last - first, shape)
        if scales is not None:
            part = scales[first * BLOCK_ROWS : last * BLOCK_ROWS]
            end = shape.weight_bytes + 2 * BLOCK_ROWS * shape.groups
            data[first:last, shape.weight_bytes : end] = _pack_scales(part, last - first, shape)
    return PackedMatrix(data.flatten(), shape)


def pack_weight(weight: torch.Tensor, scheme: QuantScheme, name: str) -> PackedMatrix:
    """weight: [N, K], any float dtype. name: the tensor's, for errors."""
    if not scheme.quantized:
        return pack(weight.to(torch.float32), None, scheme)
    return pack(*quantize_weight(weight, scheme, name), scheme)


def unpack(packed: PackedMatrix) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The inverse of `pack`: values [N, K] and scales float32 [N, groups] (None for float32)."""
    shape = packed.shape
    blocks = packed.data.view(shape.blocks, shape.block_bytes)
    values = _unpack_weights(blocks[:, : shape.weight_bytes].contiguous(), shape)[: shape.rows, : shape.columns]
    if shape.bits == 32:
        return values.contiguous(), None
    scales = blocks[:, shape.weight_bytes : shape.weight_bytes + 2 * BLOCK_ROWS * shape.groups].contiguous()
    scales = scales.view(torch.bfloat16).view(-1, shape.groups, BLOCK_ROWS).transpose(1, 2).flatten(0, 1)
    return values.contiguous(), scales[: shape.rows].float()


def dequantize(packed: PackedMatrix) -> torch.Tensor:
    """The weights as float32 [N, K]."""
    values, scales = unpack(packed)
    if scales is None:
        return values
    per_weight = scales.repeat_interleave(packed.shape.group_size or packed.shape.padded_columns, dim=1)
    return values.float() * per_weight[:, : packed.shape.columns]


def _padded(values: torch.Tensor, rows: int, columns: int, fill: float = 0) -> torch.Tensor:
    out = torch.full((rows, columns), fill, dtype=values.dtype)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def _pack_weights(values: torch.Tensor, blocks: int, shape: PackedShape) -> torch.Tensor:
    """Rows of some blocks -> uint8 [blocks, weight_bytes]."""
    columns = shape.padded_columns
    values = _padded(values, blocks * BLOCK_ROWS, columns).view(blocks, BLOCK_ROWS, columns)
    if shape.bits == 32:
        return values.transpose(1, 2).contiguous().view(torch.uint8).view(blocks, -1)
    if shape.bits == 8:
        return values.view(blocks, BLOCK_ROWS, columns // 4, 4).transpose(1, 2).contiguous().view(torch.uint8).view(blocks, -1)
    halves = (values + 8).to(torch.uint8).view(blocks, BLOCK_ROWS, columns // 8, 2, 4)
    return (halves[..., 0, :] | (halves[..., 1, :] << 4)).transpose(1, 2).reshape(blocks, -1)


def _unpack_weights(data: torch.Tensor, shape: PackedShape) -> torch.Tensor:
    blocks, columns = data.shape[0], shape.padded_columns
    if shape.bits == 32:
        return data.view(torch.float32).view(blocks, columns, BLOCK_ROWS).transpose(1, 2).flatten(0, 1)
    if shape.bits == 8:
        values = data.view(torch.int8).view(blocks, columns // 4, BLOCK_ROWS, 4)
        return values.transpose(1, 2).reshape(-1, columns)
    data = data.view(blocks, columns // 8, BLOCK_ROWS, 4)
    halves = torch.stack((data & 15, data >> 4), dim=3)  # [blocks, K / 8, 16, 2, 4]
    return (halves.to(torch.int8) - 8).transpose(1, 2).reshape(-1, columns)


def _pack_scales(scales: torch.Tensor, blocks: int, shape: PackedShape) -> torch.Tensor:
    scales = _padded(scales, blocks * BLOCK_ROWS, shape.groups).bfloat16()
    scales = scales.view(blocks, BLOCK_ROWS, shape.groups).transpose(1, 2).contiguous()  # [blocks, groups, 16]
    return scales.view(torch.uint8).view(blocks, -1)
