"""Makes the tarball: `python -m t5g2.runtime.package_linux -o out/`.

On an arm64 machine with its own compiler, elsewhere with the cross compiler g++-aarch64-linux-gnu. It takes a checkout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import tomllib
from pathlib import Path

from t5g2.runtime.package_linux import build, contents, pictures, tarball
from t5g2.runtime.package_linux.errors import BuildError
from t5g2.runtime.package_linux.toolchain import toolchain

MACHINE = "aarch64"


def package(folder: Path) -> Path:
    """Builds, and writes the tarball into the folder; returns its path."""
    build.check_checkout()
    tools = toolchain(MACHINE)
    for name in ("g++", "gcc", "strip"):
        tools.tool(name)
    folder.mkdir(parents=True, exist_ok=True)
    executorch = build.executorch_for(tools)
    note(f"building for {MACHINE} in {build.BUILD / build.preset_for(tools)}")
    built = build.build(build.preset_for(tools), [*contents.PROGRAMS, "t5g2", "t5g2_ops"], executorch)
    # A machine's own are found by CMake.
    libraries = pictures.find(build.BUILD) if tools.cross else pictures.Found(None, None)
    if libraries.why_not:
        note(f"t5g2-run reads no pictures: no libjpeg and libpng for {MACHINE} ({libraries.why_not})")
    given = contents.Inputs(version(), tools, built, executorch, libraries)
    name = f"t5g2-{given.version}-linux-arm64"
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as scratch:
        inside = Path(scratch, name)
        contents.make(inside, given)
        tarball.write(inside, name, folder / f"{name}.tar.gz")
        size = sum(path.stat().st_size for path in inside.rglob("*") if path.is_file())
    packed = (folder / f"{name}.tar.gz").stat().st_size
    note(f"{folder / name}.tar.gz: {packed / 1e6:.1f} MB, {size / 1e6:.1f} MB unpacked")
    return folder / f"{name}.tar.gz"


def version() -> str:
    """The checkout's."""
    with open(build.ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]["version"]


def note(message: str) -> None:
    print(f"t5g2-package-linux: {message}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="t5g2-package-linux", description=__doc__.splitlines()[0])
    p.add_argument("-o", "--output", type=Path, default=Path("out"), metavar="FOLDER", help="(default: out)")
    args = p.parse_args(argv)
    try:
        print(package(args.output))
    except (BuildError, OSError) as error:
        print(f"t5g2-package-linux: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
