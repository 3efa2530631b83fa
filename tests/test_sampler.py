"""Sampler: masks, greedy, and distributions against a direct computation."""

import numpy as np
import pytest

from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.sampler import make_sampler

VOCAB = 50


def logits(seed=0, vocab=VOCAB):
    return (np.random.default_rng(seed).standard_normal(vocab) * 2).astype(np.float32)


def expected(values, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution by the definition: scale, cut to k, renormalise, cut to the smallest set reaching p."""
    scores = values.astype(np.float64) / temperature
    p = np.exp(scores - scores.max())
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    keep = order[:top_k] if top_k else order
    share = p[keep] / p[keep].sum()
    if top_p < 1:
        total, cut = 0.0, 0
        while total < top_p:
            total += share[cut]
            cut += 1
        keep = keep[:cut]
    out = np.zeros(len(p))
    out[keep] = p[keep] / p[keep].sum()
    return out


def histogram(sample, values, draws=20_000):
    return np.bincount([sample(values) for _ in range(draws)], minlength=len(values)) / draws


OPTIONS = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 0.7, "top_k": 12},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.5},
    {"temperature": 1.5, "top_k": 10, "top_p": 0.6},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_distribution(options):
    p = expected(logits(), **options)
    seen = histogram(make_sampler(seed=1, **options), logits())
    assert not seen[p == 0].any()
    # 5 standard deviations of a count, and room for the rarest ids.
    assert (np.abs(seen - p) < 5 * np.sqrt(p / 20_000) + 5e-4).all()


def test_distribution_tells_the_order_of_top_k_and_top_p():
    ours = np.count_nonzero(expected(logits(), temperature=1.5, top_k=10, top_p=0.6))
    swapped = np.count_nonzero(expected(logits(), temperature=1.5, top_p=0.6)[expected(logits(), 1.5, 10) > 0])
    assert ours != swapped


def chosen_set(values, **options):
    sample = make_sampler(temperature=1.0, seed=0, **options)
    return {sample(values) for _ in range(600)}


@pytest.mark.parametrize(
    ("top_p", "size"), [(0.05, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.89, 3), (0.91, 4)]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, size):
    assert chosen_set(np.log(np.array([0.1, 0.4, 0.2, 0.3])), top_p=top_p) == set([1, 3, 2, 0][:size])


def test_top_p_exactly_reached_adds_nothing():
    values = np.log(np.array([0.5, 0.25, 0.125, 0.125]))
    assert chosen_set(values, top_p=0.5) == {0}
    assert chosen_set(values, top_p=0.75) == {0, 1}


def test_ties_keep_the_lower_ids():
    values = np.array([1.0, 3.0, 3.0, 3.0, 3.0, 1.0])
    assert chosen_set(values, top_k=2) == {1, 2}
    assert chosen_set(values, top_k=4) == {1, 2, 3, 4}
    assert chosen_set(values, top_k=5) == {0, 1, 2, 3, 4}
    assert chosen_set(np.zeros(8), top_p=0.5) == {0, 1, 2, 3}


@pytest.mark.parametrize("k", [VOCAB, VOCAB + 1, 10**9, 0])
def test_top_k_of_the_vocabulary_or_more_keeps_all(k):
    plain, cut = make_sampler(temperature=1.0, seed=3), make_sampler(temperature=1.0, seed=3, top_k=k)
    assert [plain(logits(i)) for i in range(200)] == [cut(logits(i)) for i in range(200)]


def test_top_p_over_more_tokens_than_it_looks_at_first():
    values = np.zeros(20_000, np.float32)
    values[7] = 1e-3
    sample = make_sampler(temperature=1.0, top_p=0.5, seed=0)
    ids = [sample(values) for _ in range(400)]
    assert 8_000 < max(ids) < 10_001 and len(set(ids)) > 380


def test_greedy_takes_the_first_maximum():
    sample = make_sampler()
    assert sample(np.array([0.0, 2.0, 1.0, 2.0])) == 1
    assert sample(np.array([-5.0, -4.0])) == 1
    assert type(sample(logits())) is int
    assert all(make_sampler(temperature=1.0, top_k=1, seed=s)(logits(s)) == sample(logits(s)) for s in range(50))
    assert all(make_sampler(temperature=1e-9, seed=s)(logits(s)) == sample(logits(s)) for s in range(50))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e300])
def test_extreme_temperature(temperature):
    with np.errstate(all="raise", under="ignore"):
        seen = {make_sampler(temperature=temperature, seed=s)(logits()) for s in range(200)}
    assert seen == {int(np.argmax(logits()))} if temperature < 1 else len(seen) > 30


def test_seed_decides():
    def run(seed):
        sample = make_sampler(temperature=1.0, top_p=0.95, seed=seed)
        return [sample(logits(i)) for i in range(50)]

    assert run(7) == run(7) != run(8)
    assert run(None) != run(None)


def test_one_draw_a_call_whatever_the_options(monkeypatch):
    class Counting(np.random.Generator):
        draws = 0

        def random(self, *args):
            Counting.draws += 1
            return super().random(*args)

    monkeypatch.setattr(np.random, "Generator", Counting)
    for options in ({}, {"top_k": 1}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 3, "top_p": 0.5}, {"suppressed": [1, 2]}):
        sample = make_sampler(temperature=1.0, seed=5, **options)
        Counting.draws = 0
        for i in range(20):
            sample(logits(i))
        assert Counting.draws == 20, options
    make_sampler()(logits())
    assert Counting.draws == 20


# --- masks ---


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_suppressed_and_forbidden_are_never_chosen(temperature):
    best = [int(i) for i in np.argsort(-logits())[:20]]
    sample = make_sampler(temperature=temperature, suppressed=best[:10], seed=0)
    seen = {sample(logits(), forbidden=np.array(best[10:20])) for _ in range(300)}
    assert not seen & set(best)
    assert {sample(logits()) for _ in range(300)} & set(best[10:20])
    if not temperature:
        assert seen == {int(np.argsort(-logits())[20])}


def test_masked_logits_are_a_copy():
    values = logits()
    before = values.copy()
    make_sampler(temperature=1.0, suppressed=[0, 1], seed=0)(values, [2])
    np.testing.assert_array_equal(values, before)


def test_minus_infinity_is_never_chosen():
    values = np.full(VOCAB, -np.inf)
    values[[3, 40]] = 0.0
    for options in ({}, {"top_k": 10}, {"top_p": 0.9}, {"top_k": 10, "top_p": 0.9}):
        assert chosen_set(values, **options) == {3, 40}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits(bad, temperature):
    values = logits()
    values[17] = bad
    with pytest.raises(T5g2Error, match="NaN or infinity"):
        make_sampler(temperature=temperature, seed=0)(values)


def test_nan_is_an_error_even_where_suppressed():
    values = logits()
    values[17] = np.nan
    with pytest.raises(T5g2Error, match="NaN"):
        make_sampler(suppressed=[17])(values)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_left(temperature):
    sample = make_sampler(temperature=temperature, suppressed=[0], seed=0)
    assert sample(np.zeros(2)) == 1
    with pytest.raises(T5g2Error, match="every token"):
        sample(np.zeros(2), [1])


def test_float16_and_float64_logits():
    for dtype in (np.float16, np.float64):
        values = logits().astype(dtype)
        assert make_sampler()(values) == int(np.argmax(values))


# --- arguments ---


@pytest.mark.parametrize(
    ("argument", "value"),
    [("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "hot"),
     ("temperature", None), ("temperature", True), ("top_k", -1), ("top_k", 2.5), ("top_k", True), ("top_p", 0.0),
     ("top_p", 1.01), ("top_p", -1), ("top_p", float("nan")), ("seed", -1), ("seed", 1.5), ("seed", "x"),
     ("suppressed", [-1]), ("suppressed", [1.5]), ("suppressed", ["a"])],
)  # fmt: skip
def test_argument_out_of_range(argument, value):
    with pytest.raises(UsageError, match=f"^{argument}: "):
        make_sampler(**{"temperature": 1.0, argument: value})


def test_ids_that_the_logits_do_not_have():
    with pytest.raises(UsageError, match="^suppressed: id 50, but there are 50"):
        make_sampler(suppressed=[50])(logits())
    with pytest.raises(UsageError, match="^forbidden: id 50"):
        make_sampler()(logits(), [50])
    with pytest.raises(UsageError, match="^forbidden: "):
        make_sampler()(logits(), [-1])
    with pytest.raises(UsageError, match="^logits: shape"):
        make_sampler()(logits()[None])


def test_full_vocabulary_is_fast_enough():
    import time

    values = logits(vocab=262_144)
    for options in ({}, {"top_k": 64, "top_p": 0.95}, {"top_p": 0.9}):
        sample = make_sampler(temperature=1.0, seed=0, **options)
        start = time.perf_counter()
        for _ in range(5):
            sample(values)
        assert (time.perf_counter() - start) / 5 < 0.5  # measured 4 ms to 15 ms
