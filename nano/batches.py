"""Training batches: examples of similar length together, as tensors."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import T5Gemma2Config

from t5g2.nano.data import Example, examples
from t5g2.runtime.images import to_pixels
from t5g2.runtime.tokenizer import Tokenizer as PromptTokenizer

IGNORED = -100  # label of padding


@dataclass(frozen=True)
class Batch:
    """B sources padded to S tokens and B targets padded to T."""

    input_ids: torch.Tensor  # [B, S]
    attention_mask: torch.Tensor  # [B, S]
    labels: torch.Tensor  # [B, T], IGNORED where padded
    pixel_values: torch.Tensor | None  # [images, 3, side, side]

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model."""
        fields = {"input_ids": self.input_ids, "attention_mask": self.attention_mask, "labels": self.labels}
        return fields if self.pixel_values is None else {**fields, "pixel_values": self.pixel_values}


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


def prompt_tokenizer(tokenizer: Tokenizer, config: T5Gemma2Config) -> PromptTokenizer:
    """The runtime's own tokenizer, so that training sees the ids that inference will."""
    encoder, decoder = config.encoder, config.decoder
    return PromptTokenizer(
        tokenizer,
        bos_id=decoder.bos_token_id,
        eos_id=decoder.eos_token_id,
        pad_id=decoder.pad_token_id,
        boi_id=encoder.boi_token_index,
        eoi_id=encoder.eoi_token_index,
        image_id=encoder.image_token_index,
        mm_tokens_per_image=encoder.mm_tokens_per_image,
    )


def collate(tokenizer: Tokenizer, config: T5Gemma2Config, chosen: Iterable[Example]) -> Batch:
    """Examples as one batch, padded on the right. Sources begin with BOS and have no EOS; targets end in EOS."""
    chosen = list(chosen)
    prompts = prompt_tokenizer(tokenizer, config)
    side = config.encoder.vision_config.image_size
    sources = [prompts.encode_source(example.source, int(example.image is not None)) for example in chosen]
    targets = [[*prompts.encode_target(example.target), prompts.eos_id] for example in chosen]
    images = [torch.from_numpy(to_pixels(example.image, side)) for example in chosen if example.image is not None]
    input_ids = _padded(sources, config.decoder.pad_token_id)
    lengths = torch.tensor([[len(source)] for source in sources])
    return Batch(
        input_ids=input_ids,
        attention_mask=(torch.arange(input_ids.shape[1]) < lengths).long(),
        labels=_padded(targets, IGNORED),
        pixel_values=torch.stack(images) if images else None,
    )


def similar(chosen: list[Example], characters: int, seed: str) -> list[Example]:
    """A random run of the examples in order of length, about `characters` long when padded to its longest."""
    ordered = sorted(chosen, key=lambda example: len(example.source))
    last = random.Random(seed).randrange(len(ordered))
    count = max(1, characters // len(ordered[last].source))
    return ordered[max(0, last + 1 - count) :][:count]


def draw(tasks: dict[str, int], seed: str, ease: dict[str, float]) -> list[Example]:
    """Training examples: `tasks` says how many of each, `ease` how easy. The same seed gives the same examples."""
    chosen = []
    for task, count in tasks.items():
        stream = examples(task, random.Random(f"{seed}/{task}"), held_out=False, ease=ease.get(task, 0.0))
        chosen += [next(stream) for _ in range(count)]
    return chosen
