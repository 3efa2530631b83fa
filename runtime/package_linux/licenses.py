"""The licences of everything in the tarball that is not ours, with their texts as the packages on this machine ship them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

from t5g2.runtime.package_linux.errors import BuildError

HERE = Path(__file__).with_name("licenses")  # texts that no package ships
COMMON = ("/usr/share/common-licenses/{}", "/usr/share/licenses/spdx/{}.txt")  # Debian; others
OURS = ("t5g2-*", "libt5g2*.so", "ask*")


@dataclass(frozen=True)
class Component:
    name: str
    what: str
    license: str  # by SPDX's name
    inside: tuple[str, ...]  # patterns of the files that are it, or hold parts of it
    texts: tuple[str, ...]  # files with its text, the first that is there; patterns, {} is the place of what was built against
    common: str | None = None  # a licence that the text refers to
    source: str | None = None  # where its source code is, for licences that ask for saying so


# {pictures}: where libjpeg's packages were unpacked; {executorch}: the folder of its package's licence.
COMPONENTS = (
    Component(
        "ExecuTorch", "runs the programs of a bundle", "BSD-3-Clause", ("libexecutorch*.so",), ("{executorch}/LICENSE*",)
    ),
    Component("cpuinfo", "tells what the CPU has", "BSD-2-Clause", ("libexecutorch_threadpool.so",), ("{here}/cpuinfo.txt",)),
    Component(
        "pthreadpool", "ExecuTorch's threads", "BSD-2-Clause", ("libexecutorch_threadpool.so",), ("{here}/pthreadpool.txt",)
    ),
    Component("FXdiv", "divisions in pthreadpool", "MIT", ("libexecutorch_threadpool.so",), ("{here}/FXdiv.txt",)),
    Component("FlatBuffers", "reads programs in ExecuTorch", "Apache-2.0", ("libexecutorch.so",), (), "Apache-2.0"),
    Component("flatcc", "writes profiles in ExecuTorch", "Apache-2.0", ("libexecutorch_etdump.so",), (), "Apache-2.0"),
    Component(
        "JSON for Modern C++", "reads and writes JSON in t5g2", "MIT", ("t5g2-*", "libt5g2.so"), ("{here}/nlohmann-json.txt",)
    ),
    Component(
        "libjpeg-turbo", "reads JPEG files in t5g2-run", "IJG AND BSD-3-Clause AND Zlib", ("t5g2-run",),
        ("{pictures}/libjpeg62-turbo-dev", "{doc}/libjpeg*-dev/copyright", "/usr/share/licenses/libjpeg-turbo*/LICENSE*"),
    ),
    Component(
        "libpng", "reads PNG files in t5g2-run", "libpng-2.0", ("t5g2-run",),
        ("{pictures}/libpng-dev", "{doc}/libpng*-dev/copyright", "/usr/share/licenses/libpng*/LICENSE*"),
    ),
    Component(
        "zlib", "unpacks PNG files in t5g2-run", "Zlib", ("t5g2-run",),
        ("{pictures}/zlib1g-dev", "{doc}/zlib1g-dev/copyright", "/usr/share/licenses/zlib*/*"),
    ),
    Component(
        "GNU C library", "the loader and the system's library", "LGPL-2.1-or-later",
        ("ld-linux-*.so.*", "libc.so.*", "libm.so.*", "libdl.so.*", "libpthread.so.*", "librt.so.*"),
        ("{doc}/libc6-arm64-cross/copyright", "{doc}/libc6/copyright", "/usr/share/licenses/glibc*/COPYING.LIB"),
        "LGPL-2.1", "https://ftp.gnu.org/gnu/glibc/",
    ),
    Component(
        "libstdc++ and libgcc", "C++'s library, and the compiler's", "GPL-3.0-or-later WITH GCC-exception-3.1",
        ("libstdc++.so.*", "libgcc_s.so.*", "libatomic.so.*"),
        ("{doc}/libstdc++6-arm64-cross/copyright", "{doc}/libstdc++6/copyright", "/usr/share/licenses/libgcc*/COPYING.RUNTIME"),
        "GPL-3", "https://ftp.gnu.org/gnu/gcc/",
    ),
)  # fmt: skip


def listing(names: Iterable[str], executorch: Path, pictures: Path | None, reads_pictures: bool) -> str:
    """The text of LICENSES for files of those names. BuildError where one of them, or a licence's text, is not known."""
    names = sorted(names)
    used = [c for c in COMPONENTS if any(matches(name, c.inside) for name in names)]
    if not reads_pictures:
        used = [c for c in used if "in t5g2-run" not in c.what]
    for name in names:
        if not matches(name, OURS) and not any(matches(name, c.inside) for c in used):
            raise BuildError(f"{name}: its licence is not known; add it to {Path(__file__).name}")
    places = {"executorch": license_folder(executorch), "pictures": (pictures or HERE) / "doc", "here": HERE,
              "doc": "/usr/share/doc"}  # fmt: skip
    width = max(len(c.name) for c in used)
    parts = ["What this package holds that is not t5g2's own: what it is, its licence, and the files that are or hold it.\n"]
    for c in used:
        inside = ", ".join(name for name in names if matches(name, c.inside))
        source = f"; source code: {c.source}" if c.source else ""
        parts.append(f"{c.name.ljust(width)}  {c.what}\n{' ' * width}  {c.license}{source}\n{' ' * width}  in {inside}\n")
    for c in used:
        parts += [heading(c.name), *([read(c, places)] if c.texts else [f"Under the {c.common} license, below.\n"])]
    for common in sorted({c.common for c in used if c.common}):
        parts += [heading(common), common_text(common)]
    return "\n".join(parts)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def heading(text: str) -> str:
    return f"{'=' * 80}\n{text}\n{'=' * 80}\n"


def read(component: Component, places: dict) -> str:
    """Its text, from the first place that has it."""
    tried = [text.format(**places) for text in component.texts]
    for pattern in tried:
        if found := sorted(Path("/").glob(pattern.lstrip("/"))):
            return found[0].read_text(encoding="utf-8", errors="replace").strip() + "\n"
    raise BuildError(f"{component.name}: no text of its licence; looked for {', '.join(tried)}")


def common_text(name: str) -> str:
    for pattern in COMMON:
        for path in (pattern.format(name), pattern.format(f"{name}-or-later")):
            if Path(path).is_file():
                return Path(path).read_text(encoding="utf-8").strip() + "\n"
    raise BuildError(f"{name}: no text of this licence in {', '.join(Path(p).parent.as_posix() for p in COMMON)}")


def license_folder(executorch: Path) -> Path:
    """Of an executorch package: in the metadata that lie beside it."""
    found = sorted(executorch.parent.glob("executorch-*.dist-info/licenses"))
    if not found:
        raise BuildError(f"{executorch.parent}: no executorch-*.dist-info/licenses; install executorch anew")
    return found[0]


def version_of_glibc(library: Path) -> str:
    found = re.search(rb"GNU C Library .*?version ([0-9.]+?)\.?\n", library.read_bytes())
    return found[1].decode() if found else "unknown"


def version_of_executorch() -> str:
    return metadata.version("executorch").split("+")[0]
