"""Ratios of two results of t5g2-bench: `python -m t5g2.benchmarks.compare BEFORE.json AFTER.json`.

Refuses what can't be compared: a CPU that was throttled, or that ran at another clock, says nothing about the program.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from t5g2.benchmarks.result import check_keys, configuration, read

CLOCKS_ALIKE = 0.1  # share that two clocks may differ by
LIMITS_ALIKE = 0.01
NOISE = " ~"

# What is read of a report here: None for a plain value.
FIGURE = {"median": None, "low": None, "high": None}
STATE = {"core_ghz": None, "frequency_limit": None}
KEYS = {
    "machine": {"cpu": None},
    "results": [{
        **dict.fromkeys(("bundle", "threads", "source", "images", "target", "resident_mb", "peak_mb", "throttling")),
        "encode_tok_s": FIGURE, "first_token_s": FIGURE, "decode": [{"depth": None, "tok_s": FIGURE}],
        "state_before": STATE, "state_after": STATE,
    }],
    "loading": [dict.fromkeys(("bundle", "threads", "load_warm_s", "load_cold_s", "first_token_cold_s"))],
}  # fmt: skip
LEGEND = (
    "After / before, of medians: more than 1 is faster for tok/s, slower for first token and loading, more for memory.\n"
    f"{NOISE.strip()} within the noise: the ranges between the quartiles overlap."
)


def table(rows: list[list[str]]) -> str:
    """Markdown: the first row is the head, numbers from the second column on."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|" + "--:|" * (len(rows[0]) - 1), *lines[1:]])


def name(result: dict) -> str:
    """A result's configuration, or a loading row's, in words."""
    words = [result["bundle"], counted(result["threads"], "thread")]
    if "source" in result:
        words += [f"source {result['source']}", f"target {result['target']}"]
    if result.get("images"):
        words.append(counted(result["images"], "image"))
    return ", ".join(words)


def counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def clock_ghz(result: dict) -> float:
    """The faster of two readings: a core that has just woken up may not have sped up yet at the first."""
    return max(result[state]["core_ghz"] for state in ("state_before", "state_after"))


def frequency_limit(result: dict) -> float | None:
    limits = [result[state]["frequency_limit"] for state in ("state_before", "state_after")]
    return min((limit for limit in limits if limit is not None), default=None)


def check_cool(path: Path, report: dict) -> None:
    """ValueError where one of its results was throttled."""
    for result in report["results"]:
        if result["throttling"] != "none":
            raise ValueError(f"{path}: {name(result)}: throttled ({result['throttling']}); let it cool down and measure again")


def check_machines(before: dict, after: dict, paths: tuple[Path, Path]) -> None:
    """ValueError where the two were not taken on the same kind of machine."""
    cpus = [report["machine"]["cpu"] for report in (before, after)]
    devices = [report.get("device", {}).get("name") for report in (before, after)]
    for one, other in (cpus, devices):
        if one != other and one and other:
            raise ValueError(f"{paths[1]}: measured on {other}, and {paths[0]} on {one}; measure both on the same machine")


def check_states(before: dict, after: dict, paths: tuple[Path, Path]) -> None:
    """ValueError where the CPU ran faster for one of two results of the same configuration."""
    of = f"{paths[1]}: {name(after)}: "
    advice = f" in {paths[0]}; let the machine cool down and measure both again"
    limits = [frequency_limit(result) for result in (before, after)]
    if None not in limits and abs(limits[0] - limits[1]) > LIMITS_ALIKE:
        raise ValueError(f"{of}a core was held to {limits[1]:.0%} of its frequency, and to {limits[0]:.0%}{advice}")
    clocks = [clock_ghz(result) for result in (before, after)]
    if abs(clocks[1] / clocks[0] - 1) > CLOCKS_ALIKE:
        raise ValueError(f"{of}a core ran at {clocks[1]:.2f} GHz, and at {clocks[0]:.2f}{advice}")


