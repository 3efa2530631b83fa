"""t5g2-bench: the program of benchmarks/bench, and a picture of what it measured."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from t5g2 import runtime

PROGRAM = Path(runtime.__path__[0]) / "t5g2-bench"
PICTURE_HELP = """
Of the Python command only
  --picture FILE              draw the results into a .png, .svg or .pdf file; needs matplotlib
"""


def main() -> int:
    """Becomes the program, or runs it and draws its results."""
    words = sys.argv[1:]
    try:
        rest, picture = take(words, "--picture")
        if {"--help", "-h"} & set(words):
            done = subprocess.run([PROGRAM, "--help"])
            print(PICTURE_HELP, end="", flush=True)
            return done.returncode
        if picture is None:
            os.execv(PROGRAM, ["t5g2-bench", *words])
        return measure_and_draw(rest, Path(picture))
    except OSError as error:
        hint = "install t5g2 with pip on a machine with a C++ compiler, which builds it"
        return fail(f"{PROGRAM}: cannot be started ({(error.strerror or str(error)).lower()}); {hint}", 1)
    except ValueError as error:
        return fail(str(error), 2)
    except ImportError:
        return fail("--picture: matplotlib is not installed; pip install 't5g2[bench]', or leave --picture out", 1)


def fail(message: str, code: int) -> int:
    print(f"t5g2-bench: error: {message}", file=sys.stderr)
    return code


def take(words: list[str], option: str) -> tuple[list[str], str | None]:
    """Splits `option VALUE` or `option=VALUE` off the words. ValueError where the value is missing."""
    rest, value, left = [], None, iter(words)
    for word in left:
        name, equals, given = word.partition("=")
        if name != option:
            rest.append(word)
            continue
        value = given if equals else next(left, "")
        if not value:
            raise ValueError(f"{option}: give FILE after it")
    return rest, value


def measure_and_draw(words: list[str], picture: Path) -> int:
    from t5g2.benchmarks.picture import check_name, draw
    from t5g2.benchmarks.result import read

    check_name(picture)
    with tempfile.TemporaryDirectory() as scratch:
        _, saved = take(words, "--save")
        results = saved or os.path.join(scratch, "results.json")
        code = subprocess.run([PROGRAM, *words, *([] if saved else ["--save", results])]).returncode
        if code == 0:
            draw([read(results)], picture)
        return code


if __name__ == "__main__":
    sys.exit(main())
