"""Builds a checkpoint's native modules and writes them as ExecuTorch programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
from executorch.exir.passes import MemoryPlanningPass
from torch.export import Dim, ExportedProgram

from t5g2.export.checkpoint import EMBEDDING, EOI_EMBEDDING
from t5g2.export.native.layers import Embedding
from t5g2.export.native.stacks import DecoderStep, Encoder
from t5g2.export.native.vision import Vision
from t5g2.export.shared import cache_slots, trace, trace_encoder, trace_vision
from t5g2.export.weights import Weights, release
from t5g2.quant.packed import ALIGNMENT
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.bundle import Limits
from t5g2.runtime.errors import UsageError

TOOLS = ("t5g2", "torch", "executorch", "torchao")  # whose versions the manifest names
_LANES = 16  # of the kernels: a head is a whole number of them


def cache_dtype(scheme: QuantScheme) -> torch.dtype:
    """Of the self cache and the cross K/V: 16 bit, and float32 where nothing is to be rounded."""
    return torch.float16 if scheme.quantized else torch.float32


def check(config, scheme: QuantScheme) -> None:
    """Raises UsageError for a model that the native operators do not take."""
    if config.decoder.head_dim % _LANES:
        raise UsageError(f"head_dim {config.decoder.head_dim}: not a multiple of {_LANES}; use --backend xnnpack")


def text_modules(checkpoint, scheme: QuantScheme, limits: Limits, with_images: bool) -> tuple[Encoder, DecoderStep]:
    """Reads the text half of a checkpoint. Both modules share the token table and the decoder's projections."""
    config = checkpoint.config
    weights = Weights(checkpoint, scheme)
    embedding = Embedding(
        weights.packed(EMBEDDING),
        weights.tensor(EOI_EMBEDDING),
        config.eoi_token_id,
        config.image_token_id if with_images else None,
    )
    decoder = DecoderStep(weights.scope("decoder"), config.decoder, embedding, cache_slots(config, limits))
    encoder = Encoder(weights.scope("encoder"), config.encoder, embedding, decoder, exact=not scheme.quantized)
    return encoder.eval(), decoder.eval()


def vision_module(checkpoint, scheme: QuantScheme) -> Vision:
    return Vision(Weights(checkpoint, scheme), checkpoint.config).eval()


def trace_decoder_step(decoder: DecoderStep, config, limits: Limits, dtype: torch.dtype) -> ExportedProgram:
    """ids [M], position, self cache, cross K/V -> logits; M from 1 to `limits.max_rows`."""
    text = config.decoder
    rows, source = min(limits.max_rows, 3), min(limits.max_source, 7)
    inputs = (
        torch.zeros(rows, dtype=torch.int64),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(decoder.cache_elements, dtype=dtype),
        torch.zeros(text.num_layers, 2, text.num_kv_heads, source, text.head_dim, dtype=dtype),
    )
    shapes = (
        {0: Dim("rows", min=1, max=limits.max_rows)},
        None,
        None,
        {3: Dim("source", min=1, max=limits.max_source)},
    )
    return trace(decoder, inputs, shapes)


def lower(programs: dict[str, ExportedProgram], path: Path) -> dict[str, int]:
    """Writes `programs`, by method name, into one .pte file; constants that methods share are stored once, aligned so that
    they are used where the file is mapped. Inputs stay in the caller's memory.

    Returns the bytes of planned memory of each method at its largest shapes.
    """
    edge = to_edge(programs, compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True))
    program = edge.to_executorch(
        ExecutorchBackendConfig(
            memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False),
            constant_tensor_alignment=ALIGNMENT,
            segment_alignment=4096,
        )
    )
    with open(path, "wb") as file:
        program.write_to_file(file)
    return {plan.name: sum(plan.non_const_buffer_sizes) for plan in program.executorch_program.execution_plan}


def write_text(
    checkpoint, path: Path, scheme: QuantScheme, limits: Limits, with_images: bool, on_stage: Callable[[str], None]
) -> dict[str, int]:
    """Writes the encoder and the decoder step to `path`. Returns what `lower` does."""
    on_stage("reading and packing the text weights")
    encoder, decoder = text_modules(checkpoint, scheme, limits, with_images)
    on_stage("tracing and lowering the encoder and the decoder step")
    programs = {
        "encoder": trace_encoder(encoder, checkpoint.config, limits, with_images),
        "decoder_step": trace_decoder_step(decoder, checkpoint.config, limits, cache_dtype(scheme)),
    }
    planned = lower(programs, path)
    release(encoder, decoder)
    return planned


def write_vision(checkpoint, path: Path, scheme: QuantScheme, on_stage: Callable[[str], None]) -> dict[str, int]:
    """Writes the vision tower to `path`. Returns what `lower` does."""
    on_stage("reading and packing the vision weights")
    vision = vision_module(checkpoint, scheme)
    on_stage("tracing and lowering the vision tower")
    planned = lower({"vision": trace_vision(vision, checkpoint.config)}, path)
    release(vision)
    return planned
