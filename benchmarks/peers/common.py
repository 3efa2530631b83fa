"""What the peer scripts share: the model's shape, the clock, memory, and the one line of JSON that each prints.

A peer script is run once per (quant, threads), in a process of its own, so that load time and memory are its own:
    python peer_NAME.py --env FOLDER --prepare                     writes the model files, prints nothing
    python peer_NAME.py --env FOLDER --quant int8 --threads 2      measures, prints one JSON object (see `report`)
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

DEFAULT_ENV = Path.home() / ".cache" / "t5g2-peers"

# T5Gemma 2 270M-270M, text: the encoder and the decoder each have this shape and share the token table.
HIDDEN, INTERMEDIATE, LAYERS, HEADS, HEAD_DIM, VOCAB = 640, 2048, 18, 4, 256, 262144  # one kv head
WINDOW, FULL_EVERY = 512, 6  # layers 5, 11, 17 see everything, the others a window
SOURCE = 512  # source tokens, or prompt tokens of a decoder-only model
DEPTH = 512  # slots of the self cache; a decode run fills the second half, target positions 256 to 511
DECODE_STEPS = 32  # tokens a decode run generates
SLOTS = SOURCE + DEPTH  # rows of a layer's cache in the graphs of model.py: [cross ; self]
MASKED = -1e9
GRAPHS_LEAVE_OUT = "embedding look-up left out of time, file and memory"  # said of every peer that runs model.py


def is_full(layer: int) -> bool:
    """Whether a layer has full attention."""
    return layer % FULL_EVERY == FULL_EVERY - 1


def arguments(quants: tuple[str, ...], doc: str) -> argparse.Namespace:
    """The command line of a peer script. --threads also pins the process to that many cores."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env", type=Path, default=DEFAULT_ENV, help="folder made by setup_peers.py")
    parser.add_argument("--prepare", action="store_true", help="write the model files that are missing, then stop")
    parser.add_argument("--quant", choices=quants, default=quants[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each figure, after one that is not counted")
    args = parser.parse_args()
    args.models = args.env / "models"
    args.models.mkdir(parents=True, exist_ok=True)
    if not args.prepare:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    return args


def memory_mb(field: str = "VmRSS", pid: int | str = "self") -> float:
    """Resident memory of a process in MB (1e6 bytes): VmRSS now, VmHWM the most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def rates(work, amount: int, runs: int) -> list[float]:
    """Calls `work` once untimed, then `runs` times; returns amount / seconds of each timed call."""
    work()
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        found.append(amount / (time.perf_counter() - start))
    return found


def run_program(command: list) -> tuple[object, float]:
    """Runs a program that prints JSON; returns what it printed and the most memory it had resident, in MB."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            errors.seek(0)
            raise SystemExit(f"{Path(command[0]).name} failed: {errors.read().strip()[-300:]}")
    return json.loads(output), usage.ru_maxrss * 1024 / 1e6


def report(
    args: argparse.Namespace,
    *,
    peer: str,
    version: str,
    encode_runs: list[float],
    decode_runs: list[float],
    load_s: float,
    resident_mb: float,
    files: list[Path],
    settings: str,
    wrong: str = "",
) -> None:
    """Prints one measurement as JSON. args: of `arguments`.

    encode_*: source (or prompt) tokens a second at 512 tokens; decode_*: generated tokens a second at source or context
    512, all logits computed; the medians and every run. load_s: from files in the page cache to ready for the first
    request. resident_mb: of the whole process after the runs, without Python and numpy themselves. file_mb: model files.
    wrong: what the peer gets wrong; a test of ours shows it.
    """
    result = {
        "peer": peer,
        "version": version,
        "quant": args.quant,
        "threads": args.threads,
        "encode_tok_s": round(statistics.median(encode_runs), 1),
        "decode_tok_s": round(statistics.median(decode_runs), 2),
        "encode_runs": [round(rate, 1) for rate in encode_runs],
        "decode_runs": [round(rate, 2) for rate in decode_runs],
        "load_s": round(load_s, 3),
        "resident_mb": round(resident_mb, 1),
        "file_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "settings": settings,
        "wrong": wrong,
    }
    print(json.dumps(result), flush=True)


def read_once(files: list[Path]) -> None:
    """Reads the files into the page cache, so that no load time depends on the disk."""
    for path in files:
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass


def rotary_table(positions: int) -> np.ndarray:
    """cos and sin of sliding and of full layers, float32 [positions, 2 kinds, 2, head_dim / 2]."""
    exponents = np.arange(0, HEAD_DIM, 2) / HEAD_DIM
    frequencies = np.stack([1e4**-exponents, 1e6**-exponents / 8])  # [2, head_dim / 2]
    angles = np.arange(positions)[:, None, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).astype(np.float32)


def decoder_inputs(outputs_first: bool) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the decoder step's inputs, in order.

    Attention multiplies by the caches. outputs_first: they lie as [outputs, inputs] of that product, as the weights of a
    linear layer do: keys [SLOTS, head_dim], values [head_dim, SLOTS]. Otherwise both are the other way round.
    """
    rows_first, columns_first = (SLOTS, HEAD_DIM), (HEAD_DIM, SLOTS)
    key_shape, value_shape = (rows_first, columns_first) if outputs_first else (columns_first, rows_first)
    fixed = [("x", (1, HIDDEN)), ("rotary", (1, 2, 2, HEAD_DIM // 2)), ("mask", (1, SLOTS))]
    keys = [(f"key{i}", key_shape) for i in range(LAYERS)]
    return fixed + keys + [(f"value{i}", value_shape) for i in range(LAYERS)]


class DecoderInputs:
    """The decoder step's input arrays, by name: `arrays`, zeros from `allocate(shape)`, which the runtime reads in place."""

    def __init__(self, outputs_first: bool, allocate=lambda shape: np.zeros(shape, np.float32)) -> None:
        self.arrays = {name: allocate(shape) for name, shape in decoder_inputs(outputs_first)}
        random = np.random.default_rng(0)
        for array in self.arrays.values():
            array[...] = random.standard_normal(array.shape, np.float32)
        keys = [self.arrays[f"key{i}"] for i in range(LAYERS)]
        values = [self.arrays[f"value{i}"] for i in range(LAYERS)]
        rows = keys + [array.T for array in values] if outputs_first else [array.T for array in keys] + values
        self._rows = rows  # of 2 * LAYERS caches, each [SLOTS, head_dim]
        self._rotary = rotary_table(DEPTH)

    def move_to(self, position: int) -> None:
        """Rotary table and mask for a target position: what is seen is the source and the positions before."""
        self.arrays["rotary"][0] = self._rotary[position]
        self.arrays["mask"][:, : SOURCE + position] = 0.0
        self.arrays["mask"][:, SOURCE + position :] = MASKED

    def store(self, position: int, new: np.ndarray) -> None:
        """Writes a position's keys and values, [2 * LAYERS, head_dim], into the caches."""
        for rows, row in zip(self._rows, new):
            rows[SOURCE + position] = row


def decode_rates(step, runs: int) -> list[float]:
    """Tokens a second of `runs` runs of DECODE_STEPS tokens, from target position DEPTH / 2 on. step: position -> None."""

    def generate() -> None:
        for position in range(DEPTH // 2, DEPTH // 2 + DECODE_STEPS):
            step(position)

    return rates(generate, DECODE_STEPS, runs)