def overlap(one: dict, other: dict) -> bool:
    return one["low"] <= other["high"] and other["low"] <= one["high"]


def ratio(before, after) -> str:
    """Of two figures, or of two plain numbers; a dash where one of them is not there."""
    if not before or not after:
        return "–"
    if isinstance(before, dict):
        return f"{after['median'] / before['median']:.2f}{NOISE if overlap(before, after) else ''}"
    return f"{after / before:.2f}"


def depths(result: dict) -> dict[int, dict]:
    return {decode["depth"]: decode["tok_s"] for decode in result["decode"]}


def speed_rows(pairs: list[tuple[dict, dict]]) -> list[list[str]]:
    columns = sorted({depth for before, after in pairs for depth in depths(before).keys() & depths(after).keys()})
    head = ["configuration", "encode tok/s", *(f"decode tok/s at {depth}" for depth in columns)]
    rows = [[*head, "first token s", "resident MB", "peak MB"]]
    for before, after in pairs:
        row = [name(after), ratio(before["encode_tok_s"], after["encode_tok_s"])]
        row += [ratio(depths(before).get(depth), depths(after).get(depth)) for depth in columns]
        rows.append(row + [ratio(before[key], after[key]) for key in ("first_token_s", "resident_mb", "peak_mb")])
    return rows


def loading_rows(pairs: list[tuple[dict, dict]]) -> list[list[str]]:
    keys = ("load_warm_s", "load_cold_s", "first_token_cold_s")
    rows = [["loading", "load warm s", "load cold s", "cold first token s"]]
    return rows + [[name(after), *(ratio(before[key], after[key]) for key in keys)] for before, after in pairs]


def by_key(path: Path, rows: list[dict], key) -> dict[tuple, dict]:
    found = {}
    for row in rows:
        if key(row) in found:
            raise ValueError(f"{path}: holds {name(row)} twice; measure bundles whose folders have the same name one at a time")
        found[key(row)] = row
    return found


def paired(before: dict, after: dict, paths: tuple[Path, Path], what: str, key) -> tuple[list[tuple[dict, dict]], list[str]]:
    """The rows of `what` that both reports hold, and the names of those that one of them holds."""
    mine, theirs = by_key(paths[0], before[what], key), by_key(paths[1], after[what], key)
    pairs = [(mine[k], theirs[k]) for k in mine if k in theirs]
    alone = [f"{name(rows[k])} ({path})" for path, rows, other in zip(paths, (mine, theirs), (theirs, mine)) for k in rows
             if k not in other]  # fmt: skip
    return pairs, alone


def compare(before: dict, after: dict, paths: tuple[Path, Path]) -> str:
    """The tables. ValueError where the two can't be compared, naming the file of `paths`."""
    for path, report in zip(paths, (before, after)):
        check_cool(path, report)
    check_machines(before, after, paths)
    pairs, alone = paired(before, after, paths, "results", configuration)
    if not pairs:
        raise ValueError(f"{paths[0]} and {paths[1]} have no configuration in common; measure the same bundles and options")
    for pair in pairs:
        check_states(*pair, paths)
    loads, _ = paired(before, after, paths, "loading", lambda row: (row["bundle"], row["threads"]))
    parts = [table(speed_rows(pairs)), *([table(loading_rows(loads))] if loads else []), LEGEND]
    return "\n\n".join(parts) + (f"\nIn one file only: {'; '.join(alone)}" if alone else "")


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="t5g2-compare", description=__doc__.splitlines()[0])
    p.add_argument("before", type=Path, help="what t5g2-bench wrote with --output json or --save")
    p.add_argument("after", type=Path)
    args = p.parse_args(argv)
    try:
        paths = (args.before, args.after)
        reports = [read(path) for path in paths]
        for path, report in zip(paths, reports):
            check_keys(path, report, KEYS)
        print(compare(*reports, paths))
    except ValueError as error:
        print(f"t5g2-compare: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
