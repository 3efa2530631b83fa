"""The table of what was measured on which device, benchmarks/devices.md: a row for each result of a report of device.py."""

from __future__ import annotations

import os
import re
from pathlib import Path

from t5g2.benchmarks.connection import DeviceError
from t5g2.benchmarks.cores import ranges

HEAD = ("date", "device", "SoC", "cores", "bundle", "threads", "source", "encode tok/s", "decode tok/s at depth", "resident MB",
        "t5g2", "throttled", "measured by", "JSON")  # fmt: skip
HEAD_LINE = f"| {' | '.join(HEAD)} |"
RULE_LINE = f"|{'---|' * len(HEAD)}"


def spread(figure: dict, unit: float = 1) -> str:
    """Median ± half the range between the quartiles."""
    median, half = figure["median"] * unit, (figure["high"] - figure["low"]) * unit / 2
    digits = 0 if median >= 99.95 else 1 if median >= 9.995 else 2
    return f"{median:.{digits}f} ± {half:.{digits}f}"


def check(file: Path) -> None:
    """DeviceError where a row can't be added to the file."""
    text_with(file, [])


def record(report: dict, results: Path, file: Path, by: str) -> None:
    """Adds the report's rows, with a link to its file, to the table in `file`, which is made where it is not there."""
    text = text_with(file, rows(report, os.path.relpath(results, file.absolute().parent), by))
    unfinished = file.with_name(f".{file.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


def text_with(file: Path, added: list[str]) -> str:
    """The file's text with rows at the end of its table."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else [HEAD_LINE, RULE_LINE]
    except (OSError, UnicodeError) as error:
        raise DeviceError(f"{file}: cannot be read ({error}); give another file") from None
    if HEAD_LINE not in lines:
        raise DeviceError(f"{file}: has no table of devices that begins with {HEAD_LINE}; give another file, or a new one")
    end = lines.index(HEAD_LINE)
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return "\n".join([*lines[:end], *added, *lines[end:]]) + "\n"


def rows(report: dict, link: str, by: str) -> list[str]:
    device, machine = report["device"], report["machine"]
    dropped = sum(bool(each["dropped"]) for each in device["rounds"])
    cores = f"{ranges(report['pinned'])} of {machine['cores']}" if report["pinned"] else f"all {machine['cores']}"
    made = []
    for result in report["results"]:
        deepest = max(result["decode"], key=lambda row: row["depth"], default=None)
        decode = f"{spread(deepest['tok_s'])} at {deepest['depth']}" if deepest else "–"
        throttled = f"in {dropped} of {len(device['rounds'])} rounds, left out" if dropped else "no"
        cells = [report["date"][:10], device_name(report), device.get("soc") or "–", cores, result["bundle"],
                 str(result["threads"]), str(result["source"]), spread(result["encode_tok_s"]), decode,
                 f"{result['resident_mb']:.0f}", report["version"], throttled, by, f"[JSON]({link})"]  # fmt: skip
        made.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return made


def device_name(report: dict) -> str:
    """The model, where the device tells; not the name that its owner gave it."""
    return report["device"].get("model") or report["machine"]["cpu"]


def file_name(report: dict) -> str:
    """Of the report's file: date, device, bundles."""
    bundles = sorted({result["bundle"] for result in report["results"]})
    words = " ".join([report["date"][:10], device_name(report), *bundles])
    return re.sub(r"[^a-z0-9-]+", "-", words.lower()).strip("-") + ".json"
