"""Several rounds of t5g2-bench on the same bundle, made one report of its format."""

from __future__ import annotations

import statistics

import numpy as np

from t5g2.benchmarks.compare import CLOCKS_ALIKE, clock_ghz, name

FIGURES = ("encode_tok_s", "first_token_s")
RESULT_MEDIANS = ("picture_s", "encode_joules_per_token", "loaded_mb", "resident_mb")
LOADING_MEDIANS = ("load_warm_s", "load_cold_s", "first_token_cold_s")


def reason_to_drop(report: dict, rounds: list[dict]) -> str | None:
    """Why a round can't be merged with the others of its bundle: throttled, or at a clock that fell meanwhile."""
    for i, result in enumerate(report["results"]):
        if result["throttling"] != "none":
            return f"{name(result)}: {result['throttling']}"
        clock, best = clock_ghz(result), max(clock_ghz(other["results"][i]) for other in rounds)
        if clock < (1 - CLOCKS_ALIKE) * best:
            return f"{name(result)}: a core ran at {clock:.2f} GHz, and at {best:.2f} in another round"
    return None


def merge(rounds: list[dict]) -> dict:
    """One report of one bundle's rounds, all taken with the same options."""
    merged = dict(rounds[0])
    merged["repeat"] = sum(report["repeat"] for report in rounds)
    for key, join in (("loading", merge_loading), ("results", merge_results)):
        merged[key] = [join(list(rows)) for rows in zip(*(report[key] for report in rounds))]
    return merged


def together(reports: list[dict]) -> dict:
    """One report of several bundles' reports."""
    whole = dict(reports[0])
    # A bundle whose rounds were dropped has fewer.
    whole["repeat"] = min(report["repeat"] for report in reports)
    for key in ("loading", "results"):
        whole[key] = [row for report in reports for row in report[key]]
    return whole


def merge_loading(rows: list[dict]) -> dict:
    return rows[0] | {key: median_of([row[key] for row in rows]) for key in LOADING_MEDIANS}


def merge_results(rows: list[dict]) -> dict:
    merged = rows[0] | {key: merge_figures([row[key] for row in rows]) for key in FIGURES}
    merged |= {key: median_of([row[key] for row in rows]) for key in RESULT_MEDIANS if key in rows[0]}
    merged |= {key: max(row[key] for row in rows) for key in ("peak_mb", "read_gb_s")}
    merged["decode"] = [merge_decode(list(depth), merged["read_gb_s"]) for depth in zip(*(row["decode"] for row in rows))]
    merged["state_after"] = rows[-1]["state_after"]
    merged["throttling"] = next((row["throttling"] for row in rows if row["throttling"] != "none"), "none")
    return merged


def merge_decode(rows: list[dict], read_gb_s: float) -> dict:
    merged = rows[0] | {"tok_s": merge_figures([row["tok_s"] for row in rows])}
    merged["joules_per_token"] = median_of([row["joules_per_token"] for row in rows])
    if "bytes_per_token" in merged:
        merged["bandwidth_share"] = merged["bytes_per_token"] * merged["tok_s"]["median"] / (read_gb_s * 1e9)
    return merged


def merge_figures(figures: list[dict]) -> dict:
    """The quartiles of all runs."""
    runs = [run for figure in figures for run in figure["runs"]]
    low, median, high = (float(value) for value in np.quantile(runs, [0.25, 0.5, 0.75]))
    return {"median": median, "low": low, "high": high, "runs": runs}


def median_of(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
