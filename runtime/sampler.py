"""Choosing the next token from logits.

`make_sampler` returns a plain function, so a generation loop holds no options. Arithmetic is float64; one call takes
exactly one number from the generator (none when greedy), so a seed gives the same tokens on every machine.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from t5g2.runtime.errors import T5g2Error, UsageError

_CANDIDATES = 1024  # how many top tokens top-p looks at before it sorts more of the vocabulary


def make_sampler(
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    suppressed: Iterable[int] = (),
) -> Callable[..., int]:
    """A function `sample(logits, forbidden=()) -> id`.

    temperature: 0 is greedy (the first of equal maxima; the other options then change nothing).
    top_k: keep the k most likely tokens; 0 keeps all. Of tokens equal at the border the lower ids stay.
    top_p: of those, keep the smallest set of most likely tokens whose probability reaches p; 1 keeps all.
    seed: of the PCG64 generator; None takes one from the system. The function carries the generator's state.
    suppressed: ids that are never chosen.

    The function takes logits [vocab] of any float type, leaves them as they are, and never chooses an id in
    `forbidden` (for this call, as EOS before a minimum length). It raises T5g2Error when the logits hold NaN or
    +infinity, or when nothing is left to choose from; UsageError for ids that the logits do not have.

    Raises UsageError naming the argument that is out of range.
    """
    _number("temperature", temperature)
    if temperature < 0:
        raise UsageError(f"temperature: {temperature}; give 0 (greedy) or more")
    _number("top_p", top_p)
    if not 0 < top_p <= 1:
        raise UsageError(f"top_p: {top_p}; give more than 0 and at most 1 (1 keeps every token)")
    _whole("top_k", top_k, "0 keeps every token")
    if seed is not None:
        _whole("seed", seed, "None takes one from the system")
    rng = np.random.Generator(np.random.PCG64(seed))
    suppressed_ids = _ids("suppressed", suppressed)

    def sample(logits: np.ndarray, forbidden: Iterable[int] = ()) -> int:
        scores = _masked(logits, suppressed_ids, _ids("forbidden", forbidden))
        if temperature == 0:
            return int(np.argmax(scores))
        if top_k == 1:
            rng.random()  # keeps the count of draws independent of the options
            return int(np.argmax(scores))
        # Relative to the maximum before dividing: a tiny temperature then gives -inf at worst, never NaN.
        with np.errstate(over="ignore"):
            scores = (scores - scores.max()) / temperature
        ids = None  # None stands for the whole vocabulary in id order
        if 0 < top_k < scores.size:
            ids = _top(scores, top_k)
        if top_p < 1:
            ids = _nucleus(scores, ids, top_p)
        kept = scores if ids is None else scores[ids]
        chosen = _draw(np.exp(kept), rng.random())
        return int(chosen if ids is None else ids[chosen])

    return sample


def _masked(logits: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """float64 copy of the logits with the masked ids at -inf, checked."""
    scores = np.array(logits, dtype=np.float64)
    if scores.ndim != 1 or not scores.size:
        raise UsageError(f"logits: shape {list(scores.shape)}; give [vocab]")
    # One test for both: the maximum is NaN if any is, +inf if any is.
    if not scores.max() < math.inf:
        raise T5g2Error("the model's logits hold NaN or infinity; the bundle is damaged or its precision too low")
    for name, ids in zip(("suppressed", "forbidden"), masks):
        if ids.size and ids.max() >= scores.size:
            raise UsageError(f"{name}: id {ids.max()}, but there are {scores.size} logits")
        scores[ids] = -math.inf
    if scores.max() == -math.inf:
        raise T5g2Error("every token is suppressed or has probability 0; suppress fewer")
    return scores


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k highest scores, highest first, equal ones by id."""
    border = np.partition(scores, scores.size - k)[scores.size - k]
    above = np.flatnonzero(scores > border)
    equal = np.flatnonzero(scores == border)[: k - above.size]
    ids = np.sort(np.concatenate([above, equal]))
    return ids[np.argsort(-scores[ids], kind="stable")]


def _nucleus(scores: np.ndarray, ids: np.ndarray | None, p: float) -> np.ndarray:
    """The shortest prefix of the ids, sorted by score, whose share of the probability reaches p."""
    if ids is not None:
        reached = np.cumsum(np.exp(scores[ids]))
        return ids[: _reach(reached, p * reached[-1])]
    needed = p * np.exp(scores).sum()
    k = min(_CANDIDATES, scores.size)
    while True:
        ids = _top(scores, k)
        reached = np.cumsum(np.exp(scores[ids]))
        if reached[-1] >= needed or k == scores.size:
            return ids[: _reach(reached, needed)]
        k = min(8 * k, scores.size)


def _reach(reached: np.ndarray, needed: float) -> int:
    """How many leading entries of the running sum it takes to reach `needed`; all where rounding keeps it short."""
    return min(int(np.searchsorted(reached, needed, side="left")) + 1, reached.size)


def _draw(weights: np.ndarray, u: float) -> int:
    """The index that u in [0, 1) falls on, never one of weight 0."""
    total = np.cumsum(weights)
    at = int(np.searchsorted(total, u * total[-1], side="right"))
    return min(at, int(np.searchsorted(total, total[-1], side="left")))


def _number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise UsageError(f"{name}: {value!r} is not a finite number")


def _whole(name: str, value: int, zero: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise UsageError(f"{name}: {value!r}; give a whole number from 0 up ({zero})")


def _ids(name: str, ids: Iterable[int]) -> np.ndarray:
    values = ids if isinstance(ids, np.ndarray) else np.array(list(ids))
    if not values.size:
        return np.zeros(0, dtype=np.int64)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise UsageError(f"{name}: {ids!r}; give token ids, whole numbers from 0 up")
    return values.astype(np.int64)
