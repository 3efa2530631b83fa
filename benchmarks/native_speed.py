"""Speed and memory of a native text bundle without Python in the way: `python benchmarks/native_speed.py BUNDLE`.

Builds native_speed.cpp (once), runs it for every thread count, and prints one JSON line each: tokens a second encoded and
decoded (medians), load time, resident memory, the machine's read bandwidth in the same process, the bytes that a token
touches (weights and scales of the decoder and the vocabulary head, cross K/V, self cache) and the share of the bandwidth
that decoding reaches.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

from t5g2.quant.packed import PackedShape
from t5g2.runtime.bundle import open_bundle

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"


def build() -> Path:
    """The program, built if its sources changed."""
    packages = Path(sysconfig.get_path("purelib"))
    options = ["-DT5G2_BENCHMARKS=ON", f"-DCMAKE_PREFIX_PATH={packages}/executorch;{packages}/nlohmann_json"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", BUILD, *options], **quiet)
    subprocess.run(["cmake", "--build", BUILD, "--target", "native_speed", "kernel_speed", "engine_overhead"], **quiet)
    return BUILD / "native_speed"


def bytes_per_token(manifest: dict, source: int, depth: int) -> int:
    """What one decoder step reads at target position `depth`."""
    text, scheme = manifest["model"]["config"]["decoder"], manifest["quantization"]["text"]
    layout = scheme["bits"], scheme["group_size"] or 0
    hidden, wide = text["hidden_size"], text["num_heads"] * text["head_dim"]
    kv, ff = text["num_kv_heads"] * text["head_dim"], -(-text["intermediate_size"] // 16) * 16
    shapes = [(wide + 2 * kv, hidden), (hidden, wide), (2 * ff, hidden), (hidden, text["intermediate_size"])]
    layer = sum(PackedShape(*shape, *layout).bytes for shape in shapes)
    entry = 2 * kv * (4 if manifest["quantization"]["kv_cache"] == "float32" else 2)
    seen = [
        min(depth + 1, text["sliding_window"]) if kind == "sliding_attention" else depth + 1 for kind in text["layer_types"]
    ]
    cached = entry * (sum(seen) + text["num_layers"] * source)
    return text["num_layers"] * layer + PackedShape(text["vocab_size"], hidden, *layout).bytes + cached


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("bundle", type=Path)
    p.add_argument("--threads", default="1,2", help="comma-separated (default: 1,2)")
    p.add_argument("--source", type=int, default=512)
    p.add_argument("--depth", type=int, default=256)
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--kernels", help="portable, avx2, avx512vnni, …: what T5G2_CPU takes (default: the best)")
    args = p.parse_args()
    bundle = open_bundle(args.bundle)
    manifest = bundle.manifest
    if bundle.backend != "native":
        sys.exit(f"{args.bundle}: backend {bundle.backend}; export with --backend native")
    wide = manifest["quantization"]["kv_cache"] == "float32"
    hidden = manifest["model"]["config"]["encoder"]["hidden_size"] if manifest["image"] else 0
    options = {
        "cache": manifest["memory"]["self_cache_bytes"] // (4 if wide else 2),
        "vocab": manifest["model"]["config"]["decoder"]["vocab_size"],
        "hidden": hidden,
        "float": int(wide),
        "source": args.source,
        "depth": args.depth,
        "repeat": args.repeat,
    }
    program = build()
    environment = os.environ | ({"T5G2_CPU": args.kernels} if args.kernels else {})
    touched = bytes_per_token(manifest, args.source, args.depth)
    for threads in args.threads.split(","):
        flags = [str(word) for name, value in (options | {"threads": threads}).items() for word in (f"--{name}", value)]
        done = subprocess.run([program, bundle.text_program, *flags], capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(done.stderr.strip() or f"{program} failed")
        figures = json.loads(done.stdout)
        figures |= {
            "peer": "t5g2",
            "version": version("t5g2"),
            "quant": manifest["quantization"]["text"]["name"],
            "settings": f"native, {args.kernels or 'best'} kernels",
            "file_mb": round(bundle.text_program.stat().st_size / 1e6, 1),
            "mb_per_token": round(touched / 1e6, 1),
            "bandwidth_share": round(figures["decode_tok_s"] * touched / 1e9 / figures["read_gb_s"], 3),
        }
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
