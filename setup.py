"""Builds the operator library with CMake, against the executorch wheel. Everything else is in pyproject.toml.

The wheel is looked for where the package will be installed; where it is not there yet, as in a first `pip install .`, it is
downloaded (without its dependencies, torch among them) and used for its headers and libraries only.
"""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent


class CMakeLibrary(build_ext):
    """A shared library that is loaded, not imported: built by CMake, named without Python's suffix."""

    def get_ext_filename(self, name: str) -> str:
        return os.path.join(*name.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        source = ["-S", str(HERE), "-B", str(build), "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={executorch(build.parent)}"]
        run("cmake", *source, "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", str(build), "--parallel", str(self.parallel or os.cpu_count() or 1))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(build / target.name), str(target))


def run(*command: str) -> None:
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        sys.exit(f"t5g2: {command[0]} is missing; `pip install cmake ninja` brings it")
    except subprocess.CalledProcessError as error:
        sys.exit(f"t5g2: building the operator library failed (exit {error.returncode}); it needs a C++20 compiler, see above")


def executorch(scratch: Path) -> Path:
    """The folder of the executorch package to build against."""
    installed = Path(sysconfig.get_path("purelib")) / "executorch"
    if (installed / "share/cmake").is_dir():
        return installed
    with open(HERE / "pyproject.toml", "rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    pinned = next(d for d in dependencies if d.startswith("executorch"))
    unpacked = scratch / pinned.replace("==", "-")
    if not (unpacked / "executorch/share/cmake").is_dir():
        download = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(scratch), pinned]
        run(sys.executable, "-m", "pip", *download)
        with zipfile.ZipFile(next(scratch.glob("executorch-*.whl"))) as wheel:
            wheel.extractall(unpacked)
    return unpacked / "executorch"


setup(
    ext_modules=[Extension("t5g2.runtime.libt5g2_ops", sources=[])],
    cmdclass={"build_ext": CMakeLibrary},
)
