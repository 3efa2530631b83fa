"""Measures ours and the peers in one run: all in turn, round after round (A B A B), on the same cores.

    python benchmarks/peers/run.py [--only t5g2 llama.cpp] [--rounds 3] [--also "COMMAND"] [--output FOLDER]

Sets up what is missing (setup_peers.py), writes the model files that are missing, measures every (peer, quant) once a
round and thread count, each in a process of its own, and writes FOLDER/peers.json, peers.md and peers.png: medians over all
rounds. What can't be set up or measured is listed with the reason. All figures are for the 270M text model, random
weights; `common.report` says what each means. From nothing it takes most of an hour on two cores.

Ours run where this runs; the peers in an environment of their own, pinned to the first cores, as many as threads. --also
takes a command that prints one or more such JSON objects, one a line (pin it with taskset). It runs once a round and thread
count where it holds "{threads}", otherwise once a round.
"""

import argparse
import importlib.util
import json
import os
import shlex
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import setup_peers
from draw import draw

HERE = Path(__file__).resolve().parent
OURS = ("t5g2", "t5g2-litert")
PEERS = {  # name -> (script, quants)
    "t5g2": ("peer_t5g2.py", ("int4", "int8", "xnnpack-int4", "xnnpack-int8")),
    "t5g2-litert": ("peer_t5g2_litert.py", ("int4", "int8", "int4-mixed")),
    "llama.cpp": ("peer_llama_cpp.py", ("q4_0", "q8_0")),
    "llama.cpp-t5": ("peer_llama_cpp_t5.py", ("q4_0", "q8_0")),
    "onnxruntime": ("peer_onnxruntime.py", ("int8", "int4")),
    "litert": ("peer_litert.py", ("int4", "int8")),
    "openvino": ("peer_openvino.py", ("int4", "int8")),
    "ctranslate2": ("peer_ctranslate2.py", ("int8",)),
    "transformers": ("peer_transformers.py", ("bf16",)),
}
REPORTED = set("peer version quant threads encode_runs decode_runs load_s resident_mb file_mb settings".split())
TIME_LIMIT_S = 1800


def call(command: list[str], log: Path) -> list[dict]:
    """Runs a command, its messages into `log`; returns the JSON objects it printed. RuntimeError if it fails."""
    with open(log, "a") as messages:
        messages.write(f"$ {shlex.join(command)}\n")
        messages.flush()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=messages, text=True, timeout=TIME_LIMIT_S)
    if done.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"exit status {done.returncode} ({log}): {' '.join(last)[-300:]}")
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for result in results:
        if absent := REPORTED - result.keys():
            raise RuntimeError(f"it printed an object without {', '.join(sorted(absent))}")
    return results


