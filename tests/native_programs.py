"""Builds the C++ programs of tests/native, in build/<preset> (see CMakePresets.json); what is there is built on."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from t5g2.runtime.package_linux.build import BUILD, ENVIRONMENT, ROOT, alone, arm_executorch, build, folder_of

__all__ = ["BUILD", "ENVIRONMENT", "EXECUTORCH", "REPOSITORY", "alone", "arm_executorch", "folder_of", "own_program", "program",
           "run", "run_thread_sanitized", "succeed"]  # fmt: skip

REPOSITORY = ROOT
EXECUTORCH = folder_of("executorch")


def run(*command: object, **options) -> subprocess.CompletedProcess:
    """Runs it in the repository's folder; what it prints, on either stream, is in `.stdout`."""
    line = [str(part) for part in command]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": ENVIRONMENT} | options
    return subprocess.run(line, cwd=REPOSITORY, **options)


def succeed(*command: object) -> None:
    done = run(*command)
    assert done.returncode == 0, done.stdout[-5000:]


def run_thread_sanitized(*command: object, **options) -> subprocess.CompletedProcess:
    """`run`; skips the test where the sanitizer cannot start."""
    done = run(*command, **options)
    if "unexpected memory mapping" in done.stdout:
        pytest.skip("this kernel places memory where this compiler's thread sanitizer does not expect it")
    return done


@cache
def program(name: str, preset: str = "test", executorch: Path = EXECUTORCH) -> Path:
    """The test program `name`, built for `preset` against that executorch package."""
    return build(preset, [name], executorch) / "tests/native" / name


@cache
def own_program(name: str, preset: str, executorch: Path = EXECUTORCH) -> Path:
    """`program`, for those that are no tests, such as t5g2-bench."""
    return build(preset, [name], executorch) / name
