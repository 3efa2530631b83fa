"""The engine's choice of tokens against the Python sampler, transformers and torch; tests/native/generation_test.cpp has more.

The engine's side is the program of tests/native/generation_cases.cpp, which says what requests and answers look like.
"""

import subprocess

import numpy as np
import pytest
import torch
from native_programs import program, run
from tiny import tiny_model
from transformers import GenerationConfig, NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor
from transformers.generation import (
    GenerationMode,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from t5g2.runtime.sampler import make_sampler

BOS = 2


class Engine:
    """A running program."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([program("generation_cases")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait() == 0

    def request(self, verb: str, rows: np.ndarray | None = None, **options) -> None:
        """Options at None are left out; lists are joined."""
        if rows is not None:
            options["vocab"] = rows.shape[-1]
        words = [f"{name}={_value(value)}" for name, value in options.items() if value is not None]
        self.process.stdin.write(" ".join([verb, *words]).encode() + b"\n")
        if rows is not None:
            self.rows(rows)

    def rows(self, rows: np.ndarray) -> None:
        self.process.stdin.write(np.ascontiguousarray(rows, np.float32).tobytes())
        self.process.stdin.flush()

    def line(self) -> list[str]:
        line = self.process.stdout.readline()
        assert line.endswith(b"\n"), "the engine's program ended"
        return line.decode().split()


def _value(value) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(int(v)) for v in value)
    return repr(value) if isinstance(value, float) else str(int(value))


@pytest.fixture(scope="module")
def engine():
    running = Engine()
    yield running
    running.close()


def test_what_cpp_tests():
    done = run(program("generation_test"))
    assert done.returncode == 0 and done.stdout.endswith(" 0 failed\n"), done.stdout


# --- sampler ---


def random_rows(seed: int, count: int, vocab: int, ties: bool = False) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, vocab)) * 3
    return (np.round(rows) if ties else rows).astype(np.float32)


def sampled(engine, rows: np.ndarray, **options) -> tuple[list[int], list[float]]:
    """The engine's ids, and the number from [0, 1) that each call drew."""
    engine.request("sample", rows, calls=len(rows), **options)
    answers = [engine.line() for _ in rows]
    return [int(id) for id, _ in answers], [float(u) for _, u in answers]


OPTIONS = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.0, "top_k": 8},
    {"temperature": 2.0, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 0.5},
    {"temperature": 3.0, "top_p": 0.999},
    {"temperature": 1.5, "top_k": 30, "top_p": 0.8},
    {"temperature": 0.5, "top_k": 100_000, "top_p": 0.95},
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("vocab", [5, 64, 300, 2000])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_ids_as_the_python_sampler(engine, monkeypatch, options, vocab, ties):
    options = {name: float(np.float32(v)) if isinstance(v, float) else v for name, v in options.items()}  # as the engine's
    rows = random_rows(vocab, 60, vocab, ties)
    rows[30:, ::7] = -np.inf
    rng = np.random.default_rng(0)
    suppressed, forbidden = rng.integers(0, vocab, vocab // 10).tolist(), rng.integers(0, vocab, 2).tolist()
    ids, draws = sampled(engine, rows, suppressed=suppressed, forbidden=forbidden, seed=vocab, **options)

    class Drawn(np.random.Generator):
        def random(self):
            return draws.pop(0)

    monkeypatch.setattr(np.random, "Generator", Drawn)
    sample = make_sampler(suppressed=suppressed, **options)
    assert ids == [sample(row, forbidden) for row in rows]
    assert len(draws) == (0 if options else len(rows))  # greedy draws nothing


MORE_OPTIONS = [
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram": 2},
    {"repetition_penalty": 0.7, "no_repeat_ngram": 1},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "min_p": 0.02},
    {"temperature": 1.0, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 0.8, "top_k": 20, "min_p": 0.05},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_p": 0.03, "repetition_penalty": 2.0, "no_repeat_ngram": 3},
]


@pytest.mark.parametrize("options", MORE_OPTIONS, ids=str)
def test_same_ids_as_the_processors_of_transformers(engine, options):
    rows = random_rows(1, 200, 500)
    target = [BOS, *np.random.default_rng(2).integers(0, 500, 300).tolist()]
    target[-2:] = target[40:42]  # an n-gram that could repeat
    ids, draws = sampled(engine, rows, target=target, seed=3, **options)
    for row, id, draw in zip(rows, ids, draws, strict=True):
        assert id == chosen_by_transformers(row, target, draw, **options)


