"""Measures bundles on a phone or a board: `python benchmarks/device.py --adb BUNDLE…`, or `--ssh HOST BUNDLE…`.

Pushes t5g2-bench for arm64 Linux, with its own loader and C library so that it runs on Android too, and the bundles. Runs
each bundle alone, in turn, round after round (A B A B), and writes one report of t5g2-bench's format with a "device" object.
Rounds in which the CPU was throttled are left out, with a note. Options after `--` go to t5g2-bench.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from t5g2.benchmarks.compare import table
from t5g2.benchmarks.connection import Adb, Device, DeviceError, Ssh, last_line
from t5g2.benchmarks.rounds import merge, reason_to_drop, together

ROOT = Path(__file__).resolve().parent.parent
LOADER, PROGRAM = "ld-linux-aarch64.so.1", "t5g2-bench"
COMPILER = "aarch64-linux-gnu-g++"
OURS = ("--output", "--save", "--profile", "--cores", "--cool-down", "--help", "-h", "--version")
WARMER = 3  # degrees, as in t5g2-bench


# --- the program ---


def build_program() -> Path:
    """A folder with t5g2-bench for arm64 Linux and all libraries that it needs, from the loader on."""
    if not shutil.which(COMPILER):
        raise DeviceError(f"{COMPILER} is missing (on Debian: apt install g++-aarch64-linux-gnu); or give --program FOLDER")
    if (tests := str(ROOT / "tests")) not in sys.path:
        sys.path.append(tests)
    try:
        from native_programs import arm_executorch, own_program
    except ImportError as error:
        raise DeviceError(
            f"{error}: building takes a checkout and pip install 't5g2[test]'; or give --program FOLDER"
        ) from None
    try:
        executorch = arm_executorch()
        built = own_program(PROGRAM, "aarch64", executorch)
    except AssertionError as error:
        raise DeviceError(f"{PROGRAM} can't be built for arm64 ({last_line(str(error))}); or give --program FOLDER") from None
    return collect(built, [built.parent, executorch / "lib"])


def collect(program: Path, folders: list[Path]) -> Path:
    """Copies the program, its libraries and theirs into a folder of the build."""
    folder = program.parent / "device"
    folder.mkdir(exist_ok=True)
    found, left = set(), [program, library(LOADER, folders)]
    while left:
        file = left.pop()
        if file.name in found:
            continue
        found.add(file.name)
        unfinished = folder.parent / f".{file.name}.{os.getpid()}.part"
        shutil.copyfile(file, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(folder / file.name)
        left += [library(name, folders) for name in needed(file)]
    return folder


def needed(file: Path) -> list[str]:
    listed = subprocess.run([COMPILER.replace("g++", "readelf"), "-d", file], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", listed)


def library(name: str, folders: list[Path]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    path = Path(
        subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    )
    if not path.is_absolute():
        raise DeviceError(f"{name} is missing: {COMPILER} does not have it; install the toolchain anew")
    return path


def given_program(folder: Path) -> Path:
    for name in (LOADER, PROGRAM):
        if not (folder / name).is_file():
            raise DeviceError(f"--program {folder}: has no {name}; give a folder that this command built, or leave it out")
    return folder


# --- measuring ---


def bundle_name(bundle: Path) -> str:
    return Path(os.path.abspath(bundle)).name


def check_bundles(bundles: list[Path]) -> None:
    for bundle in bundles:
        if not (bundle / "manifest.json").is_file():
            raise DeviceError(f"{bundle}: no such bundle; give a folder made by t5g2-export")
    names = [bundle_name(bundle) for bundle in bundles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DeviceError(f"two bundles are named {twice.pop()}; rename one of the folders")


def push(device: Device, program: Path, bundles: list[Path]) -> None:
    folders = [(program, "program"), *((bundle, f"bundles/{bundle_name(bundle)}") for bundle in bundles)]
    for local, remote in folders:
        pushed = device.push(local, f"{device.folder}/{remote}")
        note(f"{local}: {'pushed ' + ', '.join(pushed) if pushed else 'is there already'}")
    files = shlex.join(f"{device.folder}/program/{name}" for name in (LOADER, PROGRAM))
    device.expect(f"chmod 755 {files}", "making the program executable")


def measure(device: Device, name: str, options: list[str]) -> dict:
    """One run of t5g2-bench there, on one bundle."""
    words = [f"./{LOADER}", "--library-path", ".", f"./{PROGRAM}", f"../bundles/{name}", "--output", "json", *options]
    # The cache: t5g2 remembers there which files it has hashed, within what --clean removes.
    place = f"cd {shlex.quote(device.folder + '/program')} && XDG_CACHE_HOME={shlex.quote(device.folder + '/cache')}"
    errors = shlex.quote(f"{device.folder}/errors.txt")
    done = device.run(f"{place} {shlex.join(words)} 2> {errors}", limit_s=None)
    if done.code:
        why = last_line(device.run(f"cat {errors}").output) or last_line(done.output) or f"exit status {done.code}"
        raise DeviceError(f"{device.name}: {name}: {PROGRAM} failed ({why.removeprefix(f'{PROGRAM}: error: ')})")
    try:
        return json.loads(done.output)
    except ValueError:
        raise DeviceError(f"{device.name}: {name}: {PROGRAM} printed no result; give --clean and try again") from None


def cool_down(device: Device, celsius: float | None, seconds: int) -> None:
    """Waits until it is as cool as before the first run: each process of t5g2-bench knows its own start only. A device that
    does not tell its temperature is given all the time."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        now = device.celsius() if celsius is not None else None
        if now is not None and now <= celsius + WARMER:
            return
        time.sleep(min(2, left))


