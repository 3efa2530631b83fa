"""The export, from an opened checkpoint to a bundle on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from t5g2.export.lowering import lower
from t5g2.export.processor import image_settings, stop_ids
from t5g2.export.programs import (
    cache_slots,
    text_modules,
    trace_decoder_step,
    trace_encoder,
    trace_vision,
    vision_module,
    vision_scheme,
)
from t5g2.export.weights import release
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.bundle import TEXT_PROGRAM, TOKENIZER, VISION_PROGRAM, Limits, new_folder, write_manifest
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.tokenizer import Tokenizer

BACKEND = "xnnpack"
_DEFAULT_LIMITS = Limits()


def export_bundle(
    checkpoint,
    output: Path,
    scheme: QuantScheme,
    *,
    name: str,
    source: dict,
    limits: Limits = _DEFAULT_LIMITS,
    with_vision: bool = True,
    overwrite: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict:
    """Writes a bundle at `output` and returns its manifest.

    checkpoint: a `Checkpoint` or a `RandomCheckpoint`. name: what the model is called in the manifest. source: its
    provenance, such as Hub id and commit. with_vision: False leaves the vision program out; a checkpoint without a tower
    never has one. on_stage: called with a few words as each stage begins.
    Raises T5g2Error before any work where the output is taken or a side file does not fit.
    """
    with_vision = with_vision and checkpoint.has_vision
    if with_vision and None in (checkpoint.config.image_token_id, checkpoint.config.boi_token_id):
        raise T5g2Error(f"{checkpoint.path}: the vocabulary has no image tokens; export with --no-vision")
    with new_folder(output, overwrite) as folder:
        manifest = _describe(checkpoint, scheme, name, source, limits, with_vision)
        if checkpoint.tokenizer:
            shutil.copyfile(checkpoint.tokenizer, folder / TOKENIZER)
        planned = _write_text(checkpoint, folder / TEXT_PROGRAM, scheme, limits, with_vision, on_stage)
        if with_vision:
            planned |= _write_vision(checkpoint, folder / VISION_PROGRAM, scheme, on_stage)
        manifest["memory"]["planned_bytes"] = planned
        on_stage("hashing files")
        manifest["provenance"]["sha256"] = checkpoint.sha256()
        manifest = write_manifest(folder, manifest)
    return manifest


def _write_text(checkpoint, path: Path, scheme, limits, with_vision, on_stage) -> dict[str, int]:
    on_stage("reading and quantizing the text weights" if scheme.quantized else "reading the text weights")
    encoder, decoder = text_modules(checkpoint, scheme, with_vision)
    on_stage("tracing the encoder")
    traced_encoder = trace_encoder(encoder, checkpoint.config, limits, with_vision)
    on_stage("tracing the decoder step")
    traced_decoder = trace_decoder_step(decoder, checkpoint.config, limits)
    on_stage("lowering the encoder and the decoder step")
    planned = lower({"encoder": traced_encoder, "decoder_step": traced_decoder}, path)
    release(encoder, decoder)
    return planned


def _write_vision(checkpoint, path: Path, scheme, on_stage) -> dict[str, int]:
    on_stage("reading the vision weights")
    vision = vision_module(checkpoint, vision_scheme(scheme))
    on_stage("tracing the vision tower")
    traced = trace_vision(vision, checkpoint.config)
    on_stage("lowering the vision tower")
    return lower({"vision": traced}, path)


def _describe(checkpoint, scheme, name, source, limits, with_vision) -> dict:
    """The manifest without what is known only once the programs are written. Checks the checkpoint's side files."""
    config = checkpoint.config
    text = config.decoder
    slots = cache_slots(config, limits)
    stops = stop_ids(checkpoint.path, config)
    tokens = {
        "bos": config.bos_token_id,
        "eos": list(stops),
        "pad": config.pad_token_id,
        "image": config.image_token_id,
        "boi": config.boi_token_id,
        "eoi": config.eoi_token_id,
        "tokens_per_image": config.mm_tokens_per_image,
    }
    if checkpoint.tokenizer:
        roles = {f"{role}_id": tokens[role] for role in ("bos", "pad", "boi", "eoi", "image")}
        Tokenizer.from_file(checkpoint.tokenizer, eos_id=stops[0], **roles)  # fits the config, or says why not
    elif checkpoint.path is not None:
        raise T5g2Error(f"{checkpoint.path}: tokenizer.json is missing; it is saved and published beside the weights")
    row_bytes = 2 * 4 * text.num_kv_heads * text.head_dim  # a key and a value in float32
    return {
        "model": {"name": name, "config": config.to_dict()},
        "backend": BACKEND,
        "quantization": {
            "text": scheme.to_dict(),
            "embedding": scheme.to_dict(),
            "vision": vision_scheme(scheme).to_dict() if with_vision else None,
            "activations": "int8 per row, dynamic" if scheme.quantized else "float32",
            "kv_cache": "float32",
        },
        "limits": asdict(limits),
        "cache_slots": slots,
        "tokens": tokens,
        "image": image_settings(checkpoint.path, config) if with_vision else None,
        "programs": {TEXT_PROGRAM: ["encoder", "decoder_step"]} | ({VISION_PROGRAM: ["vision"]} if with_vision else {}),
        "memory": {
            "self_cache_bytes": row_bytes * sum(slots),
            "cross_kv_bytes_per_source_token": row_bytes * text.num_layers,
        },
        "provenance": source
        | {
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
            "tools": {tool: version(tool) for tool in ("t5g2", "torch", "executorch", "torchao")},
        },
    }
