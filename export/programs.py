"""Builds the modules of a checkpoint and traces them into the three exported programs."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from t5g2.export.modules.decoder import DecoderStep
from t5g2.export.modules.encoder import Encoder
from t5g2.export.modules.layers import Embedding, TiedHead, TokenTable
from t5g2.export.modules.vision import Vision
from t5g2.export.weights import Weights
from t5g2.quant.embedding import QuantizedEmbedding
from t5g2.quant.linear import QuantizedLinear
from t5g2.quant.schemes import FLOAT32, INT8_CHANNEL, QuantScheme, quantize_weight
from t5g2.runtime.bundle import Limits


def vision_scheme(text_scheme: QuantScheme) -> QuantScheme:
    """How the vision tower is stored beside a text scheme: int8 per channel wherever the text is quantized.

    SigLIP's MLP is 4304 wide, which no group size divides, and its features are worth more than the bytes of int4.
    """
    return INT8_CHANNEL if text_scheme.quantized else FLOAT32


def text_modules(checkpoint, scheme: QuantScheme, with_images: bool) -> tuple[Encoder, DecoderStep]:
    """Reads the text half of a checkpoint. Both modules share the token table and the decoder's cross projections."""
    config = checkpoint.config
    weights = Weights(checkpoint, scheme)
    table, head = _token_table(checkpoint, scheme)
    eoi = weights.tensor("encoder.embed_tokens.eoi_embedding")
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
    name = "encoder.embed_tokens.weight"
    weight = checkpoint.tensor(name)  # [vocab, hidden]
    if not scheme.quantized:
        table = TokenTable(weight.to(torch.float32, copy=True))
        return table, TiedHead(table)
    values, scales = quantize_weight(weight, scheme, name)
    return QuantizedEmbedding(values, scales, scheme), QuantizedLinear(values, scales, scheme)


def vision_module(checkpoint, scheme: QuantScheme) -> Vision:
    """Reads the vision tower and the projector."""
    return Vision(Weights(checkpoint, scheme), checkpoint.config).eval()


def trace_encoder(encoder: Encoder, config, limits: Limits, with_images: bool) -> ExportedProgram:
    """ids [S] (and image features [S, hidden]) -> cross K/V; S from 1 to `limits.max_source`."""
    source = Dim("source", min=1, max=limits.max_source)
    example = min(limits.max_source, 7)
    inputs = [torch.zeros(example, dtype=torch.int64)]
    shapes = [{0: source}]
    if with_images:
        inputs.append(torch.zeros(example, config.encoder.hidden_size))
        shapes.append({0: source})
    return _trace(encoder, tuple(inputs), tuple(shapes))


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
    return _trace(decoder, inputs, shapes)


def cache_slots(config, limits: Limits) -> list[int]:
    """Slots of each decoder layer's self cache: window + slack on sliding layers, max_target on full ones."""
    window = config.decoder.sliding_window + limits.max_rows
    return [
        min(window, limits.max_target) if kind == "sliding_attention" else limits.max_target
        for kind in config.decoder.layer_types
    ]


def trace_vision(vision: Vision, config) -> ExportedProgram:
    """pixels [1, channels, side, side] -> image features [tokens, hidden]."""
    side = config.vision.image_size
    return _trace(vision, (torch.zeros(1, config.vision.num_channels, side, side),), None)


def _trace(module: nn.Module, inputs: tuple, shapes) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
