"""Quantized linears in eager mode, against float arithmetic on the dequantized weights."""

import pytest
import torch

from t5g2.export.xnnpack.linear import QuantizedLinear, _quantize_rows
from t5g2.quant.schemes import INT8_CHANNEL, quantize_weight, scheme_for

SCHEMES = [scheme_for("int4", g) for g in (32, 64, 128)] + [INT8_CHANNEL]
N, K = 40, 256


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dequantize(values, scales):
    return values.float() * scales.repeat_interleave(values.shape[1] // scales.shape[1], dim=1)


def rounded_rows(x):
    """Each row to 256 levels from its minimum to its maximum, 0 among them."""
    low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
    step = (high - low) / 255
    zero = (-128 - (low / step).round()).clamp(-128, 127)
    return (((x / step).round() + zero).clamp(-128, 127) - zero) * step


def test_activations_are_rounded_by_row():
    x = random(5, K) * torch.tensor([1e-3, 1.0, 7.0, 1e3, 1.0]).unsqueeze(1) + torch.tensor([0, 3.0, 0, 0, -9]).unsqueeze(1)
    torch.testing.assert_close(_quantize_rows(x), rounded_rows(x), rtol=1e-5, atol=0)
    assert not torch.equal(_quantize_rows(x), x)
    assert not _quantize_rows(torch.zeros(2, K)).any()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize("bias", [False, True])
def test_forward(scheme, bias):
    values, scales = quantize_weight(random(N, K), scheme, "w")
    b = random(N, seed=1) if bias else None
    x = random(7, K, seed=2)
    expected = torch.nn.functional.linear(_quantize_rows(x), dequantize(values, scales), b)
    torch.testing.assert_close(QuantizedLinear(values, scales, scheme, b)(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_weights_are_the_scheme_s_integers(scheme):
    values, scales = quantize_weight(random(N, K), scheme, "w")
    linear = QuantizedLinear(values, scales, scheme)
    assert torch.equal(linear.values, values) and torch.equal(linear.scales.float(), scales)
    assert linear.scales.dtype == (torch.bfloat16 if scheme.group_size else torch.float32)