def processors(repetition_penalty=1.0, no_repeat_ngram=0):
    made = [RepetitionPenaltyLogitsProcessor(repetition_penalty)] if repetition_penalty != 1 else []
    return made + ([NoRepeatNGramLogitsProcessor(no_repeat_ngram)] if no_repeat_ngram else [])


def chosen_by_transformers(row, target, draw, temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, **repetition) -> int:
    target, scores = torch.tensor([target]), torch.from_numpy(row[None])
    for processor in processors(**repetition):
        scores = processor(target, scores)
    if not temperature:
        return int(scores.argmax())
    scores = TemperatureLogitsWarper(temperature)(target, scores.double())
    warpers = [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    for warper in [*warpers, MinPLogitsWarper(min_p)]:
        scores = warper(target, scores)
    order = scores[0].argsort(descending=True)
    reached = scores[0, order].softmax(0).cumsum(0)
    return int(order[torch.searchsorted(reached, draw, right=True)])


@pytest.mark.parametrize("length", [1, 2, 3, 50])
@pytest.mark.parametrize("options", [o for o in MORE_OPTIONS if "temperature" not in o], ids=str)
def test_processed_logits(engine, options, length):
    """Bit for bit."""
    row = random_rows(4, 1, 12)
    row[0, 5] = -np.inf
    target = [BOS, *np.random.default_rng(5).integers(0, 12, length - 1).tolist()]
    engine.request("processed", row, target=target, **options)
    expected = torch.from_numpy(row)
    for processor in processors(**options):
        expected = processor(torch.tensor([target]), expected)
    assert engine.process.stdout.read(row.nbytes) == expected.numpy().tobytes()


# --- log-probabilities ---


@pytest.mark.parametrize("scale", [0.1, 1, 5])
@pytest.mark.parametrize("vocab", [1, 50, 262_144])
def test_logprobs(engine, vocab, scale):
    row = random_rows(vocab, 1, vocab)[0] * np.float32(scale) + np.float32(20)
    n, chosen = min(vocab, 100), vocab // 3
    engine.request("logprobs", row, chosen=chosen, n=n)
    right = torch.from_numpy(row).double().log_softmax(0)
    (logprob,) = engine.line()
    assert float(logprob) == pytest.approx(right[chosen].item(), rel=1e-6, abs=1e-12)
    best = engine.line()
    values, ids = right.topk(n)
    assert [int(id) for id in best[::2]] == ids.tolist()
    assert [float(value) for value in best[1::2]] == pytest.approx(values.tolist(), rel=1e-6, abs=1e-12)


# --- beam search ---

STOP = (7, 9)
BIASES = (0.0, 2.0, 4.0, 6.0)  # of a stop id's logit: from never among the beams to the likeliest


class Tiny:
    """A tiny encoder-decoder whose stop ids are as likely as a test wants."""

    def __init__(self) -> None:
        self.model = tiny_model(num_hidden_layers=2)
        self.model.register_forward_hook(self._favour)
        self.vocab = self.model.config.decoder.vocab_size
        self.source = torch.tensor([[BOS, *range(20, 32)]])
        self.favoured: tuple[tuple[int, ...], float] = ((), 0.0)  # ids, and what is added to their logits
        self.seen: dict[tuple, np.ndarray] = {}

    def _favour(self, _, __, output):
        ids, bias = self.favoured
        output.logits[..., list(ids)] += bias

    def logits(self, targets: list[list[int]]) -> np.ndarray:
        keys = [(self.favoured, tuple(target)) for target in targets]
        if new := [key for key in keys if key not in self.seen]:
            source, target = self.source.expand(len(new), -1), torch.tensor([target for _, target in new])
            with torch.no_grad():
                logits = self.model(input_ids=source, decoder_input_ids=target, use_cache=False).logits
            self.seen |= zip(new, logits[:, -1].numpy())
        return np.stack([self.seen[key] for key in keys])


@pytest.fixture(scope="module")
def tiny():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only wait for each other in so small a model
    yield Tiny()
    torch.set_num_threads(threads)


def beams_of_transformers(tiny, start, stop, suppressed, beams, no_repeat_ngram=0, **options):
    config = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        no_repeat_ngram_size=no_repeat_ngram,
        eos_token_id=list(stop),
        pad_token_id=0,
        decoder_start_token_id=BOS,
        suppress_tokens=suppressed,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    with torch.no_grad():
        output = tiny.model.generate(tiny.source, generation_config=config, decoder_input_ids=torch.tensor([start]))
    return output.sequences[:, len(start) :].tolist(), output.sequences_scores.tolist()


def beams_of_the_engine(engine, tiny, start, stop, suppressed, **options):
    engine.request("beams", start=start, stop=stop, suppressed=suppressed, vocab=tiny.vocab, **options)
    engine.process.stdin.flush()
    while True:
        word, count = engine.line()
        lines = [engine.line() for _ in range(int(count))]
        if word == "done":
            return [([int(id) for id in ids], float(score), stopped == "1") for score, stopped, *ids in lines]
        engine.rows(tiny.logits([[int(id) for id in line] for line in lines]))


def check_beams(engine, tiny, beams, start=(BOS,), stop=STOP[:1], suppressed=None, **options):
    options = {"max_new_tokens": 8} | options
    for bias in BIASES:
        tiny.favoured = (stop, bias)
        found = beams_of_the_engine(engine, tiny, start, stop, suppressed, beams=beams, **options)
        sequences, scores = beams_of_transformers(tiny, start, stop, suppressed, beams, **options)
        assert len(found) == beams
        for (ids, score, stopped), sequence, right in zip(found, sequences, scores, strict=True):
            assert score == pytest.approx(right, rel=1e-5)
            ends = [i for i, id in enumerate(sequence) if id in stop]  # after it comes padding
            assert stopped == bool(ends)
            assert ids == (sequence[: ends[0]] if ends else sequence)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [1.0, 0.5, 2.0, 0.0, -1.0])