def prepare(env: Path, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Sets up the peers and writes their model files. Returns the peers that are ready and why the others are not."""
    state = setup_peers.setup(env, [name for name in names if name not in OURS and not is_set_up(env, name)])
    ready, missing = [], {}
    for name in names:
        if name not in OURS and state[name] != "ok":
            missing[name] = f"can't be set up: {state[name]}"
            continue
        print(f"preparing {name}", file=sys.stderr, flush=True)
        try:
            call(peer_command(env, name, "--prepare"), env / "logs" / f"prepare-{name}.log")
            ready.append(name)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            missing[name] = f"its model files can't be written: {error}"
    return ready, missing


def is_set_up(env: Path, name: str) -> bool:
    record = env / "peers.json"
    return record.exists() and json.loads(record.read_text()).get(name) == "ok"


def peer_command(env: Path, name: str, *options: str) -> list[str]:
    python = sys.executable if name in OURS else str(env / "venv/bin/python")
    return [python, str(HERE / PEERS[name][0]), "--env", str(env), *options]


def forget(folder: Path) -> None:
    """Drops all model files from the page cache, so that each peer finds the same memory free, whoever ran before it."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def commands(args, ready: list[str], threads: int) -> list[tuple[str, list[str]]]:
    """(label, command) of everything to run for one thread count in one round, in order."""
    turn = []
    for name in ready:
        for quant in PEERS[name][1]:
            options = ("--quant", quant, "--threads", str(threads), "--runs", str(args.runs))
            turn.append((f"{name} {quant}", peer_command(args.env, name, *options)))
    for also in args.also:
        if "{threads}" in also or threads == args.threads[0]:
            turn.append((also, shlex.split(also.replace("{threads}", str(threads)))))
    return turn


def measure(args, ready: list[str], missing: dict[str, str]) -> list[dict]:
    """All rounds. Returns every object printed, with its round; a command that fails is added to `missing`."""
    samples = []
    for turn in range(args.rounds):
        for threads in args.threads:
            for label, command in commands(args, ready, threads):
                print(f"round {turn + 1} of {args.rounds}, {threads} threads: {label}", file=sys.stderr, flush=True)
                forget(args.env / "models")
                try:
                    printed = call(command, args.env / "logs" / "measure.log")
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    missing[f"{label}, {threads} threads"] = str(error)
                    continue
                samples += [{**sample, "round": turn + 1} for sample in printed]
    return samples


def merge(samples: list[dict]) -> list[dict]:
    """One object per (peer, quant, threads): runs of all rounds, their medians, and the median of the rest."""
    groups: dict[tuple, list[dict]] = {}
    for sample in samples:
        groups.setdefault((sample["peer"], sample["quant"], sample["threads"]), []).append(sample)
    merged = []
    for group in groups.values():
        result = {key: value for key, value in group[0].items() if key != "round"}
        for figure in ("encode", "decode"):
            runs = [rate for sample in group for rate in sample[f"{figure}_runs"]]
            result[f"{figure}_runs"] = runs
            result[f"{figure}_round_medians"] = [statistics.median(sample[f"{figure}_runs"]) for sample in group]
            # Not of all runs: those of a round share its luck with huge pages and with others' work.
            result[f"{figure}_tok_s"] = statistics.median(result[f"{figure}_round_medians"])
        for key in ("load_s", "resident_mb", "file_mb"):
            result[key] = statistics.median(sample[key] for sample in group)
        merged.append(result)
    return merged


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown CPU")
    flags = next((line.split(":", 1)[1].split() for line in cpuinfo if line.startswith(("flags", "Features"))), [])
    wanted = ("avx2", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    return ", ".join([name, f"{len(os.sched_getaffinity(0))} cores", *(flag for flag in wanted if flag in flags)])


def table(record: dict) -> str:
    """Markdown: one row per (peer, quant), thread counts side by side, the most decode tokens a second first."""
    results, threads = record["results"], record["threads"]
    rows: dict[tuple, dict[int, dict]] = {}
    for result in sorted(results, key=lambda result: -result["decode_tok_s"]):
        rows.setdefault((result["peer"], result["quant"]), {})[result["threads"]] = result
    heads = " / ".join(map(str, threads))
    lines = [
        f"| | decode tok/s, {heads} threads | encode tok/s, {heads} threads | load s | resident MB | file MB |",
        "|---|---|---|---|---|---|",
    ]
    for (peer, quant), by_threads in rows.items():

        def side_by_side(key: str, digits: int, by_threads=by_threads) -> str:
            return " / ".join(f"{by_threads[n][key]:.{digits}f}" if n in by_threads else "–" for n in threads)

        last = by_threads[max(by_threads)]
        figures = [side_by_side("decode_tok_s", 1), side_by_side("encode_tok_s", 0)]
        rest = [f"{last['load_s']:.2f}", f"{last['resident_mb']:.0f}", f"{last['file_mb']:.0f}"]
        mark = " (wrong results, see below)" if last.get("wrong") else ""
        lines.append(f"| {peer} {quant}{mark} | {' | '.join(figures + rest)} |")
    lines += ["", "Settings:", ""]
    for (peer, quant), by_threads in rows.items():
        first = next(iter(by_threads.values()))
        lines.append(f"- {peer} {quant}, version {first['version']}: {first['settings']}")
        if first.get("wrong"):
            lines.append(f"  - **gives wrong results**: {first['wrong']}")
    if record["missing"]:
        lines += ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in record["missing"].items())]
    before, after = record["load_average"]
    lines += [
        "",
        f"{record['date']}, {record['machine']}, {record['rounds']} rounds in turn, medians; load average {before} before,"
        f" {after} after (1 minute). Command: `{record['command']}`",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=setup_peers.DEFAULT_ENV, help=f"default: {setup_peers.DEFAULT_ENV}")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--also", action="append", default=[], metavar="COMMAND", help="may be given more than once")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2], help="default: 1,2")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of a figure in one round, default: 5")
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for the results, default: .")
    args = parser.parse_args()
    args.env = args.env.expanduser().resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib; pip install 't5g2[bench]'")

    (args.env / "logs").mkdir(parents=True, exist_ok=True)
    ready, missing = prepare(args.env, args.only)
    load_before = os.getloadavg()[0]
    samples = measure(args, ready, missing)
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "command": shlex.join(["python", "benchmarks/peers/run.py", *sys.argv[1:]]),
        "threads": args.threads,
        "rounds": args.rounds,
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "results": merge(samples),
        "missing": missing,
        "samples": samples,
    }
    (args.output / "peers.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.output / "peers.md").write_text(table(record))
    draw(record, args.output / "peers.png")
    print(table(record), end="")


if __name__ == "__main__":
    main()
