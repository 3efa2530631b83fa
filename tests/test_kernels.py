"""The C++ tests of the kernels (tests/native): on this CPU, under sanitizers, and for ARM under emulation.

Built in build/<preset>, see CMakePresets.json; what is there is built on.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
BUILD = REPOSITORY / "build"
EXECUTORCH = Path(find_spec("executorch").submodule_search_locations[0])
# pip puts cmake and ninja beside python, whether or not the environment is activated.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
ARM_CPUS = {
    "cortex-a53": "portable neon",
    "cortex-a76": "portable neon neon_dotprod",
    "max,sme=off": "portable neon neon_dotprod neon_i8mm",  # qemu 7.2 multiplies int8 wrongly where it emulates SME
}


def run(*command: object) -> subprocess.CompletedProcess:
    """Runs it in the repository's folder; what it prints is in `.stdout`."""
    line = [str(part) for part in command]
    return subprocess.run(line, cwd=REPOSITORY, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool, path=ENVIRONMENT["PATH"]):
            pytest.skip(f"{tool} is not installed")


@cache
def build(preset: str, executorch: Path = EXECUTORCH) -> Path:
    """The test program, built."""
    for command in (("--preset", preset, f"-DCMAKE_PREFIX_PATH={executorch}"), ("--build", "--preset", preset)):
        done = run("cmake", *command)
        assert done.returncode == 0, done.stdout[-5000:]
    return BUILD / preset / "tests/native/kernels_test"


@cache
def arm_executorch() -> Path:
    """The executorch wheel for ARM Linux, unpacked: downloaded once."""
    folder = BUILD / "executorch-aarch64"
    if not (folder / "executorch/share/cmake").is_dir():
        platform = ("--platform", "manylinux_2_28_aarch64", "--only-binary", ":all:", "--python-version", "311")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--dest", folder)
        done = run(*pip, *platform, f"executorch=={metadata.version('executorch').split('+')[0]}")
        assert done.returncode == 0, done.stdout[-5000:]
        with zipfile.ZipFile(next(folder.glob("executorch-*.whl"))) as wheel:
            wheel.extractall(folder)
    return folder / "executorch"


def check(done: subprocess.CompletedProcess) -> str:
    """Passes where the test program did; returns the kernels it tested."""
    assert done.returncode == 0, done.stdout[-5000:]
    summary, kernels = done.stdout.splitlines()[-1].split("; kernels: ")
    assert summary.endswith(" 0 failures")
    return kernels


def test_kernels():
    assert check(run(build("test"))).startswith("portable")


def test_kernels_under_address_and_undefined_sanitizers():
    check(run(build("asan"), "--small"))


def test_kernels_under_thread_sanitizer():
    done = run(build("tsan"), "--small")
    if "unexpected memory mapping" in done.stdout:
        pytest.skip("this kernel places memory where this compiler's thread sanitizer does not expect it")
    check(done)


@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_kernels_on_arm(cpu):
    need("aarch64-linux-gnu-g++", "qemu-aarch64-static")
    program = build("aarch64", arm_executorch())
    done = run("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu, program, "--small")
    assert check(done) == ARM_CPUS[cpu]
