"""What `t5g2-bench --output json` writes, read again."""

from __future__ import annotations

import json
from pathlib import Path

FORMAT_VERSION = 1


def read(path: str | Path) -> dict:
    """The results of one run. ValueError, naming the file, for what is not such a file."""
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except ValueError as error:
        raise ValueError(f"{path}: not a result of t5g2-bench --output json") from error
    if not isinstance(report, dict) or report.get("format") != "t5g2-bench":
        raise ValueError(f"{path}: not a result of t5g2-bench --output json")
    if report.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format {report.get('format_version')}; this t5g2 reads {FORMAT_VERSION}, measure again with it"
        )
    return report


def configuration(result: dict) -> tuple:
    """What two results must share to be of the same thing: bundle, threads, source, images, target."""
    return tuple(result[key] for key in ("bundle", "threads", "source", "images", "target"))


def check_keys(path: str | Path, report: dict, wanted: dict) -> None:
    """ValueError, naming the file, where the report lacks a key of `wanted`: None there stands for any value, a list for one of
    such objects."""
    if problem := lacking(report, wanted, ""):
        raise ValueError(f"{path}: {problem}; measure again with t5g2-bench")


def lacking(value, wanted, place: str) -> str | None:
    """The first thing that is not as wanted, such as "results[0].decode[1] lacks tok_s"."""
    if wanted is None:
        return None
    kind, name = (list, "list") if isinstance(wanted, list) else (dict, "object")
    if not isinstance(value, kind):
        return f"{place} is no {name}"
    if kind is list:
        parts = ((each, wanted[0], f"{place}[{i}]") for i, each in enumerate(value))
    else:
        if missing := [key for key in wanted if key not in value]:
            return f"{place or 'the report'} lacks {', '.join(missing)}"
        parts = ((value[key], below, f"{place}.{key}".lstrip(".")) for key, below in wanted.items())
    return next(filter(None, (lacking(*part) for part in parts)), None)
