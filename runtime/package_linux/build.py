"""Builds programs with CMake in a checkout's build/<preset>, against an executorch package."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from t5g2.runtime.package_linux import pictures
from t5g2.runtime.package_linux.errors import BuildError
from t5g2.runtime.package_linux.toolchain import Toolchain, run

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
ARM_PLATFORM = "manylinux_2_28_aarch64"
# pip puts cmake and ninja beside python, whether or not the environment is activated.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def build(preset: str, targets: list[str], executorch: Path) -> Path:
    """Builds the targets, and returns the build folder; what is there is built on."""
    with alone(BUILD / preset):
        folder = _configured(preset, executorch)
        run(["cmake", "--build", folder, "--target", *targets], cwd=ROOT, env=ENVIRONMENT)
    return folder


def preset_for(tools: Toolchain) -> str:
    return "aarch64" if tools.cross else "package"


def folder_of(package: str) -> Path:
    """Where an installed package lies."""
    found = find_spec(package)
    if not found:
        raise BuildError(f"the Python package {package} is missing; pip install 't5g2[test]' brings it")
    return Path(found.submodule_search_locations[0])


def executorch_for(tools: Toolchain) -> Path:
    """The executorch package to build against."""
    return arm_executorch() if tools.cross else folder_of("executorch")


def check_checkout() -> None:
    """BuildError where this file is installed without the sources."""
    if not (ROOT / "CMakePresets.json").is_file():
        raise BuildError(f"{ROOT}: no checkout of t5g2, which building takes; get one, and pip install -e it")


@cache
def _configured(preset: str, executorch: Path) -> Path:
    check_checkout()
    if not shutil.which("cmake", path=ENVIRONMENT["PATH"]):
        raise BuildError("cmake is missing; pip install cmake ninja brings it")
    options = [f"-DCMAKE_PREFIX_PATH={executorch};{folder_of('nlohmann_json')}"]
    if preset in ("aarch64", "package"):
        # What is given away names no folder of the machine that it was built on.
        paths = {ROOT: ".", executorch: "executorch", Path(sys.prefix): "python"}
        maps = [shlex.quote(f"-ffile-prefix-map={path}={name}") for path, name in paths.items()]
        options.append(f"-DCMAKE_CXX_FLAGS={' '.join(maps)}")
    if preset == "aarch64" and (libraries := pictures.find(BUILD).folder):
        options += pictures.cmake_options(libraries)
    run(["cmake", "--preset", preset, *options], cwd=ROOT, env=ENVIRONMENT)
    return BUILD / preset


@contextmanager
def alone(folder: Path):
    """Programs run at the same time, and a build folder is for one at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def arm_executorch() -> Path:
    """The executorch package for ARM Linux, of the version that is installed here: its wheel, downloaded once and unpacked."""
    folder = BUILD / "executorch-aarch64"
    with alone(folder):
        if not (folder / "executorch/share/cmake").is_dir():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                _download_executorch(Path(scratch))
                for part in Path(scratch).glob("executorch*"):
                    shutil.rmtree(folder / part.name, ignore_errors=True)
                # The package last: it is what says that all is there.
                for part in sorted(Path(scratch).glob("executorch*"), reverse=True):
                    part.rename(folder / part.name)
    return folder / "executorch"


def _download_executorch(folder: Path) -> None:
    platform = ["--platform", ARM_PLATFORM, "--only-binary", ":all:", "--python-version", "311"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    run([*pip, "--dest", folder, *platform, f"executorch=={metadata.version('executorch').split('+')[0]}"])
    [wheel] = folder.glob("executorch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
