"""The compiler for one kind of machine, its companions, and the libraries that programs need from it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from t5g2.runtime.package_linux.elf import Elf
from t5g2.runtime.package_linux.errors import BuildError

LOADERS = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
COMPILERS = {"g++": "c++", "gcc": "cc"}  # as they are called where they are the machine's own
LOADER_FOLDERS = ("/lib64", "/lib")


@dataclass(frozen=True)
class Toolchain:
    machine: str  # as `uname -m` names it
    prefix: str  # of the tools' names; none on such a machine itself

    @property
    def loader(self) -> str:
        return LOADERS[self.machine]

    @property
    def cross(self) -> bool:
        return bool(self.prefix)

    def tool(self, name: str) -> str:
        """Its full path; BuildError where it is missing."""
        called = self.prefix + name if self.cross else COMPILERS.get(name, name)
        if found := shutil.which(called):
            return found
        package = f"g++-{self.prefix.rstrip('-')}" if self.cross else "g++"
        raise BuildError(f"{called} is missing; on Debian: apt install {package}")

    def library(self, name: str, folders: list[Path]) -> Path:
        """The library of that name: in one of the folders, or else the compiler's."""
        places = [folder / name for folder in folders]
        places.append(Path(run([self.tool("g++"), f"-print-file-name={name}"]).strip()))
        if name == self.loader and not self.cross:
            places += [Path(folder, name) for folder in LOADER_FOLDERS]
        for place in places:
            if place.is_absolute() and place.is_file():
                return place
        raise BuildError(f"{name} is missing: {self.tool('g++')} does not have it; install the compiler anew")


def toolchain(machine: str) -> Toolchain:
    """This machine's own, or the cross compiler for arm64."""
    if machine == platform.machine():
        return Toolchain(machine, "")
    if machine == "aarch64":
        return Toolchain(machine, "aarch64-linux-gnu-")
    raise BuildError(f"programs for {machine} can't be built on {platform.machine()}; build them on such a machine")


def libraries(programs: list[Path], folders: list[Path], tools: Toolchain) -> list[Path]:
    """The loader, and all libraries that the programs need, and those that these need; by name."""
    found: dict[str, Path] = {}
    left = [tools.loader, *(name for program in programs for name in Elf(program).needed)]
    while left:
        name = left.pop()
        if name not in found:
            found[name] = tools.library(name, folders)
            left += Elf(found[name]).needed
    return [found[name] for name in sorted(found)]


def run(command: list[str | Path], **options) -> str:
    """What a command prints; BuildError with the end of that where it fails."""
    line = [str(word) for word in command]
    try:
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    except OSError as error:
        raise BuildError(f"{line[0]}: cannot be started ({(error.strerror or str(error)).lower()}); install it") from None
    if done.returncode:
        error = BuildError(f"{Path(line[0]).name} failed: {complaint(done.stdout) or f'exit status {done.returncode}'}")
        error.add_note(done.stdout[-5000:])  # what a traceback shows
        raise error
    return done.stdout


def complaint(output: str) -> str:
    """The line of a tool's output that says what is wrong: the first that speaks of an error, or the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return next((line for line in lines if re.search(r"\berror\b|^E: ", line, re.IGNORECASE)), lines[-1] if lines else "")
