"""Instructions that a call of each kernel and a decoder step of nano execute, against those recorded:
`python benchmarks/instructions.py [--update]`.

Times on a shared machine vary by tens of percent, these counts by nothing. qemu-user runs kernel_instructions.cpp and
step_instructions.cpp and logs every block of instructions that it translates and that it executes; what a second call, or
step, adds is the count of one. Kernels for AVX-512 and AMX are not counted: qemu does not emulate them. Nor is a step of the
portable kernels, whose log would take minutes to read.

Fails where a count rose by more than 3 %. --update records the counts, with the compiler that they belong to.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "instructions.json"
KERNELS, STEP = "kernel_instructions", "step_instructions"
QUANTIZATIONS = ("int4", "int8")
MOST = 1.03  # times the recorded count

# -erms: every byte of a `rep stosb` would count as an instruction. "max" with SME multiplies int8 wrongly in qemu 7.2.
KINDS = {
    "portable": ("x86_64", "Haswell-noTSX,-erms"),
    "avx2": ("x86_64", "Haswell-noTSX,-erms"),
    "neon": ("aarch64", "cortex-a53"),
    "neon_dotprod": ("aarch64", "cortex-a76"),
    "neon_i8mm": ("aarch64", "max,sme=off"),
}
PRESETS = {"x86_64": "test", "aarch64": "aarch64"}
ARM_COMPILER = "aarch64-linux-gnu-g++"
ARM_LIBRARIES = "/usr/aarch64-linux-gnu"


def architecture(kind: str) -> str:
    return KINDS[kind][0]


def missing(kind: str) -> str | None:
    """What this machine lacks to count this kind, and how to get it."""
    if not shutil.which(emulator := f"qemu-{architecture(kind)}-static"):
        return f"{emulator} is missing: on Debian, apt install qemu-user-static"
    if architecture(kind) == "aarch64" and not shutil.which(ARM_COMPILER):
        return f"{ARM_COMPILER} is missing: on Debian, apt install g++-aarch64-linux-gnu"
    if architecture(kind) == "x86_64" and platform.machine() != "x86_64":
        return f"{kind} kernels are compiled on x86-64 only, and this is {platform.machine()}"
    return None


def build(kind: str, name: str) -> Path:
    """The program for this kind's architecture, built as the tests build theirs: optimized, without sanitizers."""
    if (tests := str(ROOT / "tests")) not in sys.path:
        sys.path.append(tests)
    from native_programs import EXECUTORCH, arm_executorch, program

    return program(name, PRESETS[architecture(kind)], arm_executorch() if architecture(kind) == "aarch64" else EXECUTORCH)


def emulation(kind: str) -> list[str]:
    libraries = ["-L", ARM_LIBRARIES] if architecture(kind) == "aarch64" else []
    return [shutil.which(f"qemu-{architecture(kind)}-static"), *libraries, "-cpu", KINDS[kind][1]]


def run(kind: str, *command: object) -> list[str]:
    """The lines that it prints, uncounted."""
    line = [*emulation(kind), *map(str, command)]
    done = subprocess.run(line, env={"T5G2_CPU": kind}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)} exited with {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


def compiler(kind: str) -> str:
    return run(kind, build(kind, KERNELS))[0]


def commands(kind: str, bundles: dict[str, Path]) -> dict[str, list[str]]:
    """What is run to count a case, but for the number of calls. bundles: nano's, by quantization."""
    kernels, found = build(kind, KERNELS), {}
    for case in run(kind, kernels)[1:]:
        found[case] = [str(kernels), case]
    for quantization, bundle in bundles.items() if kind != "portable" else ():
        command = [build(kind, STEP), bundle, bundle.parent / "hashes"]
        run(kind, *command, 1)  # checks the bundle's hashes, which the next runs remember
        found[f"nano_{quantization}_decoder_step"] = [str(part) for part in command]
    return found


def executed(log: Iterable[bytes]) -> int:
    """Instructions in qemu's log of `in_asm` and `exec`: those of each block, as often as it ran."""
    sizes, runs, address = {}, Counter(), None
    for line in log:
        if line.startswith(b"Trace "):
            runs[line] += 1
        elif line.startswith(b"0x"):
            if address is None:
                address, size = int(line[: line.index(b":")], 16), 0
            size += len(line.split(b"  ", 2)) == 3  # a long instruction's further bytes are a line without a mnemonic
        elif address is not None:
            if sizes.setdefault(address, size) != size:
                raise ValueError(f"qemu translated the block at {address:#x} in two sizes")
            address = None
    return sum(sizes[int(line.split(b"/", 2)[1], 16)] * count for line, count in runs.items())


def run_counted(kind: str, command: list[str], calls: int) -> int:
    log = ["-d", "in_asm,exec,nochain", "-D", "/dev/stdout"]
    line = [*emulation(kind)[:1], *log, *emulation(kind)[1:], *command, str(calls)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"T5G2_CPU": kind}) as running:
        total = executed(running.stdout)
        message = running.stderr.read().decode(errors="replace")
    if running.returncode:
        raise RuntimeError(f"{' '.join(line)} exited with {running.returncode}: {message}")
    return total


