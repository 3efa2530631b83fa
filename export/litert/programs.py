"""Builds a checkpoint's modules for LiteRT and writes them as .tflite files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from t5g2.export.checkpoint import EMBEDDING, EOI_EMBEDDING
from t5g2.export.litert import verify
from t5g2.export.litert.constants import fill
from t5g2.export.litert.convert import Signature, convert
from t5g2.export.litert.decoder import DecoderStep
from t5g2.export.litert.encoder import Encoder
from t5g2.export.litert.layers import Linear, TokenTable
from t5g2.export.litert.matrices import matrices_of
from t5g2.export.litert.vision import Vision
from t5g2.export.litert.weights import LiteRtWeights
from t5g2.export.shared import cache_slots
from t5g2.export.xnnpack.layers import Embedding
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.bundle import Limits
from t5g2.runtime.errors import T5g2Error, UsageError

TOOLS = ("t5g2", "torch", "litert-torch", "ai-edge-litert", "litert-converter")
_EXTRA = ("litert_torch", "ai_edge_litert")
_LANES = 16  # caches are used where the caller has them, which must be at multiples of 64 bytes


def cache_dtype(scheme: QuantScheme) -> torch.dtype:
    """Of the self cache and the cross K/V."""
    return torch.float32


def check(config, scheme: QuantScheme) -> None:
    """Raises T5g2Error without the extra that this backend needs, UsageError for what LiteRT does not take."""
    if missing := [name for name in _EXTRA if not importlib.util.find_spec(name)]:
        raise T5g2Error(f"--backend litert: {missing[0]} is not installed; pip install 't5g2[litert]'")
    if scheme.bits == 8 and scheme.group_size:
        raise UsageError(
            f"--group-size {scheme.group_size}: LiteRT has no fast int8 kernel for groups; use --group-size channel, "
            "or --backend native"
        )
    if config.decoder.head_dim % _LANES:
        raise UsageError(f"head_dim {config.decoder.head_dim}: not a multiple of {_LANES}; use --backend xnnpack")


def text_modules(checkpoint, scheme: QuantScheme, table_scheme: QuantScheme, limits: Limits, with_images: bool):
    """The text half of a checkpoint: the encoder and the decoder step, which share the token table and the decoder's
    projections."""
    config = checkpoint.config
    weights = LiteRtWeights(checkpoint, scheme)
    table = TokenTable(weights.matrix(EMBEDDING, table_scheme))
    embedding = Embedding(table, config.encoder.hidden_size, weights.tensor(EOI_EMBEDDING), config.eoi_token_id)
    slots = cache_slots(config, limits)
    decoder = DecoderStep(weights.scope("decoder"), config.decoder, embedding, Linear(table.matrix), slots)
    encoder = Encoder(
        weights.scope("encoder"),
        config.encoder,
        embedding,
        [layer.self_attn for layer in decoder.layers],
        config.image_token_id if with_images else None,
    )
    return encoder, decoder


def encode_signature(encoder: nn.Module, config, bucket: int, with_images: bool) -> Signature:
    inputs = {"ids": torch.zeros(bucket, dtype=torch.int32), "length": torch.ones(1, dtype=torch.int32)}
    if with_images:
        inputs["features"] = torch.zeros(bucket, config.encoder.hidden_size)
    return Signature(f"encode_{bucket}", encoder, inputs)


def decode_signature(decoder: nn.Module, config, bucket: int) -> Signature:
    text = config.decoder
    inputs = {name: torch.zeros(1, dtype=torch.int32) for name in ("id", "position", "length")}
    for i, slots in enumerate(decoder.slots):
        inputs[f"self_k_{i}"] = torch.zeros(text.num_kv_heads, slots, text.head_dim)
        inputs[f"self_v_{i}"] = torch.zeros(text.num_kv_heads, text.head_dim, slots)
        inputs[f"cross_k_{i}"] = torch.zeros(text.num_kv_heads, bucket, text.head_dim)
        inputs[f"cross_v_{i}"] = torch.zeros(text.num_kv_heads, text.head_dim, bucket)
    return Signature(f"decode_{bucket}", decoder, inputs)


def write_text(
    checkpoint,
    path: Path,
    scheme: QuantScheme,
    limits: Limits,
    with_images: bool,
    on_stage: Callable[[str], None],
    *,
    table_scheme: QuantScheme,
    buckets: list[int],
) -> dict[str, int]:
    """Writes a signature of the encoder and one of the decoder step for each length bucket to `path`. table_scheme: of the
    token table. Returns bytes of planned memory by method: none, LiteRT plans as it loads."""
    config = checkpoint.config
    encoder, decoder = text_modules(checkpoint, scheme, table_scheme, limits, with_images)
    encode = [encode_signature(encoder, config, bucket, with_images) for bucket in buckets]
    decode = [decode_signature(decoder, config, bucket) for bucket in buckets]
    write_model(encode + decode, path, "text", on_stage)
    return {}


def write_vision(checkpoint, path: Path, scheme: QuantScheme, on_stage: Callable[[str], None]) -> dict[str, int]:
    """Writes the vision tower to `path`. Returns what `write_text` does."""
    vision = Vision(LiteRtWeights(checkpoint, scheme), checkpoint.config)
    side = checkpoint.config.vision.image_size
    pixels = torch.zeros(1, checkpoint.config.vision.num_channels, side, side)
    write_model([Signature("vision", vision, {"pixels": pixels})], path, "vision", on_stage)
    return {}


def write_model(signatures: list[Signature], path: Path, what: str, on_stage: Callable[[str], None]) -> None:
    """Writes a program, its matrices included. what: for messages, whose program it is."""
    program = path.with_suffix(".program")
    on_stage(f"converting the {what} program")
    convert(signatures, program)
    on_stage(f"writing the {what} weights")
    matrices = {matrix.name: matrix for signature in signatures for matrix in matrices_of(signature.module)}
    expected = fill(program, path, list(matrices.values()))
    program.unlink()
    on_stage(f"checking the {what} program")
    verify.check(path, expected)