@pytest.mark.parametrize("beams", [1, 2, 3, 4, 5])
def test_beams(engine, tiny, monkeypatch, beams, length_penalty, early_stopping):
    # transformers takes one beam as greedy; here as a search that is one beam wide.
    monkeypatch.setattr(GenerationConfig, "get_generation_mode", lambda *_: GenerationMode.BEAM_SEARCH)
    check_beams(engine, tiny, beams, length_penalty=length_penalty, early_stopping=early_stopping)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 1},
        {"max_new_tokens": 2},
        {"min_new_tokens": 4},
        {"min_new_tokens": 8},
        {"stop": STOP},
        {"stop": STOP, "min_new_tokens": 3},
        {"stop": STOP, "max_new_tokens": 16, "length_penalty": 2.0},
        {"stop": STOP, "max_new_tokens": 16, "length_penalty": -0.5},
        {"start": (BOS, 30, 40, 30)},
        {"start": (BOS, 30, 40, 30), "no_repeat_ngram": 2, "repetition_penalty": 1.5},
        {"repetition_penalty": 3.0},
        {"repetition_penalty": 0.8, "max_new_tokens": 12},
        {"repetition_penalty": 0.5, "no_repeat_ngram": 1},
        {"repetition_penalty": 0.5, "no_repeat_ngram": 3, "max_new_tokens": 12},
        {"suppressed": list(range(10, 250))},
        {"suppressed": [STOP[0]]},
    ],
    ids=str,
)
def test_beams_with(engine, tiny, options, beams, early_stopping):
    check_beams(engine, tiny, beams, early_stopping=early_stopping, **options)


def test_beams_end_in_every_way(engine, tiny):
    """What the cases above rest on: with these biases a search ends by stop ids, by its length, and by both."""
    ways = set()
    for tiny.favoured in [(STOP[:1], bias) for bias in BIASES]:
        for early_stopping in (False, True):
            options = {"beams": 4, "max_new_tokens": 8, "early_stopping": early_stopping}
            stopped = [stopped for _, _, stopped in beams_of_the_engine(engine, tiny, (BOS,), STOP[:1], None, **options)]
            ways.add("stop" if all(stopped) else "both" if any(stopped) else "length")
    assert ways == {"stop", "both", "length"}
