"""Each operator of a program, on every kind of kernels that this CPU runs, against its reference in torch.

Every case is a program of one operator, exported once and run at several lengths.
"""

import math

import pytest
import torch
from torch.export import Dim

from t5g2.export.native import ops  # noqa: F401  registers torch.ops.t5g2
from t5g2.export.native.layers import interleave
from t5g2.export.native.programs import lower
from t5g2.export.shared import trace
from t5g2.quant.packed import dequantize, pack_weight
from t5g2.quant.schemes import FLOAT32, QuantScheme
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.native import available_kernels, kernels, use_kernels
from t5g2.runtime.program import Program

OPS = torch.ops.t5g2
SCHEMES = [FLOAT32] + [QuantScheme(bits, group) for bits in (8, 4) for group in (32, 64, 128, None)]
FLOAT = 1e-5  # float32 arithmetic in another order
BF16 = 2**-7  # operands rounded to bfloat16, where the CPU has tiles (amx)
UNQUANTIZED = 5e-2  # the same, against a reference that rounds activations to int8
LENGTHS = (1, 2, 5, 16, 17, 40, 100)


@pytest.fixture(params=available_kernels())
def isa(request):
    before = kernels()
    use_kernels(request.param)
    yield request.param
    use_kernels(before)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Case(torch.nn.Module):
    """Calls one operator: the inputs, then what is fixed."""

    def __init__(self, call, **tensors) -> None:
        super().__init__()
        self.call = call
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, *inputs):
        return self.call(self, *inputs)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`program(name, case, *example)`: the case as a running program, its first dimension dynamic."""
    made = {}

    def build(name, case, *example, fixed=()):
        """fixed: which of the inputs have one shape; the others have any number of rows."""
        if name not in made:
            path = tmp_path_factory.mktemp("op") / "op.pte"
            rows = Dim("rows", min=1, max=300)
            shapes = tuple(None if i in fixed else {0: rows} for i in range(len(example)))
            lower({"forward": trace(case, example, (shapes,))}, path)
            made[name] = case, Program(path, native=True)
        case, running = made[name]
        return case, lambda *inputs: [t.clone() for t in running.method("forward")(*inputs)]

    return build


def worst(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def in_bf16(scheme, isa, rows, columns):
    """Whether the kernels multiply in bfloat16, where the reference quantizes activations."""
    return isa == "amx" and rows >= 16 and bool(scheme.group_size) and columns > scheme.group_size


def linear_tolerance(scheme, isa, rows, columns):
    """Quantized linears equal their references bit for bit, but for one-rounding sums that float64 does not reproduce."""
    if not scheme.quantized:
        return FLOAT
    return UNQUANTIZED if in_bf16(scheme, isa, rows, columns) else 1e-6


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize(("n", "k"), [(40, 64), (7, 100), (160, 256)])
def test_linear(program, isa, scheme, n, k):
    packed = pack_weight(random(n, k), scheme, "w")
    layout = n, scheme.bits, scheme.group_size or 0
    case = Case(lambda s, x: OPS.linear(x, s.weight, s.bias, *layout, False), weight=packed.data, bias=random(n, seed=1))
    case, run = program(f"linear {scheme.name} {n} {k}", case, random(5, k))
    for rows in LENGTHS:
        x = random(rows, k, seed=rows) * torch.logspace(-3, 3, rows).unsqueeze(1)
        (found,), expected = run(x), case(x)
        if in_bf16(scheme, isa, rows, k):
            weight = dequantize(packed)
            bound = BF16 * (x.abs() @ weight.abs().t())  # of each product, both factors rounded
            assert ((found - (x @ weight.t() + case.bias)).abs() <= bound).all()
            continue
        for row in range(rows):
            assert worst(found[row], expected[row]) <= linear_tolerance(scheme, isa, rows, k)


@pytest.mark.parametrize("scheme", [FLOAT32, QuantScheme(4, 32), QuantScheme(8, None)], ids=lambda s: s.name)
@pytest.mark.parametrize("ff", [96, 41])
def test_geglu(program, isa, scheme, ff):
    packed = pack_weight(interleave(random(ff, 64), random(ff, 64, seed=1)), scheme, "w")
    case = Case(lambda s, x: OPS.geglu(x, s.weight, ff, scheme.bits, scheme.group_size or 0), weight=packed.data)
    case, run = program(f"geglu {scheme.name} {ff}", case, random(5, 64))
    for rows in LENGTHS:
        x = random(rows, 64, seed=rows)
        (found,), expected = run(x), case(x)
        assert found.shape == (rows, ff)
        assert worst(found, expected) <= max(FLOAT, linear_tolerance(scheme, isa, rows, 64))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_embedding(program, isa, scheme):
    packed = pack_weight(random(48, 100), scheme, "w")
    layout = scheme.bits, scheme.group_size or 0
    case = Case(
        lambda s, ids, features: OPS.embedding(ids, s.table, s.eoi, features, 7, 9, *layout, 10.0),
        table=packed.data, eoi=random(100, seed=1),
    )  # fmt: skip
    case, run = program(f"embedding {scheme.name}", case, torch.zeros(5, dtype=torch.int64), random(5, 100))
    ids = torch.tensor([0, 47, 7, 9, 16, 15, 9, 31])
    features = random(8, 100, seed=2)
    assert torch.equal(run(ids, features)[0], case(ids, features))


def test_ids_outside_the_table_are_an_error(program, isa):
    packed = pack_weight(random(48, 100), FLOAT32, "w")
    case = Case(
        lambda s, ids, features: OPS.embedding(ids, s.table, s.eoi, features, 7, 9, 32, 0, 10.0),
        table=packed.data, eoi=random(100, seed=1),
    )  # fmt: skip
    _, run = program("embedding float32", case, torch.zeros(5, dtype=torch.int64), random(5, 100))
    for wrong in (48, -1, 2**40):
        with pytest.raises(T5g2Error):
            run(torch.tensor([1, wrong]), random(2, 100))


def test_rotary(program):
    frequency = 1 / 10_000 ** (torch.arange(0, 1, 1 / 16))
    case = Case(lambda s, x, p: OPS.rotary(x, p, s.f), f=frequency)
    case, run = program("rotary", case, random(5, 8), torch.tensor([3]), fixed=[1])
    for rows, position in [(1, 0), (1, 511), (5, 100), (5, 30_000)]:
        x, first = random(rows, 8), torch.tensor([position])
        for found, expected in zip(run(x, first), case(x, first), strict=True):
            assert found.shape == (rows, 16) and (found - expected).abs().max() < 1e-6
    case, run = program("rotary from 0", Case(lambda s, x: OPS.rotary(x, None, s.f), f=frequency), random(5, 8))
    for found, expected in zip(run(random(3, 8)), OPS.rotary(random(3, 8), torch.tensor([0]), frequency), strict=True):
        assert (found - expected).abs().max() < 1e-6


def test_patches_and_pooling(program):
    pixels = random(1, 3, 12, 12)
    case, run = program("patches", Case(lambda s, x: OPS.patches(x, 4)), pixels, fixed=[0])
    (found,) = run(pixels)
    assert torch.equal(found, case(pixels)) and found.shape == (9, 48)
    grid = random(36, 20)
    case, run = program("average pool", Case(lambda s, x: OPS.average_pool(x, 6, 3)), grid, fixed=[0])
    (found,) = run(grid)
    assert found.shape == (4, 20) and worst(found, case(grid)) < FLOAT
    assert worst(found[1], grid.view(6, 6, 20)[:3, 3:].mean((0, 1))) < FLOAT


def test_norms(program, isa):
    width = 70
    w, b, post = random(width, seed=1), random(width, seed=2), random(width, seed=3)

    def both(s, x, y):
        sums = *OPS.add_rms_norm(x, y, s.post, s.w, 1e-6), *OPS.add_layer_norm(x, y, s.w, s.b, 1e-6)
        return OPS.rms_norm(x, s.w, 1e-6), *sums

    case, run = program("norms", Case(both, w=w, b=b, post=post), random(5, width), random(5, width))
    for rows in LENGTHS:
        x, y = 100 * random(rows, width, seed=rows), random(rows, width, seed=rows + 1)
        for found, expected in zip(run(x, y), case(x, y), strict=True):
            assert worst(found, expected) < FLOAT


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "d", "window"), [(4, 1, 32, 16), (4, 2, 16, 0), (3, 3, 12, 0), (2, 1, 64, 17)])
def test_attention(program, isa, exact, heads, kv_heads, d, window):
    text = window or kv_heads < heads  # with norms and rotary positions, or as in a vision tower
    norms = {"q": 1 + 0.3 * random(d, seed=1), "k": 1 + 0.3 * random(d, seed=2)} if text else {}

    def call(s, qkv, cos, sin):
        extra = (cos, sin, s.q, s.k) if text else (None, None, None, None)
        return OPS.attention(qkv, *extra, heads, kv_heads, window, d**-0.5, 1e-6, exact)

    width = (heads + 2 * kv_heads) * d
    inputs = lambda rows: (random(rows, width, seed=rows), *rotary(rows, d))  # noqa: E731
    case, run = program(f"attention {exact} {heads} {kv_heads} {d} {window}", Case(call, **norms), *inputs(5))
    for rows in (*LENGTHS, 33, 64):
        (found,), expected = run(*inputs(rows)), case(*inputs(rows))
        assert worst(found, expected) < (BF16 if isa == "amx" and not exact else FLOAT)


def rotary(rows, d, first=0):
    angles = torch.arange(first, first + rows).unsqueeze(1) / 100 ** (torch.arange(d // 2) / d)
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("scheme", [FLOAT32, QuantScheme(4, 32), QuantScheme(8, None)], ids=lambda s: s.name)
def test_cross_kv(program, isa, half, scheme):
    heads, kv_heads, d, hidden = 2, 2, 16, 1280
    packed = [pack_weight(random((heads + 2 * kv_heads) * d, hidden, seed=i), scheme, "w").data for i in range(3)]
    norms = [1 + 0.3 * random(d, seed=10 + i) for i in range(3)]
    buffers = {f"w{i}": w for i, w in enumerate(packed)} | {f"n{i}": w for i, w in enumerate(norms)}
    shape = heads, kv_heads, scheme.bits, scheme.group_size or 0

    def call(s, x):
        return OPS.cross_kv(x, [s.w0, s.w1, s.w2], [s.n0, s.n1, s.n2], *shape, 1e-6, half)

    case, run = program(f"cross {half} {scheme.name}", Case(call, **buffers), random(5, hidden))
    for rows in (*LENGTHS, 273):  # the last in two slices
        x = random(rows, hidden, seed=rows)
        (found,), expected = run(x), case(x)
        assert found.shape == (3, 2, kv_heads, rows, d) and found.dtype == (torch.float16 if half else torch.float32)
        tolerance = max(linear_tolerance(scheme, isa, rows, hidden), 1e-3 if half else FLOAT)
        assert worst(found.float(), expected.float()) < tolerance


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A sliding and a full layer over one cache: `run(qkv, cos, sin, position, cache, cross)`, and the reference."""
    made = {}

    def build(heads, kv_heads, dtype):
        key = heads, kv_heads, dtype
        if key in made:
            return made[key]
        d, slots, window = 32, 24, 16
        size = 2 * kv_heads * d

        def call(s, qkv, cos, sin, position, cache, cross):
            norm = s.q, s.k, position, cache, cross
            shape = heads, kv_heads, d**-0.5, 1e-6
            return (
                OPS.merged_attention(qkv, cos, sin, *norm, 0, 0, slots, window, *shape),
                OPS.merged_attention(qkv, cos, sin, *norm, 1, slots * size, 64, 0, *shape),
            )

        case = Case(call, q=1 + 0.3 * random(d, seed=1), k=1 + 0.3 * random(d, seed=2))
        elements = (slots + 64) * size

        def inputs(rows, position, source, cache):
            cross = random(2, 2, kv_heads, source, d, seed=source).to(dtype)
            qkv = random(rows, (heads + 2 * kv_heads) * d, seed=position)
            return qkv, *rotary(rows, d, position), torch.tensor([position]), cache, cross

        new_cache = lambda: torch.zeros(elements, dtype=dtype)  # noqa: E731
        rows, source = Dim("rows", min=1, max=8), Dim("source", min=1, max=300)
        shapes = ({0: rows}, {0: rows}, {0: rows}, None, None, {3: source})
        path = tmp_path_factory.mktemp("merged") / "op.pte"
        lower({"forward": trace(case, inputs(3, 0, 7, new_cache()), (shapes,))}, path)
        program = Program(path, native=True)
        made[key] = case, program, inputs, new_cache
        return made[key]

    return build