def count(kind: str, bundles: dict[str, Path]) -> dict[str, int]:
    """Instructions of a call, by case. The first call allocates what the next ones keep, so the second is what counts."""
    cases = commands(kind, bundles)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        totals = [[pool.submit(run_counted, kind, command, calls) for calls in (1, 2)] for command in cases.values()]
        return {case: second.result() - first.result() for case, (first, second) in zip(cases, totals)}


def same_major(compiler: str, other: str) -> bool:
    """Of two names like "GNU 12.2.0"."""
    return compiler.partition(".")[0] == other.partition(".")[0]


def problems(kind: str, recorded: dict[str, int], now: dict[str, int]) -> list[str]:
    """What is wrong with this kind's counts, a line each."""
    found = [f"{kind} {case}: not recorded" for case in sorted(now.keys() - recorded.keys())]
    found += [f"{kind} {case}: recorded, but no longer counted" for case in sorted(recorded.keys() - now.keys())]
    for case in sorted(now.keys() & recorded.keys()):
        if (ratio := now[case] / recorded[case]) > MOST:
            found.append(f"{kind} {case}: {recorded[case]} instructions rose to {now[case]}, {ratio:.3f} times")
    return found


def export_nano(folder: Path) -> dict[str, Path]:
    """nano's bundles, by quantization."""
    from t5g2.export.cli import main as export

    bundles = {quantization: folder / quantization for quantization in QUANTIZATIONS}
    for quantization, bundle in bundles.items():
        if export(["--size", "nano", "--quant", quantization, "--output", str(bundle)]):
            sys.exit(1)
    return bundles


def read_record() -> dict:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {"compiler": {}, "counts": {}}


def write_record(record: dict) -> None:
    unfinished = RECORD.with_suffix(".new")
    unfinished.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    unfinished.rename(RECORD)


def changes(before: dict, after: dict) -> list[str]:
    lines = []
    for name in sorted(before["compiler"].keys() | after["compiler"].keys()):
        old, new = before["compiler"].get(name, "none"), after["compiler"].get(name, "none")
        lines += [f"compiler for {name}: {old} -> {new}"] if old != new else []
    for kind in sorted(before["counts"].keys() | after["counts"].keys()):
        old, new = before["counts"].get(kind, {}), after["counts"].get(kind, {})
        for case in sorted(old.keys() | new.keys()):
            if old.get(case) != new.get(case):
                lines.append(f"{kind} {case}: {old.get(case, 'none')} -> {new.get(case, 'none')}")
    return lines


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--update", action="store_true", help=f"record the counts in {RECORD.relative_to(ROOT)}")
    args = p.parse_args()
    if lacking := next(filter(None, map(missing, KINDS)), None):
        sys.exit(lacking)
    with TemporaryDirectory() as folder:
        return compare(export_nano(Path(folder)), args.update)


def compare(bundles: dict[str, Path], update: bool) -> int:
    record, measured, found = read_record(), {"compiler": {}, "counts": {}}, []
    for kind in KINDS:
        now_with = compiler(kind)
        known = record["compiler"].get(architecture(kind), now_with)
        if not update and not same_major(known, now_with):
            sys.exit(f"counts belong to a compiler: {known} recorded, this is {now_with}; --update records its counts")
        measured["compiler"][architecture(kind)] = now_with
        now = measured["counts"][kind] = count(kind, bundles)
        recorded = record["counts"].get(kind, {})
        for case in now:
            ratio = f"{now[case] / recorded[case]:.4f}" if case in recorded else "new"
            print(f"{kind:13}{case:37}{now[case]:>10}{recorded.get(case, '-'):>10}{ratio:>8}", flush=True)
        found += problems(kind, recorded, now)
    if update:
        write_record(measured)
        print("\n".join(changes(record, measured)) or "nothing changed")
        return 0
    print("\n".join(found) or f"none rose by more than {MOST - 1:.0%}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
