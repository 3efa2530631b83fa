"""What t5g2-bench adds to what it measures: `python benchmarks/bench_overhead.py BUNDLE`, a native text bundle.

Its decoding against bare_decode.cpp, a bare loop of the same steps, each in a process of its own, in turn, round after round.
Prints a line a round and, for each thread count, the median of the rounds' ratios; 1.00 is no cost.
"""

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

from t5g2.benchmarks.cli import PROGRAM

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"


def build(target: str) -> Path:
    """A benchmark program, built if its sources changed."""
    packages = Path(sysconfig.get_path("purelib"))
    options = ["-DT5G2_BENCHMARKS=ON", f"-DCMAKE_PREFIX_PATH={packages}/executorch;{packages}/nlohmann_json"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", BUILD, *options], **quiet)
    subprocess.run(["cmake", "--build", BUILD, "--target", target], **quiet)
    return BUILD / target


def output(command: list) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    return done.stdout


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("bundle", type=Path)
    p.add_argument("--threads", default="1,2", help="comma-separated (default: 1,2)")
    p.add_argument("--rounds", type=int, default=9)
    args = p.parse_args()
    bare_decode = build("bare_decode")
    for threads in args.threads.split(","):
        same = ["--source", "512", "--depth", "256", "--target", "64", "--repeat", "3", "--threads", threads]
        ratios = []
        for i in range(args.rounds):
            turn = {
                "bare": lambda same=same: json.loads(output([bare_decode, args.bundle, *same])),
                "bench": lambda same=same: json.loads(output([PROGRAM, args.bundle, *same, "--output", "json"]))["results"][0][
                    "decode"
                ][0]["tok_s"]["runs"],
            }
            order = list(turn) if i % 2 == 0 else list(turn)[::-1]
            speeds = {name: statistics.median(turn[name]()) for name in order}
            ratios.append(speeds["bench"] / speeds["bare"])
            print(
                f"{threads} threads: bare {speeds['bare']:.1f}, t5g2-bench {speeds['bench']:.1f} tok/s: {ratios[-1]:.3f}",
                flush=True,
            )
        print(f"{threads} threads: median of {args.rounds} ratios {statistics.median(ratios):.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
