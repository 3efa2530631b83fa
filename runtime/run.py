"""t5g2-run: the program of runtime/cli, which lies beside this file once installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("t5g2-run")


def main() -> int:
    """Becomes that program."""
    try:
        os.execv(PROGRAM, ["t5g2-run", *sys.argv[1:]])
    except OSError as error:
        hint = "install t5g2 with pip on a machine with a C++ compiler, which builds it"
        print(f"t5g2-run: error: {PROGRAM}: cannot be started ({error.strerror.lower()}); {hint}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
