"""peers.json as a picture: tokens a second encoded and decoded, and memory, of every peer."""

from pathlib import Path

OURS, OTHERS = "tab:blue", "silver"


def draw(record: dict, picture: Path) -> None:
    """A row for each (peer, quant), the fastest decoder on top; a bar for each thread count, the fewest palest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    threads = record["threads"]
    rows: dict[tuple, dict[int, dict]] = {}
    for result in sorted(record["results"], key=lambda result: -result["decode_tok_s"]):
        rows.setdefault((result["peer"], result["quant"]), {})[result["threads"]] = result
    figure, axes = plt.subplots(1, 3, sharey=True, figsize=(13, 1.5 + 0.42 * len(rows)), layout="constrained")
    heads = " / ".join(map(str, threads))
    titles = (f"decode, tokens/s, {heads} threads", f"encode, tokens/s, {heads} threads", "resident, MB")
    for axis, key, title in zip(axes, ("decode_tok_s", "encode_tok_s", "resident_mb"), titles):
        counts = threads[-1:] if key == "resident_mb" else threads
        height = 0.8 / len(counts)
        for i, count in enumerate(counts):
            for row, ((peer, _), by_threads) in enumerate(rows.items()):
                if count not in by_threads:
                    continue
                value = by_threads[count][key]
                color = OURS if peer.startswith("t5g2") else OTHERS
                shade = 0.55 + 0.45 * (i + 1) / len(counts)
                bar = axis.barh(row - 0.4 + height * (i + 0.5), value, height * 0.9, color=color, alpha=shade)
                axis.bar_label(bar, [f"{value:.0f}"], padding=3, fontsize="small")
        axis.set_title(title)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.25)
    labels = [f"{peer} {quant}{'*' if wrong(found) else ''}" for (peer, quant), found in rows.items()]
    axes[0].set_yticks(range(len(rows)), labels)
    axes[0].margins(y=0.02)
    axes[0].invert_yaxis()
    note = f"{record['machine']}; {record['date']}; medians of {record['rounds']} rounds in turn"
    if any(wrong(found) for found in rows.values()):
        note += "\n* gives wrong results, see the table"
    figure.supxlabel(note, fontsize="small")
    unfinished = picture.with_name(f".{picture.stem}.part{picture.suffix}")
    figure.savefig(unfinished, dpi=120)
    plt.close(figure)
    unfinished.replace(picture)


def wrong(by_threads: dict[int, dict]) -> str:
    """What the peer gets wrong; "" for nothing that we know of."""
    return next(iter(by_threads.values())).get("wrong", "")
