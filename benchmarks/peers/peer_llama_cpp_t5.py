"""llama.cpp on a T5 with random weights, its own encoder-decoder: a file of Q4_0 or Q8_0, the token table included.

encode: source tokens a second, 512 tokens (llama_encode; it yields no cross keys and values). decode: generated tokens a
second at source 512 and target positions from 256, one id a llama_decode, all logits computed. llama-bench runs no encoder,
so a program of ours, llama_t5.cpp, does.

The T5 has T5Gemma 2's width, depth, heads and vocabulary; it differs by architecture: its attention has no grouped heads
(4 key heads instead of 1) and is never windowed, and its cross attention is a block of its own with four more matrices.
By llama.cpp: it computes the cross keys and values of the whole source anew in each step, and self attention in float32,
as its flash attention takes no position bias. Cross attention does use it; without, decoding is a third slower.
"""

from pathlib import Path

import common
import numpy as np

QUANTS = ("q4_0", "q8_0")
MOST_RUNS = 3  # of five seconds each, after 256 steps that lead there
REL_BUCKETS = 32
DIFFERENCES = (
    "T5: 4 kv heads, no windows, separate cross attention; cross K/V of all 512 source tokens computed anew in each step,"
    " self attention without flash attention"
)


def model_path(models: Path, quant: str) -> Path:
    return models / f"t5-270m-{quant}.gguf"


def prepare(models: Path) -> None:
    import gguf_file

    for quant in QUANTS:
        path = model_path(models, quant)
        if not path.exists():
            write(gguf_file.RandomModel(path, "t5", quant, kv_heads=common.HEADS))


def write(file) -> None:
    """The metadata and tensors of T5 into a `gguf_file.RandomModel`. The token table is the output head as well."""
    file.writer.add_decoder_block_count(common.LAYERS)
    file.writer.add_decoder_start_token_id(0)
    file.writer.add_relative_attn_buckets_count(REL_BUCKETS)
    hidden, heads_width = common.HIDDEN, common.HEADS * common.HEAD_DIM

    def attention(prefix: str) -> None:
        for name in ("q", "k", "v"):
            file.matrix(f"{prefix}_{name}", heads_width, hidden)
        file.matrix(f"{prefix}_o", hidden, heads_width)
        file.norm(f"{prefix}_norm", hidden)

    file.matrix("token_embd", common.VOCAB, hidden)
    for stack, attentions in (("enc", ("attn",)), ("dec", ("attn", "cross_attn"))):
        file.norm(f"{stack}.output_norm", hidden)
        file.plain(f"{stack}.blk.0.attn_rel_b", np.zeros((REL_BUCKETS, common.HEADS)))  # all layers use the first's
        for layer in range(common.LAYERS):
            block = f"{stack}.blk.{layer}"
            for name in attentions:
                attention(f"{block}.{name}")
            file.feed_forward(block)
            file.norm(f"{block}.ffn_norm", hidden)
    file.finish()


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    model = model_path(args.models, args.quant)
    common.read_once([model])
    numbers = (args.threads, min(args.runs, MOST_RUNS), common.SOURCE, common.DEPTH // 2, common.DECODE_STEPS)
    result, resident_mb = common.run_program([args.env / "llama.cpp/bin/llama-t5", model, *map(str, numbers)])
    common.report(
        args,
        peer="llama.cpp T5",
        version=(args.env / "llama.cpp/version.txt").read_text().strip(),
        encode_runs=result["encode_runs"],
        decode_runs=result["decode_runs"],
        load_s=result["load_s"],
        resident_mb=resident_mb,
        files=[model],
        settings=f"clang, -march=native (AMX where the CPU has it), f16 cache; {DIFFERENCES}",
    )


if __name__ == "__main__":
    main()