def measure_rounds(device: Device, names: list[str], rounds: int, seconds: int, options: list[str]) -> tuple[dict, list[dict]]:
    """The rounds' reports of each bundle, and the log of all runs."""
    reports, log = {name: [] for name in names}, []
    celsius = device.celsius()
    for i in range(rounds):
        for name in names:
            if log:
                cool_down(device, celsius, seconds)
            note(f"round {i + 1} of {rounds}: {name}")
            before = device.condition()
            report = measure(device, name, options)
            reports[name].append(report)
            log.append({"bundle": name, "round": i + 1, "date": report["date"], "before": before, "after": device.condition()})
    return reports, log


def merge_rounds(reports: dict[str, list[dict]], log: list[dict]) -> dict:
    """One report of all bundles. Writes into the log why a round was dropped."""
    merged = []
    for name, rounds in reports.items():
        reasons = [reason_to_drop(report, rounds) for report in rounds]
        entries = [entry for entry in log if entry["bundle"] == name]
        for entry, reason in zip(entries, reasons):
            entry["dropped"] = reason
            if reason:
                note(f"round {entry['round']} is left out: {reason}")
        kept = [report for report, reason in zip(rounds, reasons) if not reason]
        if len(kept) < min(2, len(rounds)):
            raise DeviceError(
                f"{name}: {len(kept)} of {len(rounds)} rounds were not throttled; cool the device, raise --cool-down, "
                "and measure again"
            )
        merged.append(merge(kept))
    return together(merged)


# --- what comes of it ---


def spread(figure: dict, unit: float = 1) -> str:
    """Median ± half the range between the quartiles."""
    median, half = figure["median"] * unit, (figure["high"] - figure["low"]) * unit / 2
    digits = 0 if median >= 99.95 else 1 if median >= 9.995 else 2
    return f"{median:.{digits}f} ± {half:.{digits}f}"


