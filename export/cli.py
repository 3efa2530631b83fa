"""t5g2-export: a checkpoint in, a bundle out."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from t5g2.nano import CHECKPOINT_DIR
from t5g2.runtime.bundle import MANIFEST, Limits, check_file, check_target
from t5g2.runtime.console import Parser, command, stderr_console, stderr_progress
from t5g2.runtime.errors import UsageError

_M_MMAP_THRESHOLD = -3  # malloc.h
_BACKENDS = ("native", "xnnpack", "litert")
_LITERT_BUCKETS = (128, 512)  # beside the longest source
_NANO = "nano"
_HUB_SIZES = ("270m", "1b", "4b")


def parser() -> Parser:
    p = Parser("t5g2-export", description="Export a T5Gemma 2 checkpoint to a bundle that t5g2-run runs.")
    what = p.add_argument_group("what to export (--size, --checkpoint, or --size with --random-weights)")
    what.add_argument("--size", metavar="SIZE", help="nano (shipped), or 270m, 1b, 4b: Google's checkpoint from the Hub")
    what.add_argument("--checkpoint", metavar="FOLDER", type=Path, help="a local folder as save_pretrained writes it")
    what.add_argument("--hub-id", metavar="ID", help="another repository on the Hub, such as your fine-tune")
    what.add_argument("--revision", help="branch, tag or commit on the Hub")
    what.add_argument("--random-weights", metavar="SEED", type=int, help="real shapes of --size without a download")
    how = p.add_argument_group("how")
    how.add_argument("--quant", metavar="Q", default="int4", help="none, int8 or int4; int4-mixed on litert")
    how.add_argument(
        "--backend",
        metavar="B",
        default="native",
        help="native: our operators, fast; xnnpack: for an unmodified ExecuTorch runtime; litert: for LiteRT (default: native)",
    )
    how.add_argument(
        "--group-size",
        metavar="N",
        help="weights per scale: 32, 64, 128, channel (default: 32; channel for int8 on xnnpack and litert)",
    )
    how.add_argument("--max-source", metavar="TOKENS", type=int, default=Limits.max_source, help="longest source")
    how.add_argument(
        "--source-buckets",
        metavar="TOKENS,…",
        help="litert: lengths that sources are padded to; the last is the longest source (default: 128,512,2048)",
    )
    how.add_argument("--max-target", metavar="TOKENS", type=int, default=Limits.max_target, help="longest target")
    how.add_argument("--no-vision", action="store_true", help="leave the vision tower out: text only, smaller")
    how.add_argument(
        "--package",
        metavar="P",
        help="litert: litertlm, instead of a bundle one file for the stock LiteRT-LM engine; experimental (docs/litert.md)",
    )
    out = p.add_argument_group("where to")
    out.add_argument(
        "-o", "--output", metavar="PATH", type=Path, help="the bundle, a folder (default: out/SIZE-QUANT), or the package"
    )
    out.add_argument("--force", action="store_true", help="overwrite a bundle that is already there")
    return p


@command("t5g2-export")
def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    started = time.monotonic()
    _check_usage(args)
    _return_freed_memory()
    name = _name(args)
    output = args.output or Path("out") / f"{name}-{args.quant}{'.' if args.package else ''}{args.package or ''}"
    check = check_file if args.package else check_target
    check(output, args.force)

    # Nothing is printed before the inputs are known to be good: a mistake gets one line and no more.
    with stderr_console().status("opening the checkpoint") as status:
        from t5g2.export.export_bundle import export_bundle
        from t5g2.export.litert.lm import write_package
        from t5g2.quant.schemes import INT8_CHANNEL, scheme_for

        mixed = args.quant == "int4-mixed"
        scheme = scheme_for("int4" if mixed else args.quant, _group_size(args))
        buckets = _source_buckets(args)
        limits = Limits(max_source=buckets[-1], max_target=args.max_target)
        checkpoint, source = _open(args, status)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with stderr_progress(*columns) as progress:
        stage = _Stages(progress)
        same = {"limits": limits, "with_vision": not args.no_vision, "overwrite": args.force, "on_stage": stage}
        table_scheme = INT8_CHANNEL if mixed else scheme
        if args.package:
            write_package(checkpoint, output, scheme, table_scheme, **same)
        else:
            of_bundle = {"name": name, "source": source, "backend": args.backend}
            if args.backend == "litert":
                of_bundle |= {"table_scheme": table_scheme, "source_buckets": buckets}
            export_bundle(checkpoint, output, scheme, **of_bundle, **same)
        stage.end()
    _report(output, time.monotonic() - started)
    print(output)
    return 0


class _Stages:
    """A line per stage: a spinner while it runs, its time once it is over. In a log, a line as each stage begins."""

    def __init__(self, progress) -> None:
        self._progress = progress
        self._task = None

    def __call__(self, description: str) -> None:
        self.end()
        if not self._progress.console.is_terminal:
            self._progress.console.print(description)
            return
        self._task = self._progress.add_task(description, total=1)

    def end(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=1)
            self._task = None


def _check_usage(args) -> None:
    sources = [s for s in (args.size, args.checkpoint, args.hub_id) if s]
    if len(sources) != 1:
        raise UsageError("give one of --size, --checkpoint and --hub-id")
    if args.size and args.size not in (_NANO, *_HUB_SIZES):
        raise UsageError(f"--size {args.size}: not one of {', '.join((_NANO, *_HUB_SIZES))}")
    if args.random_weights is not None and args.size not in _HUB_SIZES:
        raise UsageError(f"--random-weights: needs --size {', '.join(_HUB_SIZES[:-1])} or {_HUB_SIZES[-1]}")
    if args.backend not in _BACKENDS:
        raise UsageError(f"--backend {args.backend}: not one of {', '.join(_BACKENDS)}")
    of_litert = {
        "--quant int4-mixed": args.quant == "int4-mixed",
        f"--source-buckets {args.source_buckets}": args.source_buckets,
        f"--package {args.package}": args.package,
    }
    if args.backend != "litert" and (given := [option for option, value in of_litert.items() if value]):
        raise UsageError(f"{given[0]}: only with --backend litert")
    if args.package not in (None, "litertlm"):
        raise UsageError(f"--package {args.package}: not one of litertlm")
    if args.package and args.source_buckets:
        raise UsageError(f"--source-buckets {args.source_buckets}: a package has one length, of --max-source")
    if args.revision and (args.checkpoint or args.size == _NANO or args.random_weights is not None):
        raise UsageError("--revision: only for a checkpoint from the Hub")


def _group_size(args) -> int | None:
    text = args.group_size
    if text is not None and args.quant == "none":
        raise UsageError(f"--group-size {text}: --quant none has no scales; leave it out")
    if text is None:
        return None if args.quant == "int8" and args.backend != "native" else 32
    if text == "channel":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--group-size {text}: not one of 32, 64, 128, channel") from None


def _source_buckets(args) -> list[int]:
    """Lengths that sources are padded to; the last is the longest source, and the only one but for litert."""
    text = args.source_buckets
    if text is None:
        shorter = _LITERT_BUCKETS if args.backend == "litert" and not args.package else ()
        return [*(bucket for bucket in shorter if bucket < args.max_source), args.max_source]
    if args.max_source != Limits.max_source:
        raise UsageError(
            f"--max-source {args.max_source}: the last of --source-buckets is the longest source; give one of them"
        )
    try:
        buckets = [int(bucket) for bucket in text.split(",")]
    except ValueError:
        buckets = []
    if not buckets or buckets != sorted(set(buckets)) or buckets[0] < 2:
        raise UsageError(
            f"--source-buckets {text}: give lengths of 2 or more, each longer than the one before, such as 128,512,2048"
        )
    return buckets


def _name(args) -> str:
    if args.random_weights is not None:
        return f"{args.size}-random"
    return args.size or (args.checkpoint.resolve().name if args.checkpoint else args.hub_id.split("/")[-1])


def _open(args, status):
    """The checkpoint and its provenance."""
    from t5g2.export.checkpoint import Checkpoint
    from t5g2.export.config import HUB_IDS, SIZES
    from t5g2.export.hub import download
    from t5g2.export.random_weights import RandomCheckpoint

    if args.random_weights is not None:
        config = SIZES[args.size]
        if args.no_vision:
            config = dataclasses.replace(config, vision=None)
        return RandomCheckpoint(config, args.random_weights), {"random_weights": args.random_weights, "size": args.size}
    if args.size == _NANO:
        return Checkpoint.open(CHECKPOINT_DIR), {"shipped": _NANO}
    if args.checkpoint:
        return Checkpoint.open(args.checkpoint), {"folder": args.checkpoint.resolve().name}
    repo_id = args.hub_id or HUB_IDS[args.size]
    status.stop()  # the download has its own progress bar
    snapshot = download(repo_id, args.revision, progress_file=stderr_console().file)
    return Checkpoint.open(snapshot.path), {"hub_id": snapshot.repo_id, "commit": snapshot.commit}


def _report(output: Path, seconds: float) -> None:
    table = Table(title=f"{output}", title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    for file in sorted(output.iterdir()) if output.is_dir() else [output]:
        table.add_row(file.name, f"{file.stat().st_size / 1e6:.1f} MB")
    if output.is_dir():
        manifest = json.loads((output / MANIFEST).read_bytes())
        for part in ("text", "embedding", "vision"):
            if scheme := manifest["quantization"][part]:
                table.add_row(f"{part} weights", scheme["name"])
        limits = manifest["limits"]
        table.add_row("longest source / target", f"{limits['max_source']} / {limits['max_target']} tokens")
    table.add_row("time", f"{seconds:.0f} s")
    table.add_row("peak memory", f"{_peak_memory_bytes() / 1e9:.2f} GB")
    stderr_console().print(table)


def _return_freed_memory() -> None:
    """Tells glibc to map allocations above 1 MB one by one, so that a freed weight goes back to the system.

    By default it raises that bound as it goes, up to 32 MB, and what a weight leaves in the heap stays there.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 2**20)


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


if __name__ == "__main__":
    sys.exit(main())
