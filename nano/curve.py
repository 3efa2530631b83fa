"""Draw a training log: loss above, held-out exact match of every task below."""

from pathlib import Path

from t5g2.nano.log import read_log


def plot(log: Path, picture: Path, smooth: int = 20) -> None:
    """Read `log` (CSV) and write `picture` (PNG). The loss line is a mean over `smooth` steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = read_log(log)
    steps = [int(row["step"]) for row in rows]
    losses = [float(row["loss"]) for row in rows]
    means = [sum(part) / len(part) for i in range(len(losses)) if (part := losses[max(0, i - smooth + 1) : i + 1])]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, height_ratios=[1, 1.4])
    above.plot(steps, losses, color="0.82", linewidth=0.6)
    above.plot(steps, means, color="C0", linewidth=1.5)
    above.set(yscale="log", ylabel="training loss", title=f"nano: {len(rows)} steps, {float(rows[-1]['seconds']) / 60:.0f} min")
    for task in list(rows[0])[4:]:
        measured = [(int(row["step"]), 100 * float(row[task])) for row in rows if row[task]]
        if measured:
            below.plot(*zip(*measured), marker=".", markersize=4, linewidth=1.3, label=task)
    below.axhline(95, color="0.5", linewidth=0.8, linestyle="--")
    below.set(xlabel="step", ylabel="held-out exact match, %", ylim=(-3, 103))
    below.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
