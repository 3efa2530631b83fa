"""llama.cpp on a decoder-only Gemma 3 270M with random weights: a file of Q4_0 or Q8_0, the token table included.

encode: prompt tokens a second, 512 tokens (llama-bench pp512). decode: tokens a second after 512 tokens (tg at depth 512).
It has no T5Gemma 2; a layer of Gemma 3 is of the same shape, and there are as many as in the decoder or in the encoder.
"""

import time
from pathlib import Path

import common

QUANTS = ("q4_0", "q8_0")
ADVANTAGES = "self attention only, no cross K/V; half the layers of T5Gemma 2"


def prepare(models: Path) -> None:
    import gguf_file

    for quant in QUANTS:
        path = models / f"gemma3-270m-{quant}.gguf"
        if not path.exists():
            write(gguf_file.RandomModel(path, "gemma3", quant, kv_heads=1))


def write(file) -> None:
    """The metadata and tensors of Gemma 3 into a `gguf_file.RandomModel`."""
    file.writer.add_rope_freq_base(1_000_000.0)
    file.writer.add_sliding_window(common.WINDOW)  # the 5:1 pattern is llama.cpp's default for gemma3
    hidden, heads_width = common.HIDDEN, common.HEADS * common.HEAD_DIM
    file.matrix("token_embd", common.VOCAB, hidden)
    file.norm("output_norm", hidden)
    for layer in range(common.LAYERS):
        block = f"blk.{layer}"
        file.matrix(f"{block}.attn_q", heads_width, hidden)
        file.matrix(f"{block}.attn_k", common.HEAD_DIM, hidden)
        file.matrix(f"{block}.attn_v", common.HEAD_DIM, hidden)
        file.matrix(f"{block}.attn_output", hidden, heads_width)
        file.feed_forward(block)
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            file.norm(f"{block}.{name}", hidden)
        file.norm(f"{block}.attn_q_norm", common.HEAD_DIM)
        file.norm(f"{block}.attn_k_norm", common.HEAD_DIM)
    file.finish()


def bench(args, model: Path, *options: str) -> tuple[dict, float, float]:
    """Runs llama-bench; returns its result, the most resident memory in MB that was seen, and its wall time in seconds."""
    command = [args.env / "llama.cpp/bin/llama-bench", "-m", model, "-t", str(args.threads), "-o", "json", *options]
    start = time.perf_counter()
    results, resident_mb = common.run_program(command)
    return results[0], resident_mb, time.perf_counter() - start


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    model = args.models / f"gemma3-270m-{args.quant}.gguf"
    common.read_once([model])
    runs = str(args.runs)
    _, _, load_s = bench(args, model, "-p", "1", "-n", "0", "-r", "1", "--no-warmup")
    prompt, _, _ = bench(args, model, "-p", str(common.SOURCE), "-n", "0", "-r", runs)
    steps = str(common.DECODE_STEPS)
    decode, resident_mb, _ = bench(args, model, "-p", "0", "-n", steps, "-d", str(common.DEPTH), "-r", runs)
    common.report(
        args,
        peer="llama.cpp",
        version=(args.env / "llama.cpp/version.txt").read_text().strip(),
        encode_runs=prompt["samples_ts"],
        decode_runs=decode["samples_ts"],
        load_s=load_s,
        resident_mb=resident_mb,
        files=[model],
        settings=f"llama-bench, clang, -march=native (AMX where the CPU has it), f16 cache; {ADVANTAGES}",
    )


if __name__ == "__main__":
    main()
