"""Builds a checkpoint's stock modules and writes them as ExecuTorch programs on XNNPACK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from t5g2.export.checkpoint import EMBEDDING, EOI_EMBEDDING
from t5g2.export.shared import cache_slots, trace, trace_encoder, trace_vision
from t5g2.export.weights import release
from t5g2.export.xnnpack.decoder import DecoderStep
from t5g2.export.xnnpack.embedding import QuantizedEmbedding
from t5g2.export.xnnpack.encoder import Encoder
from t5g2.export.xnnpack.layers import Embedding, TiedHead, TokenTable
from t5g2.export.xnnpack.linear import QuantizedLinear
from t5g2.export.xnnpack.lowering import lower
from t5g2.export.xnnpack.vision import Vision
from t5g2.export.xnnpack.weights import StockWeights, quantize
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.bundle import Limits
from t5g2.runtime.errors import UsageError

TOOLS = ("t5g2", "torch", "executorch", "torchao")  # whose versions the manifest names

def text_modules(checkpoint, scheme: QuantScheme, with_images: bool) -> tuple[Encoder, DecoderStep]:
    """Reads the text half of a checkpoint. Both modules share the token table and the decoder's cross projections."""
    config = checkpoint.config
    weights = StockWeights(checkpoint, scheme)
    table, head = _token_table(checkpoint, scheme)
    eoi = weights.tensor(EOI_EMBEDDING)
    embedding = Embedding(table, config.encoder.hidden_size, eoi, config.eoi_token_id)
    decoder = DecoderStep(weights.scope("decoder"), config.decoder, embedding, head)
    encoder = Encoder(
        weights.scope("encoder"),
        config.encoder,
        embedding,
        [layer.self_attn for layer in decoder.layers],
        config.image_token_id if with_images else None,
    )
    return encoder.eval(), decoder.eval()


def _token_table(checkpoint, scheme: QuantScheme) -> tuple[nn.Module, nn.Module]:
    weight = checkpoint.tensor(EMBEDDING)  # [vocab, hidden]
    if not scheme.quantized:
        table = TokenTable(weight.to(torch.float32, copy=True))
        return table, TiedHead(table)
    values, scales = quantize(weight, scheme, EMBEDDING)
    return QuantizedEmbedding(values, scales, scheme), QuantizedLinear(values, scales, scheme)


def vision_module(checkpoint, scheme: QuantScheme) -> Vision:
    """Reads the vision tower and the projector."""
    return Vision(StockWeights(checkpoint, scheme), checkpoint.config).eval()


def trace_decoder_step(decoder: DecoderStep, config, limits: Limits) -> ExportedProgram:
    """ids [M], position, cache, cross K/V -> logits, new K/V; M from 1 to `limits.max_rows`."""
    text = config.decoder
    rows = Dim("rows", min=1, max=limits.max_rows)
    source = Dim("source", min=1, max=limits.max_source)
    example_rows, example_source = min(limits.max_rows, 3), min(limits.max_source, 7)
    slots = cache_slots(config, limits)

    def keys(length):
        return torch.zeros(text.num_kv_heads, text.head_dim, length)

    def values(length):
        return torch.zeros(text.num_kv_heads, length, text.head_dim)

    inputs = (
        torch.zeros(example_rows, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        [keys(n) for n in slots],
        [values(n) for n in slots],
        [keys(example_source) for _ in slots],
        [values(example_source) for _ in slots],
    )
    fixed = [None] * len(slots)
    shapes = ({0: rows}, None, fixed, fixed, [{2: source}] * len(slots), [{1: source}] * len(slots))
    return trace(decoder, inputs, shapes)


def cache_dtype(scheme: QuantScheme) -> torch.dtype:
    """Of the self cache and the cross K/V."""
    return torch.float32


def check(config, scheme: QuantScheme) -> None:
    """Raises UsageError for a scheme that XNNPACK has no kernels for."""
    if scheme.bits == 8 and scheme.group_size:
        raise UsageError(
            f"--group-size {scheme.group_size}: XNNPACK has no int8 kernel for groups; use --group-size channel, "
            "or --backend native"
        )


def write_text(
    checkpoint, path: Path, scheme: QuantScheme, limits: Limits, with_images: bool, on_stage: Callable[[str], None]
) -> dict[str, int]:
    """Writes the encoder and the decoder step to `path`. Returns what `lower` does."""
    on_stage("reading and quantizing the text weights" if scheme.quantized else "reading the text weights")
    encoder, decoder = text_modules(checkpoint, scheme, with_images)
    on_stage("tracing the encoder")
    traced_encoder = trace_encoder(encoder, checkpoint.config, limits, with_images)
    on_stage("tracing the decoder step")
    traced_decoder = trace_decoder_step(decoder, checkpoint.config, limits)
    on_stage("lowering the encoder and the decoder step")
    planned = lower({"encoder": traced_encoder, "decoder_step": traced_decoder}, path)
    release(encoder, decoder)
    return planned


def write_vision(checkpoint, path: Path, scheme: QuantScheme, on_stage: Callable[[str], None]) -> dict[str, int]:
    """Writes the vision tower to `path`. Returns what `lower` does."""
    on_stage("reading the vision weights")
    vision = vision_module(checkpoint, scheme)
    on_stage("tracing the vision tower")
    traced = trace_vision(vision, checkpoint.config)
    on_stage("lowering the vision tower")
    planned = lower({"vision": traced}, path)
    release(vision)
    return planned
