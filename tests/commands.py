"""Runs our commands for the tests: in this process, or in one of their own to see what a shell would."""

import subprocess
import sys
from types import SimpleNamespace


def succeed(capsys, main, *argv) -> str:
    """What the command printed on stdout."""
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def fail(capsys, main, *argv, stages: bool = False) -> SimpleNamespace:
    """The exit code and the one error line of a command that fails, and that it printed no answer.

    stages: whether progress lines may come before the error.
    """
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return SimpleNamespace(code=code, line=error_line(out, err, stages))


def run_process(module: str, *argv, **options) -> SimpleNamespace:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, argv)], capture_output=True, text=True, timeout=120, **options
    )
    return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)


def error_line(out: str, err: str, stages: bool = False) -> str:
    """The message of the one line `t5g2-x: error: message`, the last on stderr."""
    lines = err.splitlines()
    assert out == "" and "Traceback" not in err and err.endswith("\n")
    assert sum(": error: " in line for line in lines) == 1 and (stages or len(lines) == 1), err
    prog, message = lines[-1].split(": error: ", 1)
    assert prog.startswith("t5g2-")
    return message
