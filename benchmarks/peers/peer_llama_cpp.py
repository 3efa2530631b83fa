"""llama.cpp on a decoder-only Gemma 3 270M with random weights: a file of Q4_0 or Q8_0, the token table included.

encode: prompt tokens a second, 512 tokens (llama-bench pp512). decode: tokens a second after 512 tokens (tg at depth 512).
It has no T5Gemma 2; a layer of Gemma 3 is of the same shape, and there are as many as in the decoder or in the encoder.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import common

QUANTS = ("q4_0", "q8_0")
ADVANTAGES = "self attention only, no cross K/V; half the layers of T5Gemma 2"


def prepare(models: Path) -> None:
    import gguf
    import numpy as np

    random = np.random.default_rng(0)
    for quant in QUANTS:
        path = models / f"gemma3-270m-{quant}.gguf"
        if path.exists():
            continue
        kind = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "q8_0": gguf.GGMLQuantizationType.Q8_0}[quant]
        unfinished = path.with_suffix(".unfinished")
        writer = gguf.GGUFWriter(unfinished, "gemma3")
        writer.add_context_length(32768)
        writer.add_embedding_length(common.HIDDEN)
        writer.add_block_count(common.LAYERS)
        writer.add_feed_forward_length(common.INTERMEDIATE)
        writer.add_head_count(common.HEADS)
        writer.add_head_count_kv(1)
        writer.add_key_length(common.HEAD_DIM)
        writer.add_value_length(common.HEAD_DIM)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1_000_000.0)
        writer.add_sliding_window(common.WINDOW)  # the 5:1 pattern is llama.cpp's default for gemma3
        writer.add_vocab_size(common.VOCAB)
        writer.add_tokenizer_model("none")
        writer.add_file_type({"q4_0": gguf.LlamaFileType.MOSTLY_Q4_0, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[quant])

        def matrix(name: str, rows: int, columns: int, writer=writer, kind=kind) -> None:
            values = random.standard_normal((rows, columns), np.float32) / columns**0.5
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

        def norm(name: str, width: int, writer=writer) -> None:
            writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))

        hidden, heads_width = common.HIDDEN, common.HEADS * common.HEAD_DIM
        matrix("token_embd", common.VOCAB, hidden)
        norm("output_norm", hidden)
        for layer in range(common.LAYERS):
            block = f"blk.{layer}"
            matrix(f"{block}.attn_q", heads_width, hidden)
            matrix(f"{block}.attn_k", common.HEAD_DIM, hidden)
            matrix(f"{block}.attn_v", common.HEAD_DIM, hidden)
            matrix(f"{block}.attn_output", hidden, heads_width)
            matrix(f"{block}.ffn_gate", common.INTERMEDIATE, hidden)
            matrix(f"{block}.ffn_up", common.INTERMEDIATE, hidden)
            matrix(f"{block}.ffn_down", hidden, common.INTERMEDIATE)
            for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
                norm(f"{block}.{name}", hidden)
            norm(f"{block}.attn_q_norm", common.HEAD_DIM)
            norm(f"{block}.attn_k_norm", common.HEAD_DIM)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        unfinished.rename(path)


def bench(args, model: Path, *options: str) -> tuple[dict, float, float]:
    """Runs llama-bench; returns its result, the most resident memory in MB that was seen, and its wall time in seconds."""
    command = [args.env / "llama.cpp/bin/llama-bench", "-m", model, "-t", str(args.threads), "-o", "json", *options]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            errors.seek(0)
            raise SystemExit(f"llama-bench failed: {errors.read().strip()[-300:]}")
    return json.loads(output)[0], usage.ru_maxrss * 1024 / 1e6, time.perf_counter() - start


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
        peer="llama.cpp",
        version=(args.env / "llama.cpp/version.txt").read_text().strip(),
        quant=args.quant,
        threads=args.threads,
        encode_runs=prompt["samples_ts"],
        decode_runs=decode["samples_ts"],
        load_s=load_s,
        resident_mb=resident_mb,
        files=[model],
        settings=f"llama-bench, clang, -march=native (AMX where the CPU has it), f16 cache; {ADVANTAGES}",
    )


if __name__ == "__main__":
    main()
