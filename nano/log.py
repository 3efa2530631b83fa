"""The training log: one CSV row per step, exact match filled in where it was measured."""

import csv
from pathlib import Path


class TrainLog:
    """Appends rows to a CSV file; rows after the step that training goes on from are dropped first."""

    def __init__(self, path: Path, tasks: list[str], steps_done: int):
        self.path, self.tasks = path, tasks
        kept = [row for row in read_log(path) if int(row["step"]) <= steps_done] if path.exists() else []
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", "seconds", "loss", "learning_rate", *tasks])
            writer.writeheader()
            writer.writerows(kept)

    def add(self, step: int, seconds: float, loss: float, learning_rate: float, matches: dict[str, float]) -> None:
        """One row; `matches` maps a task to its held-out exact match, or is empty."""
        shown = [f"{matches[task]:.3f}" if task in matches else "" for task in self.tasks]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([step, f"{seconds:.1f}", f"{loss:.4f}", f"{learning_rate:.6f}", *shown])


def read_log(path: Path) -> list[dict[str, str]]:
    """All rows as text, by column name."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
