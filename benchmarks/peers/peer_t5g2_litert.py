"""Ours on LiteRT, by t5g2.load: T5Gemma 2 270M-270M, text, random weights. Runs where t5g2[litert] is installed.

encode: source tokens a second, 512 tokens, with the cross keys and values. decode: generated tokens a second at source 512, all
logits computed and the likeliest chosen; shapes are fixed, so every target position costs the same. The token table is in
time, file and memory, and so is what Python adds to each token.
"""

import subprocess
import time

import common
from peer_t5g2 import command, folder

QUANTS = ("int4", "int8", "int4-mixed")


def prepare(args) -> None:
    for quant in QUANTS:
        bundle = folder(args.models, f"litert-{quant}")
        if bundle.exists():
            continue
        options = ["--quant", quant, "--backend", "litert", "--source-buckets", f"128,{common.SOURCE}", "--output", bundle]
        export = [command("t5g2-export"), "--size", "270m", "--random-weights", "0", "--no-vision", *options]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args)
    import t5g2

    bundle, cache = folder(args.models, f"litert-{args.quant}"), args.models / "t5g2-litert-cache"
    with t5g2.load(bundle, threads=args.threads, cache_folder=cache):  # writes the packed weights, once
        pass
    common.read_once([*bundle.iterdir(), *(file for file in cache.rglob("*") if file.is_file())])
    before_mb = common.memory_mb()

    start = time.perf_counter()
    model = t5g2.load(bundle, threads=args.threads, cache_folder=cache)
    load_s = time.perf_counter() - start
    source = [2, *range(1000, 1000 + common.SOURCE - 1)]
    encode_runs = common.rates(lambda: model.session(source), common.SOURCE, args.runs)

    session, decode_runs = model.session(source), []
    for _ in range(args.runs + 1):
        tokens = session.stream(min_new_tokens=common.DECODE_STEPS + 1)
        next(tokens)
        start = time.perf_counter()
        for _ in range(common.DECODE_STEPS):
            next(tokens)
        decode_runs.append(common.DECODE_STEPS / (time.perf_counter() - start))
    common.report(
        args,
        peer="t5g2-litert",
        version=t5g2.__version__,
        encode_runs=encode_runs,
        decode_runs=decode_runs[1:],
        load_s=load_s,
        resident_mb=common.memory_mb() - before_mb,
        files=[bundle / "text.tflite", *cache.rglob(f"{model.manifest['files']['text.tflite']['sha256']}*.xnnpack")],
        settings=f"{args.quant}, backend litert, through Python; CompiledModel, XNNPACK with weight cache (the second copy in "
        "file MB)",
    )


if __name__ == "__main__":
    main()
