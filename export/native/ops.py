"""The `t5g2::` operators: schemas, shapes for tracing, and references in plain torch that say what the kernels compute.

All activations are float32. `weight` is always a packed matrix (see `t5g2.quant.packed`) with `bits` 4, 8 or 32 and
`group_size` 0 for one group per row.

Where kernels may differ from these references, and by how much (relative to the largest output):
- quantized linears: the integers and each group's product are exact; a group is added with one rounding (fused multiply-add),
  which the reference reproduces, so outputs are equal bit for bit given equal inputs, on every CPU;
- everything in float32 (norms, GELU, attention with `exact`, float32 linears): order of sums and `exp`, about 1e-6;
- on CPUs with bfloat16 tiles (amx), 16 rows and more: attention without `exact` rounds queries, keys, values and softmax
  weights to bfloat16, about 4e-3; linears over weights in groups multiply activations and dequantized weights rounded to
  bfloat16, typically 4e-3 and at most 8e-3 from exact products, where the reference's int8 activations are about 1e-2
  away. Scaling every group's integer sum took three times as long.
"""

from __future__ import annotations

import math

import torch
from torch.library import Library, impl, register_fake

from t5g2.export.shared import patches_of
from t5g2.quant.packed import PackedMatrix, PackedShape, unpack

_MAX_ACTIVATION = 127.0

_library = Library("t5g2", "DEF")

# merged_attention writes its cache, and its schema does not say so: a mutated input becomes an output of the program too, for
# which ExecuTorch's Python binding puts memory of its own in the caller's place. The calls keep their order without it, as
# each depends on the one before.
_SCHEMAS = {
    "embedding": "(Tensor ids, Tensor table, Tensor eoi, Tensor? image_features, int eoi_id, int image_id, int bits, "
    "int group_size, float scale) -> Tensor",
    "linear": "(Tensor x, Tensor weight, Tensor? bias, int rows, int bits, int group_size, bool gelu) -> Tensor",
    "geglu": "(Tensor x, Tensor weight, int rows, int bits, int group_size) -> Tensor",
    "rms_norm": "(Tensor x, Tensor weight, float eps) -> Tensor",
    "add_rms_norm": "(Tensor residual, Tensor x, Tensor post_weight, Tensor weight, float eps) -> (Tensor, Tensor)",
    "add_layer_norm": "(Tensor residual, Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor)",
    "rotary": "(Tensor x, Tensor? position, Tensor inverse_frequency) -> (Tensor, Tensor)",
    "patches": "(Tensor pixels, int patch) -> Tensor",
    "average_pool": "(Tensor x, int side, int pool) -> Tensor",
    "attention": "(Tensor qkv, Tensor? cos, Tensor? sin, Tensor? q_norm, Tensor? k_norm, int num_heads, int num_kv_heads, "
    "int window, float scale, float eps, bool exact) -> Tensor",
    "cross_kv": "(Tensor x, Tensor[] weights, Tensor[] k_norms, int num_heads, int num_kv_heads, int bits, int group_size, "
    "float eps, bool half) -> Tensor",
    "merged_attention": "(Tensor qkv, Tensor cos, Tensor sin, Tensor q_norm, Tensor k_norm, Tensor position, "
    "Tensor cache, Tensor cross, int layer, int start, int slots, int window, int num_heads, int num_kv_heads, "
    "float scale, float eps) -> Tensor",
}


def _define(name: str, reference, fake) -> None:
    """Registers an operator with its reference, its shapes, and the out variant that ExecuTorch programs call."""
    schema = _SCHEMAS[name]
    _library.define(name + schema)
    arguments, returns = schema.rsplit(" -> ", 1)
    if returns == "Tensor":
        _library.define(f"{name}.out{arguments[:-1]}, *, Tensor(z!) out) -> Tensor(z!)")
    else:
        _library.define(f"{name}.out{arguments[:-1]}, *, Tensor(y!) out0, Tensor(z!) out1) -> (Tensor(y!), Tensor(z!))")

    def write_out(*args, **kwargs):
        outs = [kwargs.pop(key) for key in ("out", "out0", "out1") if key in kwargs]
        results = reference(*args, **kwargs)
        results = results if isinstance(results, tuple) else (results,)
        for out, result in zip(outs, results):
            out.copy_(result)
        return outs[0] if len(outs) == 1 else tuple(outs)

    impl(_library, name, "CompositeExplicitAutograd")(reference)
    impl(_library, f"{name}.out", "CompositeExplicitAutograd")(write_out)
    register_fake(f"t5g2::{name}", fake, lib=_library)


