"""The packed weight format: what goes in comes out, and the bytes are where the description says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t5g2.quant.packed import ALIGNMENT, BLOCK_ROWS, PackedShape, dequantize, pack, pack_weight, shape_of, unpack
from t5g2.quant.schemes import FLOAT32, QuantScheme, quantize_weight

SCHEMES = [QuantScheme(bits, group) for bits in (4, 8) for group in (32, 64, 128, None)]
LIMIT = {4: 7, 8: 127}


@st.composite
def matrices(draw):
    """A scheme with integers and scales that fill its range, of any shape, scales from the smallest to the largest."""
    scheme = draw(st.sampled_from(SCHEMES))
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    limit = LIMIT[scheme.bits]
    values = torch.randint(-limit, limit + 1, (rows, columns), generator=generator, dtype=torch.int8)
    groups = -(-columns // (scheme.group_size or columns))
    exponents = torch.randint(-126, 120, (rows, groups), generator=generator)
    return scheme, values, 2.0**exponents


@settings(max_examples=200, deadline=None)
@given(matrices())
def test_round_trip(matrix):
    scheme, values, scales = matrix
    packed = pack(values, scales, scheme)
    shape = packed.shape
    assert packed.data.dtype == torch.uint8 and packed.data.numel() == shape.bytes and shape.block_bytes % ALIGNMENT == 0
    found, found_scales = unpack(packed)
    assert torch.equal(found, values) and torch.equal(found_scales, scales)
    expected = (
        values.double() * scales.double().repeat_interleave(scheme.group_size or values.shape[1], 1)[:, : values.shape[1]]
    )
    assert torch.equal(dequantize(packed).double(), expected)


@settings(max_examples=50, deadline=None)
@given(matrices())
def test_bytes_are_where_the_description_says(matrix):
    scheme, values, scales = matrix
    data = pack(values, scales, scheme).data
    shape = shape_of(*values.shape, scheme)
    for n in {0, values.shape[0] // 2, values.shape[0] - 1}:
        block, row = divmod(n, BLOCK_ROWS)
        start = block * shape.block_bytes
        for k in {0, values.shape[1] // 2, values.shape[1] - 1}:
            if scheme.bits == 8:
                found = data[start + (k // 4 * 16 + row) * 4 + k % 4].view(torch.int8).item()
            else:
                both = data[start + (k // 8 * 16 + row) * 4 + k % 4].item()
                found = (both & 15 if k % 8 < 4 else both >> 4) - 8
            assert found == values[n, k]
            group = k // (scheme.group_size or shape.padded_columns)
            at = start + shape.weight_bytes + (group * 16 + row) * 2
            assert data[at : at + 2].clone().view(torch.bfloat16).float() == scales[n, group]


@pytest.mark.parametrize("shape", [(1, 1), (16, 5), (33, 70)])
def test_float32_is_stored_as_it_is(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    packed = pack_weight(weight, FLOAT32, "w")
    assert torch.equal(dequantize(packed), weight)
    assert packed.shape.bytes == packed.data.numel() >= 4 * weight.numel()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_quantized_weights_survive_extremes(scheme):
    """Rows of zeros, of the smallest and of the largest numbers: scales stay finite and normal, nothing overflows."""
    weight = torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    weight[1] = 0
    weight[2] = 1e-44
    weight[3] = torch.finfo(torch.float32).max
    weight[4, 50] = 1e30
    values, scales = quantize_weight(weight, scheme, "w")
    assert torch.isfinite(scales).all() and (scales >= torch.finfo(torch.bfloat16).tiny).all()
    assert values.abs().max() <= LIMIT[scheme.bits] and not values[1].any()
    restored = dequantize(pack(values, scales, scheme))
    assert not restored[1].any() and torch.isfinite(restored).all()
    torch.testing.assert_close(restored[3], weight[3], rtol=0.02, atol=0)


def test_270m_takes_no_more_than_its_bits():
    """int4 in groups of 32: 4.5 bits a weight, at every shape of the model."""
    for rows, columns in ((262144, 640), (1536, 640), (640, 1024), (4096, 640), (640, 2048)):
        assert PackedShape(rows, columns, 4, 32).bytes == rows * columns * 4.5 / 8
