"""Measures bundles on a phone or a board: `python benchmarks/device.py --adb BUNDLE…`, or `--ssh HOST BUNDLE…`.

Pushes t5g2-bench with its own loader and C library, so that it runs on Android too, and the bundles. Runs each bundle alone,
in turn, round after round (A B A B), and writes one report of t5g2-bench's format with a "device" object. Rounds in which the
CPU was throttled are left out, with a note. Options after `--` go to t5g2-bench. benchmarks/on_device.sh has good defaults.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

from t5g2 import runtime
from t5g2.benchmarks import devices
from t5g2.benchmarks.compare import table
from t5g2.benchmarks.connection import Adb, Device, DeviceError, Ssh, last_line
from t5g2.benchmarks.cores import big_cores, ranges
from t5g2.benchmarks.rounds import merge, reason_to_drop, together
from t5g2.runtime.package_linux import build
from t5g2.runtime.package_linux.errors import BuildError
from t5g2.runtime.package_linux.toolchain import LOADERS, libraries, toolchain

PROGRAM = "t5g2-bench"
OURS = ("--output", "--save", "--profile", "--cores", "--cool-down", "--help", "-h", "--version")
WARMER = 3  # degrees, as in t5g2-bench


# --- the program ---


def build_program(machine: str) -> Path:
    """A folder with t5g2-bench for that machine and all libraries that it needs, from the loader on: the one that is installed
    here, where the machine is of the same kind, or else one cross-compiled."""
    try:
        tools = toolchain(machine)
        if not tools.cross:
            program, executorch = Path(runtime.__path__[0]) / PROGRAM, build.folder_of("executorch")
        else:
            tools.tool("g++")
            executorch = build.arm_executorch()
            program = build.build("aarch64", [PROGRAM], executorch) / PROGRAM
        return collect([program, *libraries([program], [program.parent, executorch / "lib"], tools)], machine)
    except (BuildError, FileNotFoundError) as error:
        raise DeviceError(f"{PROGRAM} can't be built for {machine} ({error}); or give --program FOLDER") from None


def collect(files: list[Path], machine: str) -> Path:
    """Copies them into a folder of the build, and removes all else there."""
    folder = build.BUILD / "device" / machine
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        unfinished = folder.parent / f".{file.name}.{os.getpid()}.part"
        shutil.copyfile(file, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(folder / file.name)
    for file in folder.iterdir():
        if file.name not in {each.name for each in files}:
            file.unlink()
    return folder


def given_program(folder: Path, machine: str) -> Path:
    machines = [each for each, loader in LOADERS.items() if (folder / loader).is_file()]
    if not machines or not (folder / PROGRAM).is_file():
        missing = PROGRAM if machines else LOADERS[machine]
        raise DeviceError(f"--program {folder}: has no {missing}; give a folder that this command built, or leave it out")
    if machine not in machines:
        raise DeviceError(f"--program {folder}: is for {machines[0]}, and the device is {machine}; give one for {machine}")
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
    files = shlex.join(f"{device.folder}/program/{path.name}" for path in sorted(program.iterdir()) if path.is_file())
    device.expect(f"chmod 755 {files}", "making the program executable")


def measure(device: Device, name: str, options: list[str]) -> dict:
    """One run of t5g2-bench there, on one bundle."""
    # The cache: t5g2 remembers there which files it has hashed, within what --clean removes.
    words = ["env", f"XDG_CACHE_HOME={device.folder}/cache", f"./{LOADERS[device.machine]}", "--library-path", "."]
    words += [f"./{PROGRAM}", f"../bundles/{name}", "--output", "json", *options]
    errors = shlex.quote(f"{device.folder}/errors.txt")
    done = device.start(f"{shlex.join(words)} 2> {errors}", f"{device.folder}/program")
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


def tables(report: dict) -> str:
    results = report["results"]
    depths = sorted({decode["depth"] for result in results for decode in result["decode"]})
    head = ["bundle", "threads", "source", "encode tok/s", *(f"decode tok/s at {depth}" for depth in depths)]
    rows = [[*head, "first token ms", "resident MB", "peak MB"]]
    for result in results:
        row = [result["bundle"], str(result["threads"]), str(result["source"]), devices.spread(result["encode_tok_s"])]
        decode = {row["depth"]: devices.spread(row["tok_s"]) for row in result["decode"]}
        row += [decode.get(depth, "–") for depth in depths] + [devices.spread(result["first_token_s"], 1e3)]
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
    way.add_argument("--ssh", metavar="HOST", help="a Linux on arm64 or x86-64, logged in to with a key")
    p.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    p.add_argument("--serial", help="which device, of those that `adb devices` lists")
    p.add_argument("--program", type=Path, help="a folder with t5g2-bench for the device (default: build it)")
    p.add_argument("--cores", help="run on these cores only, such as 4-7")
    p.add_argument("--big-cores", action="store_true", help="without --cores: run on the device's big cores only")
    seconds = (
        "before each run wait for the device to be as cool as at first, at most this long; without a thermometer, this long"
    )
    p.add_argument("--cool-down", type=int, default=0, metavar="SECONDS", help=f"{seconds} (default: 0)")
    p.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    p.add_argument(
        "--output",
        type=Path,
        default=Path("results.json"),
        help="the report: a file, or a folder for one named after date, device and bundles (default: results.json)",
    )
    p.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="add a row for each result to the table in FILE, such as benchmarks/devices.md",
    )
    p.add_argument("--by", default="–", metavar="NAME", help="who measured, for that table")
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
    if args.record and not args.record.absolute().parent.is_dir():
        p.error(f"--record {args.record}: there is no folder {args.record.absolute().parent}")
    return args


def cores_to_use(args: argparse.Namespace, device: Device) -> str | None:
    """What is given, or the big ones where they are asked for and not all are alike."""
    if args.cores or not args.big_cores:
        return args.cores
    cores = device.cores()
    big = big_cores(cores)
    if not big or len(big) == len(cores):
        note(f"{device.name}: {'tells no cores apart' if not big else 'all cores are big'}; running on all")
        return None
    note(f"{device.name}: the big cores are {ranges(big)}, of {ranges([core.number for core in cores])}")
    return ranges(big)


def measure_on(device: Device, args: argparse.Namespace) -> dict:
    """Pushes, measures, and leaves nothing running there, whatever happens."""
    program = given_program(args.program, device.machine) if args.program else build_program(device.machine)
    cores = cores_to_use(args, device)
    options = [*args.options, *(["--cores", cores] if cores else []), "--cool-down", str(args.cool_down)]
    device.stop(PROGRAM)  # of a command that was killed
    try:
        push(device, program, args.bundles)
        names = [bundle_name(bundle) for bundle in args.bundles]
        reports, log = measure_rounds(device, names, args.rounds, args.cool_down, options)
        described = device.description()
    except BaseException:
        with contextlib.suppress(DeviceError):  # the first error counts
            device.stop(PROGRAM)
            if args.clean:
                device.clean()
        raise
    if args.clean:
        device.clean()
    return merge_rounds(reports, log) | {"device": {**described, "program_options": options, "rounds": log}}


def run(args: argparse.Namespace, words: list[str]) -> dict:
    """Measures, and writes what is asked for."""
    check_bundles(args.bundles)
    if args.record:
        devices.check(args.record)
    report = measure_on(Adb(args.serial) if args.adb else Ssh(args.ssh), args)
    report["command"] = shlex.join(["python", "benchmarks/device.py", *words])
    file = args.output / devices.file_name(report) if args.output.is_dir() else args.output
    write(report, file)
    note(f"wrote {file}")
    if args.record:
        devices.record(report, file, args.record, args.by)
        note(f"added to {args.record}")
    return report


@contextlib.contextmanager
def ended_by_signals():
    """Has what ends a program do so as Ctrl-C does: nothing is left running on the device."""

    def end(number, _):
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    args = parse(words)
    try:
        with ended_by_signals():
            report = run(args, words)
    except (DeviceError, OSError) as error:
        print(f"t5g2-device: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(tables(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
