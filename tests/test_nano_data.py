"""The nano tasks: deterministic, checkable, split without overlap."""

import datetime
import random

import pytest
from tokenizers import Tokenizer

from t5g2.nano import CHECKPOINT_DIR
from t5g2.nano.data import IMAGE_MARKER, TASKS, examples, held_out, is_held_out, spell


def _train(task, n, seed=5):
    stream = examples(task, random.Random(seed), held_out=False)
    return [next(stream) for _ in range(n)]


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_examples(task):
    first, again = list(held_out(task, 5)), list(held_out(task, 5))
    assert [(e.source, e.target) for e in first] == [(e.source, e.target) for e in again]
    if first[0].image is not None:
        assert [e.image.tobytes() for e in first] == [e.image.tobytes() for e in again]
    assert [e.key for e in first] != [e.key for e in held_out(task, 5, seed=1)]


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_disjoint(task):
    kept = {e.key for e in held_out(task, 50)}
    assert all(is_held_out(task, key) for key in kept)
    assert not kept & {e.key for e in _train(task, 500)}


@pytest.mark.parametrize("task", TASKS)
def test_image_if_and_only_if_marked(task):
    for example in held_out(task, 5):
        assert example.source.count(IMAGE_MARKER) == (example.image is not None)


@pytest.mark.parametrize("task", TASKS)
def test_lengths_in_tokens(task):
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    for example in held_out(task, 50):
        assert len(tokenizer.encode(example.source)) + (20 if example.image else 0) <= 450
        assert len(tokenizer.encode(example.target, add_special_tokens=False)) <= 40


def test_lookup_spans_many_sliding_windows():
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    lengths = [len(tokenizer.encode(e.source)) for e in held_out("lookup", 200)]
    assert min(lengths) < 60 and max(lengths) > 380


def test_targets_follow_from_sources():
    for example in held_out("date", 50):
        assert str(datetime.date.fromisoformat(example.target).year) in example.source
    for example in held_out("number", 50):
        assert example.source == f"In digits: {spell(int(example.target))}"
    for example in held_out("fields", 50):
        assert all(part.split(": ")[1] in example.source for part in example.target.split("; "))
    for example in held_out("lookup", 50):
        name = example.source.removeprefix("Code of ").split("?")[0]
        assert example.target.startswith(f"{name}=") and f" {example.target}" in example.source


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (300, "three hundred"),
        (4207, "four thousand two hundred and seven"),
        (90_015, "ninety thousand and fifteen"),
        (999_999, "nine hundred and ninety-nine thousand nine hundred and ninety-nine"),
    ],
)
def test_spell(n, text):
    assert spell(n) == text
