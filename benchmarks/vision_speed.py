"""A picture through the vision program against transformers in eager float32: `python benchmarks/vision_speed.py BUNDLE`.

BUNDLE is an export with the tower of a released size (896 x 896 pixels). Both run in turn, A B A B, each in a process of its
own that warms up once; prints one JSON line: medians in seconds, the ratio, and what ours holds at the
peak beyond what it held when the bundle was loaded, its weights included.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path


def ours(bundle: Path, threads: int):
    """The call to time, and the bytes of the weights."""
    import torch

    from t5g2.runtime.reference import load

    model = load(bundle, threads=threads)
    side = model.bundle.manifest["image"]["side"]
    pixels = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0)).numpy()
    return lambda: model._image_features(pixels), model.bundle.vision_program.stat().st_size


def eager(threads: int):
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=896, patch_size=14,
        vision_use_head=False, attn_implementation="eager",
    )  # fmt: skip
    model = SiglipVisionModel(config).eval()
    pixels = torch.randn(1, 3, 896, 896)

    def run():
        with torch.no_grad():
            model(pixel_values=pixels)

    return run, sum(4 * p.numel() for p in model.parameters())


def child(args) -> None:
    run, weights = ours(args.bundle, args.threads) if args.side == "ours" else eager(args.threads)
    before = resident_mb()
    run()
    seconds = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "start_mb": before, "peak_mb": peak, "weights_mb": weights / 1e6}))


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("bundle", type=Path)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--repeat", type=int, default=1, help="pictures a round, after one to warm up")
    p.add_argument("--side", choices=["ours", "eager"], help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.side:
        child(args)
        return 0
    runs = {"ours": [], "eager": []}
    for _ in range(args.rounds):
        for side, found in runs.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            found.append(
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            )
    seconds = {side: [s for run in found for s in run["seconds"]] for side, found in runs.items()}
    ours_run = runs["ours"][0]
    print(
        json.dumps(
            {
                "threads": args.threads,
                "t5g2_s": round(statistics.median(seconds["ours"]), 2),
                "eager_fp32_s": round(statistics.median(seconds["eager"]), 2),
                "times_as_fast": round(statistics.median(seconds["eager"]) / statistics.median(seconds["ours"]), 2),
                "peak_above_loaded_mb": round(ours_run["peak_mb"] - ours_run["start_mb"]),
                "runs_s": {side: [round(s, 2) for s in found] for side, found in seconds.items()},
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