def tables(report: dict) -> str:
    results = report["results"]
    depths = sorted({decode["depth"] for result in results for decode in result["decode"]})
    head = ["bundle", "threads", "source", "encode tok/s", *(f"decode tok/s at {depth}" for depth in depths)]
    rows = [[*head, "first token ms", "resident MB", "peak MB"]]
    for result in results:
        row = [result["bundle"], str(result["threads"]), str(result["source"]), spread(result["encode_tok_s"])]
        decode = {row["depth"]: spread(row["tok_s"]) for row in result["decode"]}
        row += [decode.get(depth, "–") for depth in depths] + [spread(result["first_token_s"], 1e3)]
        rows.append(row + [f"{result[key]:.0f}" for key in ("resident_mb", "peak_mb")])
    place = " ".join(filter(None, (report["device"]["name"], report["machine"]["cpu"])))
    return f"{table(rows)}\n\n{place}; medians of {report['repeat']} runs and half the range between the quartiles."


def write(report: dict, file: Path) -> None:
    unfinished = file.with_name(f".{file.name}.part")
    unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(file)


def note(message: str) -> None:
    print(f"t5g2-device: {message}", file=sys.stderr, flush=True)


# --- the command ---


def parse(words: list[str]) -> argparse.Namespace:
    at = words.index("--") if "--" in words else len(words)
    p = argparse.ArgumentParser(prog="t5g2-device", description=__doc__.splitlines()[0])
    way = p.add_mutually_exclusive_group(required=True)
    way.add_argument("--adb", action="store_true", help="an Android device")
    way.add_argument("--ssh", metavar="HOST", help="an arm64 Linux, logged in to with a key")
    p.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    p.add_argument("--serial", help="which device, of those that `adb devices` lists")
    p.add_argument("--program", type=Path, help="a folder with t5g2-bench for the device (default: build it)")
    p.add_argument("--cores", help="run on these cores only, such as 4-7")
    seconds = (
        "before each run wait for the device to be as cool as at first, at most this long; without a thermometer, this long"
    )
    p.add_argument("--cool-down", type=int, default=0, metavar="SECONDS", help=f"{seconds} (default: 0)")
    p.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    p.add_argument("--output", type=Path, default=Path("results.json"), help="the report (default: results.json)")
    p.add_argument("--clean", action="store_true", help="remove program and bundles from the device in the end")
    args = p.parse_args(words[:at])
    args.options = words[at + 1 :]
    if args.serial and not args.adb:
        p.error("--serial: goes with --adb")
    if args.rounds < 1 or args.cool_down < 0:
        p.error("--rounds: give 1 or more; --cool-down: 0 or more")
    if taken := [word for word in args.options if word.split("=")[0] in OURS]:
        p.error(f"{taken[0]}: can't be given after --; see --help for what this command has instead")
    if not args.output.absolute().parent.is_dir():
        p.error(f"--output {args.output}: there is no folder {args.output.absolute().parent}")
    return args


def clean(device: Device, wanted: bool) -> None:
    if wanted:
        device.clean()


def run(args: argparse.Namespace, words: list[str]) -> dict:
    check_bundles(args.bundles)
    device = Adb(args.serial) if args.adb else Ssh(args.ssh)
    device.check()
    program = given_program(args.program) if args.program else build_program()
    options = [*args.options, *(["--cores", args.cores] if args.cores else []), "--cool-down", str(args.cool_down)]
    try:
        push(device, program, args.bundles)
        names = [bundle_name(bundle) for bundle in args.bundles]
        reports, log = measure_rounds(device, names, args.rounds, args.cool_down, options)
        described = device.description()
    except BaseException:
        with contextlib.suppress(DeviceError):  # the first error counts
            clean(device, args.clean)
        raise
    clean(device, args.clean)
    report = merge_rounds(reports, log)
    report["command"] = shlex.join(["python", "benchmarks/device.py", *words])
    return report | {"device": {**described, "program_options": options, "rounds": log}}


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    args = parse(words)
    try:
        report = run(args, words)
        write(report, args.output)
    except (DeviceError, OSError) as error:
        print(f"t5g2-device: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(tables(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
