"""The export, from an opened checkpoint to a bundle on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from t5g2.export.litert import programs as litert
from t5g2.export.native import programs as native
from t5g2.export.processor import image_settings, stop_ids
from t5g2.export.shared import cache_slots, vision_scheme
from t5g2.export.tokenizer_check import check_tokenizer
from t5g2.export.tokenizer_file import write_tokenizer
from t5g2.export.xnnpack import programs as xnnpack
from t5g2.quant import packed
from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.bundle import (
    ENGINE_TOKENIZER,
    PROGRAMS,
    TOKENIZER,
    Limits,
    new_folder,
    write_manifest,
)
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.tokenizer import Tokenizer

BACKENDS = {"native": native, "xnnpack": xnnpack, "litert": litert}
_DEFAULT_LIMITS = Limits()


def export_bundle(
    checkpoint,
    output: Path,
    scheme: QuantScheme,
    *,
    name: str,
    source: dict,
    backend: str = "native",
    limits: Limits = _DEFAULT_LIMITS,
    table_scheme: QuantScheme | None = None,
    source_buckets: Sequence[int] = (),
    with_vision: bool = True,
    overwrite: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict:
    """Writes a bundle at `output` and returns its manifest.

    checkpoint: a `Checkpoint` or a `RandomCheckpoint`. name: what the model is called in the manifest. source: its
    provenance, such as Hub id and commit. backend: native, xnnpack or litert. Of litert only: table_scheme, how the token table
    is stored where not as the rest, and source_buckets, the lengths that sources are padded to, of which the longest is
    limits.max_source (default: that alone). with_vision: False leaves the vision program out; a
    checkpoint without a tower never has one. on_stage: called with a few words as each stage begins.
    Raises T5g2Error before any work where the output is taken or a side file does not fit.
    """
    with_vision = with_vision and checkpoint.has_vision
    if with_vision and None in (checkpoint.config.image_token_id, checkpoint.config.boi_token_id):
        raise T5g2Error(f"{checkpoint.path}: the vocabulary has no image tokens; export with --no-vision")
    programs = BACKENDS[backend]
    programs.check(checkpoint.config, scheme)
    text_program, vision_program = PROGRAMS[backend]
    of_litert = {}
    if backend == "litert":
        limits = replace(limits, max_rows=1)
        buckets = sorted({*source_buckets, limits.max_source})
        of_litert = {"table_scheme": table_scheme or scheme, "buckets": buckets}
    with new_folder(output, overwrite) as folder:
        manifest = _describe(checkpoint, scheme, name, source, backend, limits, with_vision)
        if of_litert:
            manifest["quantization"]["embedding"] = of_litert["table_scheme"].to_dict()
            manifest["source_buckets"] = buckets
            manifest["programs"][text_program] = [f"{step}_{bucket}" for step in ("encode", "decode") for bucket in buckets]
        if checkpoint.tokenizer:
            shutil.copyfile(checkpoint.tokenizer, folder / TOKENIZER)
            write_tokenizer(checkpoint.tokenizer, folder / ENGINE_TOKENIZER)
        planned = programs.write_text(checkpoint, folder / text_program, scheme, limits, with_vision, on_stage, **of_litert)
        if with_vision:
            planned |= programs.write_vision(checkpoint, folder / vision_program, vision_scheme(scheme), on_stage)
        manifest["memory"]["planned_bytes"] = planned
        on_stage("hashing files")
        manifest["provenance"]["sha256"] = checkpoint.sha256()
        manifest = write_manifest(folder, manifest)
        if checkpoint.tokenizer:
            on_stage("comparing the engine's tokenizer with the checkpoint's")
            check_tokenizer(folder, checkpoint.tokenizer, manifest["tokens"])
    return manifest


def _describe(checkpoint, scheme, name, source, backend, limits, with_vision) -> dict:
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
        Tokenizer.for_manifest(checkpoint.tokenizer, tokens)  # fits the config, or says why not
    elif checkpoint.path is not None:
        raise T5g2Error(f"{checkpoint.path}: tokenizer.json is missing; it is saved and published beside the weights")
    text_program, vision_program = PROGRAMS[backend]
    cache_dtype = BACKENDS[backend].cache_dtype(scheme)
    row_bytes = 2 * cache_dtype.itemsize * text.num_kv_heads * text.head_dim  # a key and a value
    return {
        "model": {"name": name, "config": config.to_dict()},
        "backend": backend,
        "quantization": {
            "text": scheme.to_dict(),
            "embedding": scheme.to_dict(),
            "vision": vision_scheme(scheme).to_dict() if with_vision else None,
            "packed_format": packed.VERSION if backend == "native" else None,
            "activations": "int8 per row, dynamic" if scheme.quantized else "float32",
            "kv_cache": str(cache_dtype).removeprefix("torch."),
        },
        "limits": asdict(limits),
        "cache_slots": slots,
        "tokens": tokens,
        "image": image_settings(checkpoint.path, config) if with_vision else None,
        "programs": {text_program: ["encoder", "decoder_step"]} | ({vision_program: ["vision"]} if with_vision else {}),
        "memory": {
            "self_cache_bytes": row_bytes * sum(slots),
            "cross_kv_bytes_per_source_token": row_bytes * text.num_layers,
        },
        "provenance": source
        | {
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
            "tools": {tool: version(tool) for tool in BACKENDS[backend].TOOLS},
        },
    }