@pytest.mark.parametrize("source", [1, 130, 300])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 1), (4, 2), (3, 3), (5, 1)])
def test_merged_attention(merged, isa, heads, kv_heads, dtype, source):
    """Several windows long, in steps of changing size, so that the ring wraps inside a step."""
    case, program, inputs, new_cache = merged(heads, kv_heads, dtype)
    cache, expected_cache = new_cache(), new_cache()
    position = 0
    for rows in (1, 8, 3, 8, 1, 1, 8, 7, 8, 8, 8, 3):
        found = program.method("forward")(*inputs(rows, position, source, cache))[-2:]
        expected = case(*inputs(rows, position, source, expected_cache))
        for ours, reference in zip(found, expected):
            assert worst(ours, reference) < (1e-3 if dtype == torch.float16 else FLOAT)
        assert worst(cache.float(), expected_cache.float()) < (1e-3 if dtype == torch.float16 else FLOAT)
        position += rows
    assert position == 64


def test_what_the_cache_cannot_hold_is_an_error(merged, isa):
    _, program, inputs, new_cache = merged(4, 1, torch.float32)
    forward = program.method("forward")
    forward(*inputs(8, 56, 10, new_cache()))
    for rows, position in ((8, 57), (1, 64), (1, -1)):
        with pytest.raises(T5g2Error):
            forward(*inputs(rows, position, 10, new_cache()))


def test_float16_saturates(merged, isa):
    """A value beyond 65504 becomes 65504, not infinity."""
    _, program, inputs, new_cache = merged(4, 1, torch.float16)
    cache = new_cache()
    qkv, *rest = inputs(1, 0, 10, cache)
    qkv[0, -1], qkv[0, -2] = 1e6, -1e6
    out = program.method("forward")(qkv, *rest)
    assert cache.max() == 65504 and cache.min() == -65504
    assert all(math.isfinite(float(t.float().abs().max())) for t in out)


def test_unknown_kernels():
    with pytest.raises(T5g2Error, match="kernels avx1024: this CPU runs portable"):
        use_kernels("avx1024")
