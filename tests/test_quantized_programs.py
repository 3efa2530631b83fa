"""The exported int8 and int4 programs against the same quantized modules in eager mode, and against float32.

Differences are relative to the largest value. Single linears agree to 4e-7; a whole program may differ from its modules
where an activation falls on the other side of a rounding to 8 bits. Measured from the modules: 1.4e-2 on XNNPACK, 2.2e-2
on native kernels with bfloat16 attention; from float32: 2.6e-2 and 0.39, since a model this small and random shows
quantization at its worst.
"""

import numpy as np
import pytest
import torch
from exported import TINY_LIMITS, default_scheme, export, save_tiny
from test_parity import random_ids, with_images

import t5g2
from t5g2.export.checkpoint import Checkpoint
from t5g2.export.native import programs as native
from t5g2.export.shared import cache_slots, vision_scheme
from t5g2.export.xnnpack import programs as xnnpack
from t5g2.export.xnnpack.embedding import QuantizedEmbedding
from t5g2.export.xnnpack.linear import QuantizedLinear
from t5g2.export.xnnpack.lowering import lower
from t5g2.quant.schemes import quantize_weight, scheme_for
from t5g2.runtime.program import Program

LAYERS = ["sliding_attention", "full_attention"]
SOURCE = with_images(random_ids(100, seed=2), [3, 40])
TARGET = random_ids(40, seed=3)
PIXELS = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder, and the float32 logits of transformers."""
    folder = tmp_path_factory.mktemp("quantized") / "checkpoint"
    reference = save_tiny(folder, num_key_value_heads=2, num_hidden_layers=len(LAYERS), layer_types=LAYERS)
    with torch.no_grad():
        logits = reference(input_ids=SOURCE[None], pixel_values=PIXELS, decoder_input_ids=TARGET[None]).logits
    return folder, logits[0].numpy()


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@torch.no_grad()
def eager_logits(folder, quant: str, backend: str) -> np.ndarray:
    checkpoint, scheme = Checkpoint.open(folder), default_scheme(quant, backend)
    config, slots = checkpoint.config, cache_slots(checkpoint.config, TINY_LIMITS)
    modules = native if backend == "native" else xnnpack
    vision = modules.vision_module(checkpoint, vision_scheme(scheme))
    features = torch.zeros(len(SOURCE), config.encoder.hidden_size)
    features[SOURCE == config.image_token_id] = torch.cat([vision(image[None]) for image in PIXELS])
    if backend == "native":
        encoder, decoder = native.text_modules(checkpoint, scheme, TINY_LIMITS, with_images=True)
        cross, _ = encoder(SOURCE, features)
        cache = torch.zeros(decoder.cache_elements, dtype=cross.dtype)
        blocks = range(0, len(TARGET), TINY_LIMITS.max_rows)  # the ring holds no more than a block beside the window
        return torch.cat(
            [decoder(TARGET[at : at + TINY_LIMITS.max_rows], torch.tensor([at]), cache, cross) for at in blocks]
        ).numpy()
    encoder, decoder = xnnpack.text_modules(checkpoint, scheme, with_images=True)
    heads, head_dim = config.decoder.num_kv_heads, config.decoder.head_dim
    keys = [torch.zeros(heads, head_dim, n) for n in slots]
    values = [torch.zeros(heads, n, head_dim) for n in slots]
    cross_keys, cross_values, _ = encoder(SOURCE, features)
    return decoder(TARGET, torch.tensor([0]), keys, values, cross_keys, cross_values)[0].numpy()


@pytest.mark.parametrize("backend", ["native", "xnnpack"])
@pytest.mark.parametrize(("quant", "from_eager", "from_float"), [("int8", 4e-2, 5e-2), ("int4", 4e-2, 0.5)])
def test_programs_compute_what_the_modules_do(checkpoint, tmp_path, backend, quant, from_eager, from_float):
    folder, expected = checkpoint
    eager = eager_logits(folder, quant, backend)
    model = t5g2.load(export(folder, tmp_path / "bundle", quant, TINY_LIMITS, backend), threads=2)
    found = model.logits(SOURCE.tolist(), TARGET.tolist(), PIXELS.numpy())
    assert relative_difference(found, eager) < from_eager
    assert relative_difference(found, expected) < from_float


class _Parts(torch.nn.Module):
    """A linear and an embedding of every kind of scheme over one weight."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
        schemes = (scheme_for("int4"), scheme_for("int4", 64), scheme_for("int8", None))
        kinds = [(quantize_weight(weight, scheme, "w"), scheme) for scheme in schemes]
        self.linears = torch.nn.ModuleList(QuantizedLinear(*weights, scheme) for weights, scheme in kinds)
        self.tables = torch.nn.ModuleList(QuantizedEmbedding(*weights, scheme) for weights, scheme in kinds)

    def forward(self, x, ids):
        return [linear(x) for linear in self.linears], [table(ids) for table in self.tables]


def test_linears_and_tables_alone(tmp_path):
    parts = _Parts().eval()
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 7).unsqueeze(1)
    x[2] += 0.05  # rows are rounded between their own minimum and maximum
    ids = torch.tensor([0, 95, 3, 3, 50])
    traced = torch.export.export(parts, (x, ids), strict=False)
    lower({"forward": traced}, tmp_path / "parts.pte")
    program = Program(tmp_path / "parts.pte")  # its memory holds what it returns
    found = program.method("forward")(x, ids)
    linears, tables = parts(x, ids)
    for ours, expected in zip(found, linears):
        for row, expected_row in zip(ours, expected):
            assert relative_difference(row.numpy(), expected_row.numpy()) < 1e-5
    assert all(torch.equal(ours, expected) for ours, expected in zip(found[3:], tables, strict=True))
