"""The quantized token table: its rows are the vocabulary head's weights, to the bit."""

import pytest
import torch

from t5g2.export.xnnpack.embedding import QuantizedEmbedding
from t5g2.export.xnnpack.linear import QuantizedLinear
from t5g2.quant.schemes import INT8_CHANNEL, quantize_weight, scheme_for

SCHEMES = [scheme_for("int4", g) for g in (32, 64, 128)] + [INT8_CHANNEL]
VOCAB, HIDDEN = 50, 256


@pytest.fixture(params=SCHEMES, ids=lambda s: s.name)
def quantized(request):
    weight = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(0))
    weight[7] = 0
    return *quantize_weight(weight, request.param, "table"), request.param


def test_rows_are_the_dequantized_weights(quantized):
    values, scales, scheme = quantized
    group_size = HIDDEN // scales.shape[1]
    expected = values.float() * scales.repeat_interleave(group_size, dim=1)
    ids = torch.tensor([0, 7, VOCAB - 1, 3, 3])
    rows = QuantizedEmbedding(values, scales, scheme)(ids)
    assert rows.dtype == torch.float32 and torch.equal(rows, expected[ids])
    assert not rows[1].any() and rows[0].any()


def test_rows_are_the_head_s_weights(quantized):
    values, scales, scheme = quantized
    head = QuantizedLinear(values, scales, scheme)
    weights = head.values.float() * head.scales.float().repeat_interleave(head.group_size, dim=1)
    assert torch.equal(QuantizedEmbedding(values, scales, scheme)(torch.arange(VOCAB)), weights)


def test_stored_bytes(quantized):
    values, scales, scheme = quantized
    table = QuantizedEmbedding(values, scales, scheme)
    assert table.values.nbytes == VOCAB * HIDDEN * scheme.bits // 8
    assert table.scales.nbytes == 2 * scales.numel()


def test_the_even_column_is_in_the_low_half():
    values = torch.tensor([[-7, 5] * 16], dtype=torch.int8)
    table = QuantizedEmbedding(values, torch.ones(1, 1), scheme_for("int4", 32))
    assert table.values[0, 0] == (5 + 8) * 16 + (-7 + 8)
