"""What the tarball holds: programs that start themselves with the loader and the libraries beside them, headers, examples."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from t5g2.runtime.package_linux import licenses
from t5g2.runtime.package_linux.build import ROOT
from t5g2.runtime.package_linux.elf import Elf, dotted
from t5g2.runtime.package_linux.pictures import Found
from t5g2.runtime.package_linux.toolchain import Toolchain, libraries, run

PROGRAMS = ("t5g2-run", "t5g2-bench")
LIBRARIES = ("libt5g2.so", "libt5g2_ops.so")
EXAMPLES = {"ask": ("ask.c", "gcc", "-std=c11"), "ask-cpp": ("ask.cpp", "g++", "-std=c++20")}
HEADERS = ("t5g2.h", "t5g2.hpp")
SYSTEM = "lib/system"  # apart from ours, so that a program of the reader's own can be linked with ours and the system's
NO_PICTURES = b"this build reads no picture files"  # what t5g2-run says without libjpeg and libpng

WRAPPER = """#!/bin/sh
# Starts lib/{program} with the loader and the libraries of this folder: nothing has to be installed.
file=$0
while [ -h "$file" ]; do
    link=$(readlink "$file")
    case $link in /*) file=$link ;; *) file=$(dirname "$file")/$link ;; esac
done
here=$(CDPATH= cd -- "$(dirname -- "$file")/.." && pwd -P) || exit 1
case $here in
    *:*) echo "{program}: error: $here: the loader takes no folder with a colon in its name; rename it" >&2; exit 1 ;;
esac
exec "$here/{system}/{loader}" --library-path "$here/lib:$here/{system}" "$here/lib/{program}" "$@"
"""

README = """t5g2 {version} for {machine} Linux
{rule}

Runs Google's T5Gemma 2 from bundles that t5g2-export makes. Nothing has to be installed: the loader and the C library are
inside ({system}), so any Linux from {kernel} on will do, whatever its C library, Android's included. In a chroot, mount /proc
and /sys.

    bin/t5g2-run BUNDLE --prompt 'ISO date: the 3rd of March 2021'
    bin/t5g2-run BUNDLE --image number.png --prompt '<start_of_image> What number is shown?'
    bin/t5g2-bench BUNDLE
    examples/ask BUNDLE 'ISO date: the 3rd of March 2021'

--help says the rest. The commands find this folder by themselves, through links too: link them from where you like.
On Android, push the folder to /data/local/tmp and say `sh bin/t5g2-run ...` where the system refuses to start a script.

{pictures}

Bundles of --backend native run, which is the default. Those of --backend xnnpack need libexecutorch_backend_xnnpack.so and
libexecutorch_kernels_optimized.so of the executorch {executorch} wheel for {machine} beside the libraries in lib.

Your own programs: include/t5g2.h or t5g2.hpp, lib/libt5g2.so, and your system's own C library, for which the
libraries ask for glibc {glibc} and libstdc++ of GLIBCXX_{glibcxx} or newer:

    cc -std=c11 -I include examples/ask.c -L lib -lt5g2 -Wl,-rpath-link,lib -Wl,-rpath,'$ORIGIN/lib' -o ask

Made with executorch {executorch}, glibc {glibc_inside}, {compiler}.
LICENSES lists what is inside that is not t5g2's own.
"""
PICTURES = "t5g2-run reads JPEG and PNG files."
WITHOUT_PICTURES = "This build of t5g2-run reads no picture files: libjpeg and libpng for {machine} were not there ({why})."


@dataclass(frozen=True)
class Inputs:
    """What the contents are made of."""

    version: str
    tools: Toolchain
    built: Path  # the build folder
    executorch: Path
    pictures: Found  # libjpeg and libpng, where they are not the machine's own


def make(folder: Path, given: Inputs) -> None:
    """Fills the folder."""
    for name in ("bin", "lib", SYSTEM, "include", "examples"):
        (folder / name).mkdir(parents=True)
    for name in (*PROGRAMS, *LIBRARIES):
        shutil.copyfile(given.built / name, folder / "lib" / name)
        strip(folder / "lib" / name, given.tools)
    for name in HEADERS:
        shutil.copyfile(ROOT / "runtime/include" / name, folder / "include" / name)
    add_libraries(folder, given)
    for name, (source, compiler, standard) in EXAMPLES.items():
        shutil.copyfile(ROOT / "examples" / source, folder / "examples" / source)
        compile_example(folder, name, [given.tools.tool(compiler), standard], source)
        strip(folder / "lib" / name, given.tools)
    for name in PROGRAMS:
        write_wrapper(folder / "bin" / name, given.tools)
    for name in EXAMPLES:
        write_wrapper(folder / "examples" / name, given.tools)
    write_texts(folder, given)
    for path in folder.rglob("*"):
        runs = path.name in (*PROGRAMS, *EXAMPLES, given.tools.loader)
        path.chmod(0o755 if path.is_dir() or runs else 0o644)


def add_libraries(folder: Path, given: Inputs) -> None:
    """ExecuTorch's beside ours, the compiler's apart."""
    programs = [folder / "lib" / name for name in (*PROGRAMS, *LIBRARIES)]
    ours = [folder / "lib", given.executorch / "lib"]
    for library in libraries(programs, ours, given.tools):
        if library.parent == given.executorch / "lib":
            shutil.copyfile(library, folder / "lib" / library.name)
        elif library.parent != folder / "lib":
            shutil.copyfile(library, folder / SYSTEM / library.name)


def strip(file: Path, tools: Toolchain) -> None:
    """Takes away symbols and the folders of the machine that it was built on."""
    run([tools.tool("strip"), "--strip-unneeded", file])
    elf = Elf(file)
    if elf.run_path:
        elf.set_run_path("$ORIGIN")


def compile_example(folder: Path, name: str, compiler: list[str], source: str) -> None:
    paths = ["-I", folder / "include", "-L", folder / "lib", f"-Wl,-rpath-link,{folder / 'lib'}"]
    run([*compiler, "-O2", *paths, folder / "examples" / source, "-lt5g2", "-Wl,-rpath,$ORIGIN", "-o", folder / "lib" / name])


def write_wrapper(file: Path, tools: Toolchain) -> None:
    file.write_text(WRAPPER.format(program=file.name, loader=tools.loader, system=SYSTEM))


def write_texts(folder: Path, given: Inputs) -> None:
    reads_pictures = NO_PICTURES not in (folder / "lib/t5g2-run").read_bytes()
    without = WITHOUT_PICTURES.format(machine=given.tools.machine, why=given.pictures.why_not or "see the build's warning")
    ours = [Elf(folder / "lib" / name) for name in (*LIBRARIES, *executorch_libraries(folder))]
    c_library = next((folder / SYSTEM).glob("libc.so.*"))
    title = f"t5g2 {given.version} for {given.tools.machine} Linux"
    readme = README.format(
        version=given.version,
        machine=given.tools.machine,
        rule="=" * len(title),
        system=SYSTEM,
        kernel=dotted(Elf(c_library).oldest_kernel() or (0,)),
        pictures=PICTURES if reads_pictures else without,
        executorch=licenses.version_of_executorch(),
        glibc=newest(ours, "GLIBC"),
        glibcxx=newest(ours, "GLIBCXX"),
        glibc_inside=licenses.version_of_glibc(c_library),
        compiler=run([given.tools.tool("g++"), "--version"]).splitlines()[0],
    )
    (folder / "README.txt").write_text(readme, encoding="utf-8")
    names = [path.name for part in ("lib", SYSTEM) for path in (folder / part).iterdir() if path.is_file()]
    text = licenses.listing(names, given.executorch, given.pictures.folder, reads_pictures)
    (folder / "LICENSES").write_text(text, encoding="utf-8")


def executorch_libraries(folder: Path) -> list[str]:
    return [path.name for path in sorted((folder / "lib").glob("libexecutorch*.so"))]


def newest(files: list[Elf], name: str) -> str:
    """The newest version of a library's symbols that the files ask for."""
    return dotted(max((version for elf in files for version in elf.versions(name)), default=(0,)))