def _columns_of(weight: torch.Tensor, rows: int, bits: int, group_size: int, columns: int) -> PackedMatrix:
    shape = PackedShape(rows, columns, bits, group_size)
    if weight.numel() != shape.bytes:
        raise ValueError(f"a packed weight of {weight.numel()} bytes where [{rows}, {columns}] takes {shape.bytes}")
    return PackedMatrix(weight, shape)


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 per row: values = round-half-even(x * (127 / amax)), scale = amax / 127, in float32.

    x: [rows, K] -> values int8 [rows, K], scales float32 [rows, 1]. A row whose largest value is too small to divide by
    (below 4e-37) becomes zeros.
    """
    amax = x.abs().amax(-1, keepdim=True)
    inverse = _MAX_ACTIVATION / amax
    inverse = torch.where(torch.isfinite(inverse), inverse, 0.0)
    return (x * inverse).round().to(torch.int8), amax / _MAX_ACTIVATION


def _matmul(x: torch.Tensor, packed: PackedMatrix) -> torch.Tensor:
    """x [rows, K] times the packed matrix, transposed -> [rows, N], as the kernels compute it."""
    values, scales = unpack(packed)
    if scales is None:
        return x @ values.t()
    group = packed.shape.group_size or packed.shape.padded_columns
    quantized, row_scale = quantize_rows(x)
    total = torch.zeros(x.shape[0], values.shape[0])
    for g, start in enumerate(range(0, values.shape[1], group)):
        part = slice(start, start + group)
        dot = quantized[:, part].double() @ values[:, part].double().t()  # exact: below 2^31
        # A fused multiply-add: the product is exact in float64, the sum is rounded to float32 once (as good as).
        total = (dot.float().double() * scales[:, g].double() + total.double()).float()
    return total * row_scale


def _gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def _embedding(ids, table, eoi, image_features, eoi_id, image_id, bits, group_size, scale):
    columns = eoi.shape[0]
    block_bytes = PackedShape(1, columns, bits, group_size).block_bytes
    rows = table.numel() // block_bytes * 16
    values, scales = unpack(_columns_of(table, rows, bits, group_size, columns))
    x = values[ids].float()
    if scales is not None:
        x = x * scales[ids].repeat_interleave(group_size or columns, dim=1)[:, :columns]
    x = x * scale
    x = torch.where((ids == eoi_id).unsqueeze(-1), eoi, x)
    if image_features is not None:
        x = torch.where((ids == image_id).unsqueeze(-1), image_features, x)
    return x


def _linear(x, weight, bias, rows, bits, group_size, gelu):
    y = _matmul(x, _columns_of(weight, rows, bits, group_size, x.shape[1]))
    if bias is not None:
        y = y + bias
    return _gelu(y) if gelu else y


def _geglu(x, weight, rows, bits, group_size):
    """gelu(gate) * up, where blocks of 16 rows of gate and up alternate in `weight`; rows: of each, padded to blocks."""
    blocks = -(-rows // 16)
    both = _matmul(x, _columns_of(weight, blocks * 32, bits, group_size, x.shape[1])).view(-1, blocks, 2, 16)
    y = _gelu(both[:, :, 0]) * both[:, :, 1]
    return y.reshape(-1, blocks * 16)[:, :rows].contiguous()


def _rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _add_rms_norm(residual, x, post_weight, weight, eps):
    total = residual + _rms_norm(x, post_weight, eps)
    return total, _rms_norm(total, weight, eps)


def _add_layer_norm(residual, x, weight, bias, eps):
    total = residual + x
    return total, torch.nn.functional.layer_norm(total, total.shape[-1:], weight, bias, eps)


def _rotary(x, position, inverse_frequency):
    """cos and sin of each row's position * inverse frequency, [rows, d / 2]; x: [rows, any], position: of its first row."""
    first = 0 if position is None else int(position)
    angles = torch.arange(first, first + x.shape[0]).float().unsqueeze(-1) * inverse_frequency
    return torch.cos(angles), torch.sin(angles)


def _average_pool(x, side, pool):
    """Averages pool x pool squares of a row-major grid: [side * side, hidden] -> [(side / pool) ** 2, hidden]."""
    tokens = side // pool
    return x.view(tokens, pool, tokens, pool, -1).mean((1, 3)).view(tokens * tokens, -1)


