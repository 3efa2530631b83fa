"""Exact match per task on held-out examples, greedy decoding with transformers.

`python -m t5g2.nano.evaluate [--checkpoint DIR] [--examples N]`
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import T5Gemma2ForConditionalGeneration

from t5g2.nano import CHECKPOINT_DIR
from t5g2.nano.batches import collate
from t5g2.nano.data import TASKS, Example, held_out


@torch.inference_mode()
def answers(model: T5Gemma2ForConditionalGeneration, tokenizer: Tokenizer, asked: list[Example]) -> list[str]:
    """The model's greedy answer to each example's source, in one batch."""
    inputs = collate(tokenizer, model.config, asked).inputs()
    inputs.pop("labels")
    generated = model.generate(**inputs, do_sample=False, max_new_tokens=48)  # [B, T], BOS first
    return tokenizer.decode_batch(generated.tolist(), skip_special_tokens=True)


def evaluate(checkpoint: Path, examples: int, seed: int = 0, batch_size: int = 25) -> dict[str, float]:
    """Exact match in 0..1 per task, with the checkpoint loaded in float32."""
    model = T5Gemma2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()  # bf16 on disk
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    result = {}
    for task in TASKS:
        asked = sorted(held_out(task, examples, seed), key=lambda example: len(example.source))
        right = 0
        for start in range(0, examples, batch_size):
            part = asked[start : start + batch_size]
            right += sum(answer == e.target for answer, e in zip(answers(model, tokenizer, part), part))
        result[task] = right / examples
    return result


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Exact match of a nano checkpoint on held-out examples.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_DIR, help="checkpoint folder")
    parser.add_argument("--examples", type=int, default=200, help="held-out examples per task")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out examples")
    args = parser.parse_args(argv)
    began = time.monotonic()
    for task, match in evaluate(args.checkpoint, args.examples, args.seed).items():
        print(f"{task:8} {100 * match:5.1f} %")
    print(f"{args.examples} examples per task, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
