"""t5g2-eval: exact match of a bundle's greedy answers, per task."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from t5g2.runtime.console import Parser, command, stderr_progress
from t5g2.runtime.errors import T5g2Error, UsageError


@dataclass(frozen=True)
class Example:
    """One question with its only right answer. images: paths or PIL images, one per marker in the source."""

    task: str
    source: str
    target: str
    images: tuple = ()


def parser() -> Parser:
    p = Parser("t5g2-eval", description="Exact match of a bundle's greedy answers on questions with one right answer.")
    p.add_argument("bundle", type=Path, help="a folder made by t5g2-export")
    p.add_argument(
        "--data",
        metavar="FILE",
        type=Path,
        help="JSON lines with task, source, target and optionally images (paths beside the file); "
        "without it, nano's held-out examples",
    )
    p.add_argument("--examples", metavar="N", type=int, default=200, help="at most so many per task")
    p.add_argument("--threads", metavar="N", type=int, help="CPU threads (default: ExecuTorch's choice)")
    p.add_argument("--json", action="store_true", help="print the shares as JSON")
    return p


@command("t5g2-eval")
def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.examples < 1:
        raise UsageError(f"--examples {args.examples}: must be at least 1")
    tasks = _by_task(read_examples(args.data) if args.data else nano_examples(args.examples), args.examples)
    if not tasks:
        raise T5g2Error(f"{args.data}: no examples in it; write one JSON object with source and target on each line")
    from t5g2.runtime.model import load

    model = load(args.bundle, threads=args.threads)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shares = {}
    with stderr_progress(*columns) as progress:
        for task, examples in tasks.items():
            shares[task] = exact_match(model, progress.track(examples, description=task))
    counts = {task: len(examples) for task, examples in tasks.items()}
    if args.json:
        print(json.dumps({"bundle": str(args.bundle), "examples": counts, "exact_match": shares}, indent=2))
    else:
        Console(markup=False, highlight=False).print(_table(args.bundle, tasks, shares))
    return 0


def exact_match(model, examples: Iterable[Example]) -> float:
    """The share of examples whose greedy answer is the target, to the letter."""
    right = [model.generate(e.source, e.images).text == e.target for e in examples]
    return sum(right) / len(right)


def nano_examples(count: int, seed: int = 0) -> Iterator[Example]:
    """The first `count` held-out examples of every nano task."""
    from t5g2.nano.data import TASKS, held_out

    for task in TASKS:
        for e in held_out(task, count, seed):
            yield Example(task, e.source, e.target, (e.image,) if e.image else ())


def read_examples(path: Path) -> Iterator[Example]:
    """Examples from JSON lines. Raises T5g2Error naming the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also split at U+2028 inside a string
    except UnicodeDecodeError as error:
        raise T5g2Error(f"{path}: not UTF-8 text (byte {error.start}); convert it to UTF-8") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _example(line, f"{path}:{number}", path.parent)


def _example(line: str, where: str, folder: Path) -> Example:
    try:
        fields = json.loads(line)
        task, source, target = fields.get("task", "all"), fields["source"], fields["target"]
        images = fields.get("images", [])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise T5g2Error(f'{where}: not an example; write {{"source": "…", "target": "…"}} on one line') from None
    if not all(isinstance(text, str) for text in (task, source, target)):
        raise T5g2Error(f"{where}: task, source and target must be strings")
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise T5g2Error(f"{where}: images must be a list of file names")
    return Example(task, source, target, tuple(folder / name for name in images))


def _by_task(examples: Iterable[Example], most: int) -> dict[str, list[Example]]:
    tasks: dict[str, list[Example]] = {}
    for example in examples:
        group = tasks.setdefault(example.task, [])
        if len(group) < most:
            group.append(example)
    return tasks


def _table(bundle: Path, tasks: dict[str, list[Example]], shares: dict[str, float]) -> Table:
    title = f"exact match, greedy: {bundle}"
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column("task")
    table.add_column("examples", justify="right")
    table.add_column("exact match", justify="right")
    for task, share in shares.items():
        table.add_row(task, str(len(tasks[task])), f"{share:.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main())