def _patches(pixels, patch):
    return patches_of(pixels, pixels.shape[-1] // patch, patch)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x: [rows, heads, d]; cos, sin: [rows, d / 2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _split(qkv: torch.Tensor, num_heads: int, num_kv_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[rows, (heads + 2 kv heads) * d] -> q [rows, heads, d], k and v [rows, kv heads, d]."""
    x = qkv.view(qkv.shape[0], num_heads + 2 * num_kv_heads, -1)
    return x[:, :num_heads], x[:, num_heads : num_heads + num_kv_heads], x[:, num_heads + num_kv_heads :]


def _attention(qkv, cos, sin, q_norm, k_norm, num_heads, num_kv_heads, window, scale, eps, exact):
    """Bidirectional: query i sees key j where -(window // 2) <= i - j < (window + 1) // 2; all pairs where window is 0."""
    q, k, v = _split(qkv, num_heads, num_kv_heads)
    if q_norm is not None:
        q, k = _rms_norm(q, q_norm, eps), _rms_norm(k, k_norm, eps)
    if cos is not None:
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    k, v = (t.repeat_interleave(num_heads // num_kv_heads, dim=1) for t in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) * scale  # [heads, S, S]: this is the specification, not the kernel
    if window:
        position = torch.arange(q.shape[0])
        distance = position.unsqueeze(1) - position
        outside = torch.logical_or(distance < -(window // 2), distance >= (window + 1) // 2)
        scores = scores.masked_fill(outside, -math.inf)
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).reshape(q.shape[0], -1)


def _cross_kv(x, weights, k_norms, num_heads, num_kv_heads, bits, group_size, eps, half):
    """Keys (normed, not rotated) and values of every decoder layer: [layers, 2, kv heads, S, d].

    weights: the layers' projections of queries, keys and values, of which the queries' rows are skipped.
    """
    rows = (num_heads + 2 * num_kv_heads) * k_norms[0].shape[0]
    layers = []
    for weight, k_norm in zip(weights, k_norms):
        qkv = _matmul(x, _columns_of(weight, rows, bits, group_size, x.shape[1]))
        _, k, v = _split(qkv, num_heads, num_kv_heads)
        layers.append(torch.stack((_rms_norm(k, k_norm, eps), v)).transpose(1, 2))
    return _stored(torch.stack(layers), torch.float16 if half else torch.float32)


def _stored(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A cache entry: float16 saturates instead of becoming infinite."""
    return x.clamp(-65504.0, 65504.0).half() if dtype == torch.float16 else x.contiguous()


def _merged_attention(
    qkv, cos, sin, q_norm, k_norm, position, cache, cross, layer, start, slots, window, num_heads, num_kv_heads, scale, eps
):
    """Writes the M new keys and values to the ring, then one softmax over [self ; cross]; window 0: no window.

    cache: flat; this layer's keys [kv heads, slots, d] begin at `start`, its values follow. Position p is in slot p mod slots.
    """
    q, k, v = _split(qkv, num_heads, num_kv_heads)
    rows, _, d = q.shape
    q = _rotate(_rms_norm(q, q_norm, eps), cos, sin)
    k = _rotate(_rms_norm(k, k_norm, eps), cos, sin)
    size = num_kv_heads * slots * d
    keys = cache[start : start + size].view(num_kv_heads, slots, d)
    values = cache[start + size : start + 2 * size].view(num_kv_heads, slots, d)
    first = int(position)
    new = torch.arange(first, first + rows)
    keys[:, new % slots] = _stored(k, cache.dtype).transpose(0, 1)
    values[:, new % slots] = _stored(v, cache.dtype).transpose(0, 1)
    cross_k, cross_v = cross[layer].float()  # [kv heads, S, d]
    mixed = []
    for i in range(rows):
        oldest = max(0, first + i - window + 1) if window else 0
        seen = torch.arange(oldest, first + i + 1) % slots
        all_k = torch.cat((keys[:, seen].float(), cross_k), dim=1)  # [kv heads, keys, d]
        all_v = torch.cat((values[:, seen].float(), cross_v), dim=1)
        grouped = q[i].view(num_kv_heads, -1, d)  # [kv heads, group, d]
        weights = torch.softmax(grouped @ all_k.transpose(1, 2) * scale, dim=-1)
        mixed.append((weights @ all_v).reshape(-1))
    return torch.stack(mixed)


def _like_rows(x: torch.Tensor, columns: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], columns)


def _fake_attention(qkv, cos, sin, q_norm, k_norm, num_heads, num_kv_heads, window, scale, eps, exact):
    return _like_rows(qkv, qkv.shape[1] // (num_heads + 2 * num_kv_heads) * num_heads)


def _fake_merged_attention(
    qkv, cos, sin, q_norm, k_norm, position, cache, cross, layer, start, slots, window, num_heads, num_kv_heads, scale, eps
):
    return _like_rows(qkv, q_norm.shape[0] * num_heads)


def _fake_cross_kv(x, weights, k_norms, num_heads, num_kv_heads, bits, group_size, eps, half):
    shape = (len(weights), 2, num_kv_heads, x.shape[0], k_norms[0].shape[0])
    return x.new_empty(shape, dtype=torch.float16 if half else torch.float32)


def _fake_pair(residual, *_):
    return torch.empty_like(residual), torch.empty_like(residual)


def _fake_rotary(x, position, inverse_frequency):
    half = inverse_frequency.shape[0]
    return _like_rows(x, half), _like_rows(x, half)


_define("embedding", _embedding, lambda ids, table, eoi, *_: eoi.new_empty(ids.shape[0], eoi.shape[0]))
_define("linear", _linear, lambda x, weight, bias, rows, *_: _like_rows(x, rows))
_define("geglu", _geglu, lambda x, weight, rows, *_: _like_rows(x, rows))
_define("rms_norm", _rms_norm, lambda x, *_: torch.empty_like(x))
_define("add_rms_norm", _add_rms_norm, _fake_pair)
_define("add_layer_norm", _add_layer_norm, _fake_pair)
_define("rotary", _rotary, _fake_rotary)
_define("patches", _patches, lambda pixels, patch: _patches(pixels, patch))
_define("average_pool", _average_pool, lambda x, side, pool: x.new_empty((side // pool) ** 2, x.shape[1]))
_define("attention", _attention, _fake_attention)
_define("cross_kv", _cross_kv, _fake_cross_kv)
_define("merged_attention", _merged_attention, _fake_merged_attention)
