"""Results of t5g2-bench as a picture: `python -m t5g2.benchmarks.picture RESULT.json… --output speed.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from t5g2.benchmarks.result import read

FORMS = (".png", ".svg", ".pdf")


def check_name(picture: Path) -> None:
    """ValueError for a name that no picture can be written under; ImportError without matplotlib."""
    if picture.suffix not in FORMS:
        raise ValueError(f"{picture}: a picture ends in {', '.join(FORMS)}")
    if not picture.absolute().parent.is_dir():
        raise ValueError(f"{picture}: there is no folder {picture.absolute().parent}")
    import matplotlib  # noqa: F401


def draw(reports: list[dict], picture: Path) -> None:
    """One row for each result: encoding, decoding at each depth beside the limit that memory sets, first token, memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = [result for report in reports for result in report["results"]]
    labels = [label(result, results) for result in results]
    bundles = list(dict.fromkeys(result["bundle"] for result in results))
    colors = {bundle: plt.get_cmap("tab10")(i % 10) for i, bundle in enumerate(bundles)}
    figure, axes = plt.subplots(1, 4, sharey=True, figsize=(14, 1.6 + 0.45 * len(results)), layout="constrained")
    rows = range(len(results))
    shades = [colors[result["bundle"]] for result in results]

    bars(axes[0], rows, [result["encode_tok_s"] for result in results], shades, 0.7)
    axes[0].set_title("encode, tokens/s")
    for row, result in zip(rows, results):
        decode(axes[1], row, result, colors[result["bundle"]])
    axes[1].set_title("decode, tokens/s, by depth\n(black: memory's limit)")
    bars(axes[2], rows, [scaled(result["first_token_s"], 1e3) for result in results], shades, 0.7)
    axes[2].set_title("first token, ms")
    axes[3].barh(rows, [result["peak_mb"] for result in results], 0.7, color=shades, alpha=0.35)
    axes[3].barh(rows, [result["resident_mb"] for result in results], 0.7, color=shades)
    axes[3].set_title("memory, MB: resident, peak")

    axes[0].set_yticks(rows, labels)
    axes[0].invert_yaxis()
    for axis in axes:
        axis.margins(x=0.18)
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.25)
    first, machine = reports[0], reports[0]["machine"]
    figure.supxlabel(
        f"{machine['cpu']}, {machine['cores']} cores; t5g2 {first['version']}, {first['date'][:10]}; medians and quartiles",
        fontsize="small",
    )
    unfinished = picture.with_name(f".{picture.stem}.part{picture.suffix}")
    figure.savefig(unfinished, dpi=120)
    plt.close(figure)
    unfinished.replace(picture)


def label(result: dict, results: list[dict]) -> str:
    """What tells a result from the others of the picture."""
    parts = [result["bundle"]]
    if len({r["threads"] for r in results}) > 1:
        parts.append(f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}")
    if len({r["source"] for r in results}) > 1:
        parts.append(f"source {result['source']}")
    if result["images"]:
        parts.append(f"{result['images']} images" if result["images"] > 1 else "1 image")
    return ", ".join(parts)


def scaled(figure: dict, unit: float) -> dict:
    return {key: figure[key] * unit for key in ("median", "low", "high")}


def bars(axis, rows, figures: list[dict], colors, height: float, inside: bool = False) -> None:
    """Medians with their quartiles, and the number beside or inside each."""
    medians = [figure["median"] for figure in figures]
    low = [figure["median"] - figure["low"] for figure in figures]
    high = [figure["high"] - figure["median"] for figure in figures]
    drawn = axis.barh(rows, medians, height, color=colors, xerr=[low, high], error_kw={"elinewidth": 1, "capsize": 2})
    labels = [f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in medians]
    axis.bar_label(drawn, labels, label_type="center" if inside else "edge", padding=0 if inside else 5, fontsize="small")


def decode(axis, row: int, result: dict, color) -> None:
    """A bar for each depth, the deepest palest, and the tokens a second that the memory could deliver."""
    depths = result["decode"]
    height = 0.8 / max(1, len(depths))
    for i, depth in enumerate(depths):
        at = row - 0.4 + height * (i + 0.5)
        shade = (*color[:3], 0.8 - 0.5 * i / max(1, len(depths)))
        bars(axis, [at], [depth["tok_s"]], [shade], height * 0.9, inside=True)
        if "bytes_per_token" in depth:
            limit = result["read_gb_s"] * 1e9 / depth["bytes_per_token"]
            axis.plot([limit, limit], [at - height / 2, at + height / 2], color="black", linewidth=1.5)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("results", nargs="+", type=Path, help="what t5g2-bench wrote with --output json or --save")
    p.add_argument("--output", "-o", required=True, type=Path, help="a .png, .svg or .pdf file")
    args = p.parse_args()
    try:
        check_name(args.output)
        draw([read(path) for path in args.results], args.output)
    except (ValueError, OSError) as error:
        p.error(str(error))
    except ImportError:
        p.error("matplotlib is not installed; pip install 't5g2[bench]'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
