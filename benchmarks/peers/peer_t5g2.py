"""Ours, by t5g2-bench: T5Gemma 2 270M-270M, text, random weights; both backends. Runs where t5g2 is installed.

encode: source tokens a second, 512 tokens, with the cross keys and values. decode: generated tokens a second at source 512
and target positions from 256, all logits computed and the likeliest chosen. The token table is in time, file and memory.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import common

QUANTS = ("int4", "int8", "xnnpack-int4", "xnnpack-int8")


def folder(models: Path, quant: str) -> Path:
    return models / f"t5g2-{quant}"


def command(name: str) -> str:
    """One of our commands, beside the Python that runs this or on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or sys.exit(f"{name} is missing: pip install t5g2 where this runs")


def prepare(models: Path) -> None:
    for quant in QUANTS:
        if folder(models, quant).exists():
            continue
        backend, _, plain = quant.rpartition("-")
        options = ["--quant", plain, "--backend", backend or "native", "--output", folder(models, quant)]
        export = [command("t5g2-export"), "--size", "270m", "--random-weights", "0", "--no-vision", *options]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    bundle = folder(args.models, args.quant)
    options = {
        "--threads": args.threads,
        "--source": common.SOURCE,
        "--depth": common.DEPTH // 2,
        "--target": common.DECODE_STEPS,
        "--repeat": args.runs,
        "--output": "json",
    }
    words = [str(word) for pair in options.items() for word in pair]
    done = subprocess.run([command("t5g2-bench"), str(bundle), *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    report = json.loads(done.stdout)
    (loading,), (result,) = report["loading"], report["results"]
    (decode,) = result["decode"]
    common.report(
        args,
        peer="t5g2",
        version=report["version"],
        encode_runs=result["encode_tok_s"]["runs"],
        decode_runs=decode["tok_s"]["runs"],
        load_s=loading["load_warm_s"],
        resident_mb=result["resident_mb"],
        files=list(bundle.glob("*.pte")),
        settings=f"{result['quantization']}, backend {result['backend']}, {result['kernels']} kernels",
    )


if __name__ == "__main__":
    main()
