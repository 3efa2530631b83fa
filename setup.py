"""Builds the operators, the engine and its programs with CMake, against the executorch wheel. Everything else is in
pyproject.toml.

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

import nlohmann_json
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Libraries that are loaded, not imported, and a program: built by CMake, under the names that CMake gives them."""

    def get_ext_filename(self, name: str) -> str:
        path = name.split(".")
        return os.path.join(*path) + (".so" if path[-1].startswith("lib") else "")

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        packages = f"-DCMAKE_PREFIX_PATH={executorch(build.parent)};{Path(nlohmann_json.__file__).parent}"
        # Installed, executorch lies beside us; in an editable install only its full path leads there.
        rpath = f"-DCMAKE_BUILD_WITH_INSTALL_RPATH={'OFF' if self.editable_mode else 'ON'}"
        run("cmake", "-S", str(HERE), "-B", str(build), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", packages, rpath)
        jobs = str(self.parallel or os.cpu_count() or 1)
        run("cmake", "--build", str(build), "--parallel", jobs, "--target", target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(build / target.name), str(target))


def run(*command: str) -> None:
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        sys.exit(f"t5g2: {command[0]} is missing; `pip install cmake ninja` brings it")
    except subprocess.CalledProcessError as error:
        sys.exit(f"t5g2: building with CMake failed (exit {error.returncode}); it needs a C++20 compiler, see above")


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


TARGETS = ("libt5g2_ops", "libt5g2", "t5g2-run", "t5g2-bench")

setup(
    ext_modules=[Extension(f"t5g2.runtime.{name}", sources=[]) for name in TARGETS],
    cmdclass={"build_ext": CMakeBuild},
)
