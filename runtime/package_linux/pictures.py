"""libjpeg, libpng and zlib for arm64, from Debian's packages, without a change to the system.

apt-get is given folders of its own, and arm64 as its architecture; what it downloads is unpacked, not installed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from t5g2.runtime.package_linux.errors import BuildError
from t5g2.runtime.package_linux.toolchain import run

PACKAGES = ("libjpeg62-turbo-dev", "libpng-dev", "zlib1g-dev")
TRIPLET = "aarch64-linux-gnu"
HEADERS = ("jpeglib.h", "jconfig.h", "jmorecfg.h", "jerror.h", "png.h", "pngconf.h", "pnglibconf.h", "zlib.h", "zconf.h")
LIBRARIES = ("libjpeg.a", "libpng.a", "libz.a")


class Found(NamedTuple):
    folder: Path | None  # with `include`, `lib` and `doc`
    why_not: str | None


@cache
def find(build: Path) -> Found:
    """The libraries in that build folder, downloaded once, or why they can't be had."""
    folder = build / "pictures-aarch64"
    try:
        if not folder.is_dir():
            _make(folder)
    except (BuildError, OSError) as error:
        return Found(None, str(error))
    return Found(folder, None)


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        root, whole = Path(scratch, "root"), Path(scratch, "whole")
        for package in _fetch(Path(scratch)):
            run(["dpkg-deb", "--extract", package, root])
        for name in ("include", "lib", "doc"):
            (whole / name).mkdir(parents=True)
        for name in HEADERS:
            places = (root / "usr/include" / name, root / "usr/include" / TRIPLET / name)
            shutil.copyfile(next((place for place in places if place.exists()), places[0]), whole / "include" / name)
        for name in LIBRARIES:
            shutil.copyfile(root / "usr/lib" / TRIPLET / name, whole / "lib" / name)
        for name in PACKAGES:
            shutil.copyfile(root / "usr/share/doc" / name / "copyright", whole / "doc" / name)
        whole.rename(folder)


def _fetch(scratch: Path) -> list[Path]:
    """The packages' files, downloaded into the folder."""
    for name in ("state/lists/partial", "cache/archives/partial", "packages"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",  # another user may not write here
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "--quiet", *(f"-o{key}={value}" for key, value in settings.items())]
    environment = os.environ | {"LC_ALL": "C"}
    run([*apt, "--error-on=any", "update"], env=environment)
    run([*apt, "download", *PACKAGES], cwd=scratch / "packages", env=environment)
    return sorted((scratch / "packages").glob("*.deb"))


def cmake_options(folder: Path) -> list[str]:
    """What has CMake's modules find the libraries there."""
    found = {
        "CMAKE_DISABLE_FIND_PACKAGE_JPEG": "OFF",
        "JPEG_INCLUDE_DIR": folder / "include",
        "JPEG_LIBRARY_RELEASE": folder / "lib/libjpeg.a",
        "PNG_PNG_INCLUDE_DIR": folder / "include",
        "PNG_LIBRARY_RELEASE": folder / "lib/libpng.a",
        "ZLIB_INCLUDE_DIR": folder / "include",
        "ZLIB_LIBRARY_RELEASE": folder / "lib/libz.a",
    }
    return [f"-D{name}={value}" for name, value in found.items()]
