"""Schemes, and the integers they make of a weight."""

import pytest
import torch

from t5g2.quant.schemes import FLOAT32, INT8_CHANNEL, QuantScheme, quantize_weight, scheme_for
from t5g2.runtime.errors import T5g2Error, UsageError

LIMIT = {4: 7, 8: 127}
SCHEMES = [scheme_for("int4", g) for g in (32, 64, 128)] + [scheme_for("int8", g) for g in (32, 64, 128, None)]


def weight(rows=48, columns=256, seed=0):
    """Rows of very different sizes, some with one outlier."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * torch.logspace(-6, 3, rows).unsqueeze(1)
    w[::5, 17] *= 30
    return w


def dequantize(values, scales):
    return values.double() * scales.double().repeat_interleave(values.shape[1] // scales.shape[1], dim=1)


@pytest.mark.parametrize(
    ("quant", "group_size", "name"),
    [("none", 32, "float32"), ("none", None, "float32"), ("int4", 32, "int4-g32"), ("int4", 128, "int4-g128"),
     ("int8", 64, "int8-g64"), ("int8", None, "int8-channel")],
)  # fmt: skip
def test_scheme_for(quant, group_size, name):
    scheme = scheme_for(quant, group_size)
    assert scheme.name == name and scheme.quantized == (quant != "none")
    assert scheme.to_dict() == {"bits": scheme.bits, "group_size": scheme.group_size, "name": name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int5",), "--quant int5: not one of none, int8, int4"),
        (("",), "--quant : not one of none, int8, int4"),
        (("int4", None), "--group-size channel: one int4 scale for a whole row is too coarse; use 32, 64 or 128"),
        (("int4", 48), "--group-size 48: not one of 32, 64, 128, channel"),
        (("int8", 0), "--group-size 0: not one of 32, 64, 128, channel"),
        (("int8", -32), "--group-size -32: not one of 32, 64, 128, channel"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(UsageError) as error:
        scheme_for(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounds_to_the_nearest(scheme, dtype):
    w = weight().to(dtype)
    values, scales = quantize_weight(w, scheme, "w")
    assert values.dtype == torch.int8 and scales.dtype == torch.float32 and values.shape == w.shape
    assert scales.shape == (48, 256 // (scheme.group_size or 256))
    assert values.abs().max() == LIMIT[scheme.bits]
    assert torch.equal(scales.bfloat16().float(), scales) and (scales > 0).all()
    # Also where the scale was rounded down: the largest weight is then 119.47 or 7.03 steps, and the clamp is near enough.
    error = (w.double() - dequantize(values, scales)).abs()
    step = dequantize(torch.ones_like(values), scales)
    assert (error <= step / 2 * (1 + 1e-6)).all()
    assert error.max() > 0


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_scales_use_the_whole_range(scheme):
    """A scale is its group's largest weight over the limit, to bfloat16's 8 bits."""
    w = weight()
    _, scales = quantize_weight(w, scheme, "w")
    largest = w.view(48, -1, scheme.group_size or 256).abs().amax(-1)
    assert (scales * LIMIT[scheme.bits] / largest - 1).abs().max() <= 2**-8


def test_zero_groups():
    w = weight()
    w[3] = 0
    w[5, 32:64] = 0
    values, scales = quantize_weight(w, scheme_for("int4", 32), "w")
    assert not values[3].any() and not values[5, 32:64].any() and values[5, 64:].any()
    assert torch.isfinite(scales).all() and (scales > 0).all()
    assert not dequantize(values, scales)[3].any()


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("scheme", [scheme_for("int4"), scheme_for("int8"), INT8_CHANNEL], ids=lambda s: s.name)
def test_huge_and_tiny_weights(scheme, size):
    w = torch.linspace(-1, 1, 64).repeat(2, 1) * size
    values, scales = quantize_weight(w, scheme, "w")
    assert torch.isfinite(scales).all() and (scales > 0).all()
    error = (w.double() - dequantize(values, scales)).abs().max()
    # Subnormal scales have few bits left, but nothing explodes.
    assert error <= w.abs().max().double() * (0.5 if size > 1e-35 else 1)


def test_blocks_of_rows_make_no_difference():
    """Rows are quantized 2**22 weights at a time: here 2048 rows, so two whole blocks and a short one."""
    w = torch.randn(2 * 2048 + 3, 2048, generator=torch.Generator().manual_seed(1))
    scheme = scheme_for("int4", 128)
    values, scales = quantize_weight(w, scheme, "w")
    for row in (0, 2047, 2048, 4095, 4096, 4098):
        one_values, one_scales = quantize_weight(w[row : row + 1], scheme, "w")
        assert torch.equal(values[row], one_values[0]) and torch.equal(scales[row], one_scales[0])


@pytest.mark.parametrize(("columns", "group_size"), [(48, 32), (4304, 32), (96, 64), (16, 32)])
def test_the_last_group_may_be_short(columns, group_size):
    w = torch.randn(2, columns, generator=torch.Generator().manual_seed(0))
    values, scales = quantize_weight(w, scheme_for("int8", group_size), "w")
    assert values.shape == (2, columns) and scales.shape == (2, -(-columns // group_size))
    rest = columns % group_size
    last = quantize_weight(w[:, -rest:], INT8_CHANNEL, "w")
    assert torch.equal(values[:, -rest:], last[0]) and torch.equal(scales[:, -1:], last[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(bad):
    w = torch.zeros(3, 64)
    w[2, 40] = bad
    with pytest.raises(T5g2Error, match="layers.0: holds values that are not finite numbers"):
        quantize_weight(w, scheme_for("int4"), "layers.0")


def test_any_row_length_divides_into_channels():
    values, scales = quantize_weight(torch.randn(3, 4304), INT8_CHANNEL, "w")
    assert values.shape == (3, 4304) and scales.shape == (3, 1)


def test_the_defaults():
    assert scheme_for("int4") == QuantScheme(4, 32) and scheme_for("none") is FLOAT32 and not FLOAT32.quantized
