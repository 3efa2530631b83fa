"""Builds the C++ programs of tests/native, in build/<preset> (see CMakePresets.json); what is there is built on."""

import fcntl
import os
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
BUILD = REPOSITORY / "build"
# pip puts cmake and ninja beside python, whether or not the environment is activated.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def folder_of(package: str) -> Path:
    return Path(find_spec(package).submodule_search_locations[0])


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
def _configured(preset: str, executorch: Path) -> Path:
    succeed("cmake", "--preset", preset, f"-DCMAKE_PREFIX_PATH={executorch};{folder_of('nlohmann_json')}")
    return BUILD / preset


@contextmanager
def _alone(folder: Path):
    """Tests run in several processes, and a build folder is for one at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def program(name: str, preset: str = "test", executorch: Path = EXECUTORCH) -> Path:
    """The test program `name`, built for `preset` against that executorch package."""
    return _built(name, preset, executorch) / "tests/native" / name


@cache
def own_program(name: str, preset: str, executorch: Path = EXECUTORCH) -> Path:
    """`program`, for those that are no tests, such as t5g2-bench."""
    return _built(name, preset, executorch) / name


def _built(name: str, preset: str, executorch: Path) -> Path:
    with _alone(BUILD / preset):
        folder = _configured(preset, executorch)
        succeed("cmake", "--build", folder, "--target", name)
    return folder


@cache
def arm_executorch() -> Path:
    """The executorch wheel for ARM Linux, unpacked: downloaded once."""
    folder = BUILD / "executorch-aarch64"
    with _alone(folder):
        if not (folder / "executorch/share/cmake").is_dir():
            platform = ("--platform", "manylinux_2_28_aarch64", "--only-binary", ":all:", "--python-version", "311")
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
            succeed(*pip, "--dest", folder, *platform, f"executorch=={metadata.version('executorch').split('+')[0]}")
            with zipfile.ZipFile(next(folder.glob("executorch-*.whl"))) as wheel:
                wheel.extractall(folder)
    return folder / "executorch"
