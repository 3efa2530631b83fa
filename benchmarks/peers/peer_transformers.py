"""transformers' own T5Gemma 2 in PyTorch, eager, bf16, random weights: the reference that everybody can run.

encode: source tokens a second, 512 tokens, one forward of the encoder; the cross keys and values are the first decoder
step's work here, and left out. decode: generated tokens a second at source 512 and target positions from 256, one forward
of the decoder and head each, on its EncoderDecoderCache, all logits computed.
"""

import time
from importlib import metadata
from pathlib import Path

import common

QUANTS = ("bf16",)


def prepare(models: Path) -> None:
    import random_t5gemma2
    import torch

    folder = models / "transformers-bf16"
    if folder.exists():
        return
    unfinished = models / "unfinished-transformers-bf16"
    random_t5gemma2.build(torch.bfloat16).save_pretrained(unfinished)
    unfinished.rename(folder)


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    folder = args.models / "transformers-bf16"
    files = list(folder.glob("*.safetensors"))
    common.read_once(files)
    before_mb = common.memory_mb()

    start = time.perf_counter()
    import torch
    from transformers import DynamicCache, EncoderDecoderCache, T5Gemma2ForConditionalGeneration

    torch.set_num_threads(args.threads)
    model = T5Gemma2ForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
    load_s = time.perf_counter() - start

    with torch.inference_mode():
        ids = torch.randint(300, 200_000, (1, common.SOURCE), generator=torch.Generator().manual_seed(0))
        encoder, half = model.get_encoder(), common.DEPTH // 2
        encode_runs = common.rates(lambda: encoder(input_ids=ids), common.SOURCE, args.runs)

        encoded = encoder(input_ids=ids)
        cache = EncoderDecoderCache(DynamicCache(config=model.config.decoder), DynamicCache())

        def forward(target: torch.Tensor) -> None:
            """Logits of the target ids, [1, n], that follow what is in the cache."""
            logits = model(encoder_outputs=encoded, decoder_input_ids=target, past_key_values=cache, use_cache=True).logits
            assert logits.shape == (1, target.shape[1], common.VOCAB)

        def step(position: int) -> None:
            if position == half:
                cache.self_attention_cache.crop(half - cache.get_seq_length())  # what the run before has added
            assert cache.get_seq_length() == position
            forward(ids[:, position : position + 1])

        forward(ids[:, :half])
        decode_runs = common.decode_rates(step, args.runs)
    common.report(
        args,
        peer="transformers",
        version=f"{metadata.version('transformers')}, torch {torch.__version__}",
        encode_runs=encode_runs,
        decode_runs=decode_runs,
        load_s=load_s,
        resident_mb=common.memory_mb() - before_mb,
        files=files,
        settings="eager attention, bf16, inference mode; its load time is mostly Python imports",
    )


if __name__ == "__main__":
    main()
