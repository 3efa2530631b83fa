"""A small tokenizer.json with the structure and the special-token roles of Gemma 3's.

BPE with byte fallback; spaces become U+2581; every digit is its own token; BOS is added in front and EOS is not.
"""

import argparse
import json
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from t5g2.nano.data import IMAGE_MARKER, TASKS, examples

UNUSED = 16
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]  # ids 0..4
TURNS = ["<start_of_turn>", "<end_of_turn>"]
NEWLINES = ["\n", "\n\n"]
IMAGE = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]  # the last three ids
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ASCII = [chr(code) for code in range(0x21, 0x7F)]


def corpus(per_task: int = 4000) -> list[str]:
    """Training texts of every task, the same at each call."""
    texts = []
    for task in TASKS:
        stream = examples(task, random.Random(f"tokenizer/{task}"), held_out=False)
        for _ in range(per_task if task != "lookup" else per_task // 10):
            example = next(stream)
            texts += [example.source.replace(IMAGE_MARKER, ""), example.target]
    return texts


def _learn(texts: list[str], pieces: int) -> tuple[list[str], list[tuple[str, str]]]:
    """At most `pieces` BPE pieces (single characters first, then merges) and the merges, learned inside words."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split("▁", behavior="merged_with_next"),
        pre_tokenizers.Split(Regex("[^▁A-Za-z]"), behavior="isolated"),  # digits and punctuation stay single
    ])
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, initial_alphabet=["▁", *ASCII], min_frequency=20, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    vocab = learner.get_vocab()
    merges = [(left, right) for left, right in _merges(learner)]
    return sorted(vocab, key=vocab.get), merges


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def build(vocab_size: int = 1280) -> Tokenizer:
    """Train the nano tokenizer on the nano tasks."""
    front = CONTROL + [f"<unused{i}>" for i in range(UNUSED)] + TURNS + NEWLINES + BYTES
    pieces, merges = _learn(corpus(), vocab_size - len(front) - len(IMAGE))
    spare = [f"<unused{UNUSED + i}>" for i in range(vocab_size - len(front) - len(pieces) - len(IMAGE))]
    vocab = {piece: i for i, piece in enumerate(front + pieces + spare + IMAGE)}
    if len(vocab) != vocab_size:
        raise ValueError(f"{len(vocab)} distinct pieces for a vocabulary of {vocab_size}")

    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL + IMAGE])
    plain = [token for token in vocab if token.startswith("<unused")] + TURNS + NEWLINES
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in plain])
    return tokenizer


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("tokenizer.json"), help="file to write")
    parser.add_argument("--vocab-size", type=int, default=1280, help="entries, special tokens and bytes included")
    args = parser.parse_args(argv)
    build(args.vocab_size).save(str(args.output))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
