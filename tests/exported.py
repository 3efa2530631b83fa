"""Exports of tiny transformers models and of nano, for the tests that run programs."""

from pathlib import Path

import tokenizers
from tiny import BOI, EOI, IMAGE, tiny_model
from tokenizers import AddedToken, decoders, models, normalizers

from t5g2.export.checkpoint import Checkpoint
from t5g2.export.export_bundle import export_bundle
from t5g2.nano import CHECKPOINT_DIR
from t5g2.quant.schemes import scheme_for
from t5g2.runtime.bundle import Limits

TINY_LIMITS = Limits(max_source=320, max_target=64, max_rows=8)


def save_tiny(folder: Path, **overrides):
    """A tiny checkpoint as save_pretrained writes it, with a tokenizer that names every id. Returns the model."""
    model = tiny_model(**overrides)
    model.save_pretrained(folder)
    names = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", BOI: "<start_of_image>", EOI: "<end_of_image>"}
    names |= {IMAGE: "<image_soft_token>", 299: "<unused0>"}
    vocab = {names.get(i, f"w{i}"): i for i in range(model.config.decoder.vocab_size)}
    # Of Gemma's kind, without a merge: each name is an added token, and takes the spaces around it.
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    added = [AddedToken(name, lstrip=True, rstrip=True, normalized=False) for name in vocab]
    tokenizer.add_special_tokens([token for token in added if token.content in names.values()])
    tokenizer.add_tokens([token for token in added if token.content not in names.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def default_scheme(quant: str, backend: str):
    """The scheme of `--quant` without `--group-size`."""
    return scheme_for(quant, None if quant == "int8" and backend != "native" else 32)


def export(checkpoint: Path, output: Path, quant: str, limits: Limits, backend: str = "native", **options) -> Path:
    """Exports a checkpoint folder; returns the bundle's."""
    scheme = default_scheme(quant, backend)
    source = {"folder": "test"}
    export_bundle(
        Checkpoint.open(checkpoint), output, scheme, name="test", source=source, backend=backend, limits=limits, **options
    )
    return output


def export_nano(output: Path, quant: str, backend: str = "native") -> Path:
    return export(CHECKPOINT_DIR, output, quant, Limits(), backend)
