"""The shipped checkpoint through its exported programs: the same tokens as transformers, and useful ones."""

import pytest
import torch
from tokenizers import Tokenizer
from transformers import T5Gemma2ForConditionalGeneration

import t5g2
from t5g2.nano import CHECKPOINT_DIR
from t5g2.nano.batches import collate
from t5g2.nano.data import TASKS, held_out
from t5g2.quant.evaluate import exact_match, nano_examples

PER_TASK = 29  # 203 prompts in all
MAX_NEW_TOKENS = 48


@pytest.fixture(scope="module")
def reference():
    return T5Gemma2ForConditionalGeneration.from_pretrained(CHECKPOINT_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def full_precision(nano_bundle):
    return t5g2.load(nano_bundle("none"), threads=2)


@torch.inference_mode()
def reference_targets(reference, tokenizer, examples) -> list[list[int]]:
    """Greedy target ids from transformers, without BOS, up to EOS."""
    inputs = collate(tokenizer, reference.config, examples).inputs()
    inputs.pop("labels")
    rows = reference.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=MAX_NEW_TOKENS)[:, 1:].tolist()
    return [row[: row.index(1)] if 1 in row else row for row in rows]


@pytest.mark.parametrize("task", TASKS)
def test_greedy_tokens_equal_transformers(task, reference, full_precision):
    tokenizer = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json"))
    examples = list(held_out(task, PER_TASK, seed=11))
    expected = reference_targets(reference, tokenizer, examples)
    found = [
        full_precision.generate(
            e.source, [e.image] if e.image else [], max_new_tokens=MAX_NEW_TOKENS, suppress_unused=False
        ).ids
        for e in examples
    ]
    assert found == expected


def test_int4_answers_most_questions(nano_bundle):
    """A floor well under the README's figures: it falls when packing, scales or a kernel's layout are wrong."""
    model = t5g2.load(nano_bundle("int4"), threads=2)
    assert exact_match(model, list(nano_examples(10))) > 0.5
