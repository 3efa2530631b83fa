"""The tarball for arm64 Linux: what is in it, and that it runs where nothing else is, under emulation."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from emulated import need_arm, on_arm
from native_programs import ENVIRONMENT, REPOSITORY, arm_executorch, run

from t5g2 import runtime
from t5g2.nano import CHECKPOINT_DIR
from t5g2.runtime.package_linux import __main__ as command
from t5g2.runtime.package_linux import build, contents, licenses, pictures, tarball, toolchain
from t5g2.runtime.package_linux.elf import Elf, dotted
from t5g2.runtime.package_linux.errors import BuildError

HERE = Path(runtime.__path__[0]) / "t5g2-run"
EXAMPLES = CHECKPOINT_DIR.parent / "examples"
LOADER = "ld-linux-aarch64.so.1"
MOST = 25e6  # bytes
DATE, PICTURE = "ISO date: the 3rd of March 2021", "<start_of_image> What number is shown?"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The tarball, made by the command, and what it printed."""
    need_arm()
    folder = tmp_path_factory.mktemp("package")
    done = subprocess.run(
        [sys.executable, "-m", "t5g2.runtime.package_linux", "-o", folder], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(folder) == [Path(done.stdout.strip()).name]
    return SimpleNamespace(file=Path(done.stdout.strip()), err=done.stderr)


@pytest.fixture(scope="module")
def unpacked(made, tmp_path_factory):
    """Its folder, unpacked where a name has spaces, with a loader that emulates the CPU."""
    folder = tmp_path_factory.mktemp("two words")
    with tarfile.open(made.file) as tar:
        tar.extractall(folder, filter="data")
    [top] = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def board(unpacked, tmp_path_factory):
    """A copy of it with a loader that emulates a CPU; `board(command, words…)` runs one of its commands as a shell would."""
    folder = tmp_path_factory.mktemp("a board") / "t5g2"
    shutil.copytree(unpacked, folder)
    loader = folder / contents.SYSTEM / LOADER
    loader.rename(loader.with_name("loader"))
    loader.write_text(f'#!/bin/sh\nexec {shutil.which("qemu-aarch64-static")} -cpu cortex-a76 "$(dirname "$0")/loader" "$@"\n')
    loader.chmod(0o755)

    def run(name: str | Path, *words: object, **options) -> SimpleNamespace:
        options = {"capture_output": True, "text": True, "timeout": 300, "cwd": folder} | options
        done = subprocess.run([folder / name, *map(str, words)], **options)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    run.folder = folder
    return run


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- what is in it ---


def test_contents(made, unpacked):
    names = {str(path.relative_to(unpacked)) for path in files_in(unpacked)}
    assert names >= {
        "README.txt", "LICENSES", "bin/t5g2-run", "bin/t5g2-bench", "include/t5g2.h", "include/t5g2.hpp", "lib/libt5g2.so",
        "lib/libt5g2_ops.so", "lib/libexecutorch.so", f"lib/system/{LOADER}", "lib/system/libc.so.6",
        "examples/ask.c", "examples/ask.cpp", "examples/ask", "examples/ask-cpp",
    }  # fmt: skip
    version = command.version()
    assert made.file.name == f"t5g2-{version}-linux-arm64.tar.gz" and unpacked.name == f"t5g2-{version}-linux-arm64"
    runs = {str(path.relative_to(unpacked)) for path in files_in(unpacked) if os.access(path, os.X_OK)}
    programs = {*contents.PROGRAMS, *contents.EXAMPLES}
    assert runs == {f"bin/{name}" for name in contents.PROGRAMS} | {f"examples/{name}" for name in contents.EXAMPLES} | {
        *(f"lib/{name}" for name in programs), f"lib/system/{LOADER}",
    }  # fmt: skip


def test_sizes(made, unpacked):
    size = sum(path.stat().st_size for path in files_in(unpacked))
    assert made.file.stat().st_size < MOST and size < MOST
    assert made.err.splitlines()[-1].endswith(f": {made.file.stat().st_size / 1e6:.1f} MB, {size / 1e6:.1f} MB unpacked")


def test_no_library_is_missing(unpacked):
    there = {path.name: path for path in files_in(unpacked / "lib")}
    elves = {name: Elf(path) for name, path in there.items()}
    for elf in elves.values():
        assert elf.machine == "aarch64" and set(elf.needed) <= set(there), elf.path
    # And nothing is there that nobody asks for.
    wanted = {name for elf in elves.values() for name in elf.needed}
    assert set(there) == wanted | {*contents.PROGRAMS, *contents.EXAMPLES, LOADER}


def test_nothing_of_this_machine_is_inside(unpacked):
    folders = {str(REPOSITORY), sys.prefix, str(Path.home()), str(unpacked.parents[1])} - {"/"}
    for path in files_in(unpacked):
        found = [folder for folder in folders if folder.encode() + b"/" in path.read_bytes()]
        assert not found, f"{path.relative_to(unpacked)} has {found}"
    for name in (*contents.PROGRAMS, *contents.LIBRARIES, *contents.EXAMPLES):
        assert Elf(unpacked / "lib" / name).run_path == "$ORIGIN"


def test_every_library_has_its_licence(unpacked):
    text = (unpacked / "LICENSES").read_text()
    head, _, rest = text.partition("=" * 80)
    inside = {name for line in re.findall(r"^ +in (.+)$", head, re.MULTILINE) for name in line.split(", ")}
    others = {path.name for path in files_in(unpacked / "lib") if not path.name.startswith(("ask", "t5g2-", "libt5g2"))}
    assert others <= inside, others - inside
    for name in ("ExecuTorch", "cpuinfo", "pthreadpool", "FlatBuffers", "JSON for Modern C++", "GNU C library", "libstdc++"):
        assert name in head and f"\n{name}" in rest, name
    for phrase in ("GNU LESSER GENERAL PUBLIC LICENSE", "GCC RUNTIME LIBRARY EXCEPTION", "Apache License", "Niels Lohmann",
                   "Meta Platforms", "Georgia Institute of Technology"):  # fmt: skip
        assert phrase in rest, phrase
    pictures_read = contents.NO_PICTURES not in (unpacked / "lib/t5g2-run").read_bytes()
    assert ("libjpeg-turbo" in head, "zlib" in head) == (pictures_read, pictures_read)


def test_the_readme(unpacked):
    text = (unpacked / "README.txt").read_text()
    assert "from 3.7.0 on" in text and "{" not in text
    glibc = re.search(r"ask for glibc ([0-9.]+) and libstdc\+\+ of GLIBCXX_([0-9.]+) or newer", text.replace("\n", " "))
    ours = [Elf(path) for path in (unpacked / "lib").glob("lib*.so")]
    assert glibc[1] == dotted(max(version for elf in ours for version in elf.versions("GLIBC")))
    assert (contents.NO_PICTURES in (unpacked / "lib/t5g2-run").read_bytes()) == ("reads no picture files" in text)


def test_the_same_again(made, tmp_path):
    assert command.main(["-o", str(tmp_path)]) == 0
    [again] = tmp_path.iterdir()
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(made.file.read_bytes()).digest()


# --- that it runs ---


def here(*words: object) -> str:
    return subprocess.run([HERE, *map(str, words)], check=True, capture_output=True, text=True).stdout


def test_text_and_a_picture(board, nano_bundle):
    bundle = nano_bundle("int4")
    question = (bundle, "--prompt", DATE)
    answer = board("bin/t5g2-run", *question)
    assert (answer.code, answer.err) == (0, "") and answer.out == here(*question) == "2021-03-03\n"
    if contents.NO_PICTURES in (board.folder / "lib/t5g2-run").read_bytes():
        pytest.skip("built without libjpeg and libpng for arm64")
    question = (bundle, "--image", EXAMPLES / "number.png", "--prompt", PICTURE)
    answer = board("bin/t5g2-run", *question)
    assert (answer.code, answer.err) == (0, "") and answer.out == here(*question)


def test_jpeg(board, nano_bundle, tmp_path):
    if contents.NO_PICTURES in (board.folder / "lib/t5g2-run").read_bytes():
        pytest.skip("built without libjpeg and libpng for arm64")
    from PIL import Image

    Image.open(EXAMPLES / "number.png").convert("RGB").save(tmp_path / "number.jpg", quality=95)
    question = (nano_bundle("int4"), "--image", tmp_path / "number.jpg", "--prompt", PICTURE)
    answer = board("bin/t5g2-run", *question)
    assert (answer.code, answer.err) == (0, "") and answer.out == here(*question)


def test_the_examples(board, nano_bundle):
    for name in contents.EXAMPLES:
        answer = board(f"examples/{name}", nano_bundle("int4"), DATE)
        assert (answer.code, answer.out, answer.err) == (0, "2021-03-03\n", ""), name


def test_a_program_of_ones_own(board, nano_bundle):
    """As README.txt has it, with the system's C library, which here is the cross compiler's."""
    [line] = [line for line in (board.folder / "README.txt").read_text().splitlines() if line.startswith("    cc ")]
    compile_it = line.strip().replace("cc", "aarch64-linux-gnu-gcc", 1)
    subprocess.run(["sh", "-c", compile_it], check=True, cwd=board.folder)
    done = run(*on_arm("cortex-a76", board.folder / "ask", nano_bundle("int4"), DATE))
    assert (done.returncode, done.stdout) == (0, "2021-03-03\n")


def test_through_links_and_from_elsewhere(board, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/first").symlink_to(board.folder / "bin/t5g2-run")
    (tmp_path / "second").symlink_to("bin/first")
    version = f"t5g2-run {command.version()}\n"
    assert board(tmp_path / "second", "--version", cwd=tmp_path).out == version
    found = subprocess.run(["first", "--version"], capture_output=True, text=True, cwd="/",
                           env=os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CDPATH": "/usr"})  # fmt: skip
    assert (found.stdout, found.stderr) == (version, "")
    assert board(board.folder / "bin/t5g2-bench", "--version").out == f"t5g2-bench {command.version()}\n"


def test_a_folder_that_the_loader_cannot_take(unpacked, tmp_path):
    shutil.copytree(unpacked / "bin", tmp_path / "a:b/bin")
    done = subprocess.run([tmp_path / "a:b/bin/t5g2-run"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"t5g2-run: error: {tmp_path}/a:b: the loader takes no folder with")


def test_an_error_of_the_program(board, tmp_path):
    done = board("bin/t5g2-run", tmp_path / "gone", "--prompt", "x")
    assert done.code == 1 and done.err.startswith(f"t5g2-run: error: {tmp_path}/gone: no such bundle")


# --- what is wrong ---


def test_without_a_compiler(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(["-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr() == (
        "", "t5g2-package-linux: error: aarch64-linux-gnu-g++ is missing; on Debian: apt install g++-aarch64-linux-gnu\n"
    )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_on_an_arm_machine_its_own_compiler_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")
    tools = toolchain.toolchain("aarch64")
    assert not tools.cross and build.preset_for(tools) == "package"
    assert tools.tool("g++") == shutil.which("c++") and tools.tool("strip") == shutil.which("strip")
    assert build.executorch_for(tools) == build.folder_of("executorch")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"^c\+\+ is missing; on Debian: apt install g\+\+$"):
        tools.tool("g++")
    with pytest.raises(BuildError, match="^programs for x86_64 can't be built on aarch64; build them on such a machine$"):
        toolchain.toolchain("x86_64")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("FAILED: a.o\na.cpp:1: error: no such thing\nninja: stopped", "sh failed: a.cpp:1: error: no such thing"),
        ("W: slow\nE: Unable to fetch some archives\n", "sh failed: E: Unable to fetch some archives"),
        ("no terrors here\nlast", "sh failed: last"),
        ("", "sh failed: exit status 3"),
    ],
)
def test_a_tool_that_fails(output, message):
    with pytest.raises(BuildError) as error:
        toolchain.run(["sh", "-c", 'printf %s "$1"; exit 3', "sh", output])
    assert str(error.value) == message and error.value.__notes__ == [output]
    with pytest.raises(BuildError, match=r"^none/at-all: cannot be started \(no such file or directory\); install it$"):
        toolchain.run(["none/at-all"])


def test_without_a_checkout(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert command.main(["-o", str(tmp_path)]) == 1
    assert f"{tmp_path}: no checkout of t5g2, which building takes" in capsys.readouterr().err


def test_packages_that_cannot_be_had(monkeypatch, tmp_path):
    """It says why, and leaves nothing half-made."""
    apt = tmp_path / "bin/apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package libpng-dev' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    found, why = pictures.find(tmp_path / "build")
    assert found is None and why == "apt-get failed: E: Unable to locate package libpng-dev"
    assert os.listdir(tmp_path / "build") == []


def test_the_readme_says_that_there_are_no_pictures(unpacked, tmp_path):
    folder = tmp_path / "made"
    shutil.copytree(unpacked, folder)
    with open(folder / "lib/t5g2-run", "ab") as file:
        file.write(contents.NO_PICTURES)
    found = pictures.Found(None, "no network")
    given = contents.Inputs("1.2", toolchain.toolchain("aarch64"), folder, arm_executorch(), found)
    contents.write_texts(folder, given)
    text = (folder / "README.txt").read_text()
    assert "reads no picture files: libjpeg and libpng for aarch64 were not there (no network)." in text
    assert "libpng" not in (folder / "LICENSES").read_text().partition("=" * 80)[0]


def test_a_library_of_unknown_licence():
    with pytest.raises(BuildError, match="^libsecret.so.1: its licence is not known; add it to licenses.py$"):
        licenses.listing(["libc.so.6", "libsecret.so.1"], Path("/none"), None, True)


def test_a_licence_without_its_text(tmp_path):
    (tmp_path / "executorch-1.dist-info/licenses").mkdir(parents=True)
    with pytest.raises(BuildError, match="^ExecuTorch: no text of its licence; looked for .*/licenses/LICENSE"):
        licenses.listing(["libexecutorch.so"], tmp_path / "executorch", None, True)


def test_a_missing_library(tmp_path):
    need_arm()
    with pytest.raises(BuildError, match="^libnothing.so is missing: .*aarch64-linux-gnu-g.. does not have it"):
        toolchain.toolchain("aarch64").library("libnothing.so", [tmp_path])


# --- parts ---


def test_a_tarball_does_not_depend_on_who_makes_it(tmp_path):
    made = []
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        for file in ("b", "a") if number else ("a", "b"):
            (folder / "sub" / file).write_text(file)
            os.utime(folder / "sub" / file, (number * 1e6, number * 1e6))
        tarball.write(folder, "top", tmp_path / f"{name}.tar.gz")
        made.append((tmp_path / f"{name}.tar.gz").read_bytes())
    assert made[0] == made[1]
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert tar.getnames() == ["top/sub", "top/sub/a", "top/sub/b"]


def test_an_interrupted_tarball_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").touch()
    monkeypatch.setattr(tarball, "anonymous", lambda entry: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tarball.write(tmp_path / "folder", "top", tmp_path / "t.tar.gz")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)])
def test_not_an_elf_file(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BuildError, match=f"^{tmp_path}/file: not a 64-bit little-endian ELF file; build it anew$"):
        Elf(tmp_path / "file")


def test_a_damaged_elf_file(tmp_path):
    whole = HERE.read_bytes()
    for size in (64, 100, 500, 1000):
        (tmp_path / "file").write_bytes(whole[:size])
        with pytest.raises(BuildError, match=f"^{tmp_path}/file: a damaged ELF file; build it anew$"):
            Elf(tmp_path / "file")


def test_an_elf_file_of_this_machine(tmp_path):
    shutil.copy(HERE.with_name("libt5g2.so"), tmp_path / "libt5g2.so")
    elf = Elf(tmp_path / "libt5g2.so")
    assert {"libt5g2_ops.so", "libexecutorch.so", "libc.so.6"} <= set(elf.needed) and elf.versions("GLIBC") > [(2,)]
    elf.set_run_path("$ORIGIN")
    assert Elf(tmp_path / "libt5g2.so").run_path == "$ORIGIN" and Elf(tmp_path / "libt5g2.so").needed == elf.needed
    with pytest.raises(BuildError, match="no room for"):
        elf.set_run_path("x" * 1000)


def test_the_wheel_for_arm_is_there_once(tmp_path):
    need_arm()
    folder = arm_executorch()
    assert (folder / "share/cmake").is_dir() and arm_executorch() == folder
    assert licenses.license_folder(folder).is_dir()
