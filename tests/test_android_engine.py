"""dev.t5g2.engine, the Android demo's binding: its JUnit tests against nano, and what C++ and Kotlin must agree on.

Here the binding's library is built over the engine that pip built. T5G2_RUN names another t5g2-run. With T5G2_ARM_ROOT, a
folder into which Debian's packages for arm64 openjdk-17-jre-headless and zlib1g were unpacked (dpkg -x), the tests run on ARM
too.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import android_tools as tools
import emulated
import native_programs
import pytest
from PIL import Image

from t5g2.runtime import bindings

ENGINE = tools.DEMO / "engine"
SOURCES = ENGINE / "src/main/kotlin"
CPP = ENGINE / "src/main/cpp"
NATIVE = "dev.t5g2.engine.Native"
PREFIX = "Java_" + NATIVE.replace(".", "_") + "_"
EXAMPLES = native_programs.REPOSITORY / "nano/examples"

# What t5g2-run is asked and Kotlin must answer alike: options as t5g2-run names them.
CASES = [
    {"prompt": "ISO date: the 3rd of March 2021"},
    {"prompt": "In digits: four thousand two hundred and seven"},
    {"prompt": "In digits: four thousand two hundred and seven", "beams": 4},
    {"prompt": "ISO date: the 3rd of March 2021", "max_new_tokens": 3},
    {"prompt": "ISO date: the 3rd of March 2021", "stop": "-"},
    {"prompt": "ISO date: the 3rd of March 2021", "prefix": "20"},
    {"prompt": "Grüße aus Köln 😀, am 3. März", "temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 7, "max_new_tokens": 24},
    {"prompt": "A long story", "repetition_penalty": 1.3, "max_new_tokens": 24},
    {"prompt": "<start_of_image> What number is shown?", "image": EXAMPLES / "number.png"},
    {"prompt": (EXAMPLES / "records.txt").read_text()},
]


def answer(bundle: Path, case: dict) -> str:
    program = os.environ.get("T5G2_RUN") or str(Path(sys.executable).with_name("t5g2-run"))
    words = [f"--{name.replace('_', '-')}={value}" for name, value in case.items()]
    done = subprocess.run([program, bundle, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.fixture(scope="module")
def fixtures(nano_bundle, tmp_path_factory):
    """The folder that Fixtures.kt describes."""
    folder = tmp_path_factory.mktemp("fixtures")
    bundle = nano_bundle("int4")
    (folder / "bundle").symlink_to(bundle)
    (folder / "bündel 😀 日本").symlink_to(bundle)
    altered = Path(shutil.copytree(bundle, folder / "altered"))
    with open(altered / "text.pte", "r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 1]))
    shutil.copy(EXAMPLES / "records.txt", folder)
    picture = Image.open(EXAMPLES / "number.png").convert("RGBA")
    (folder / "number.rgba").write_bytes(picture.tobytes())
    (folder / "number.properties").write_text(f"width={picture.width}\nheight={picture.height}\n")
    lines = []
    for case in CASES:
        fields = case | {"answer": answer(bundle, case)}
        lines.append("&".join(f"{name}={quote(str(value), safe='')}" for name, value in fields.items()))
    (folder / "answers.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """The binding and its tests, compiled."""
    junit = [*tools.classpath_of("junit4"), *tools.classpath_of("hamcrest")]
    return tools.kotlin_compile([SOURCES, ENGINE / "src/test/kotlin"], junit, tmp_path_factory.mktemp("classes"))


def build(folder: Path, engine: Path, *options: str) -> Path:
    """The folder with libt5g2_jni.so over that libt5g2.so."""
    headers = tools.java().resolve().parents[1] / "include"
    if not (headers / "jni.h").exists():
        pytest.skip(f"{headers}: no jni.h; on Debian: apt install openjdk-17-jdk-headless")
    with native_programs.alone(folder):
        configure = ["cmake", "-S", CPP, "-B", folder, "-G", "Ninja", f"-DJNI_HEADERS={headers}", f"-DT5G2_LIBRARY={engine}"]
        native_programs.succeed(*configure, *options)
        native_programs.succeed("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def library():
    return build(native_programs.BUILD / "jni", Path(os.environ.get("T5G2_LIBRARY") or bindings.LIBRARY))


def run_junit(classes: Path, library: Path, fixtures: Path, java: list | None = None) -> None:
    options = ["-Xcheck:jni", f"-Djava.library.path={library}", f"-Dt5g2.fixtures={fixtures}", "-Dfile.encoding=UTF-8"]
    done = tools.junit([classes], [], options, java)
    assert done.returncode == 0, done.stdout
    assert re.search(r"OK \(\d\d tests\)", done.stdout), done.stdout
    assert "WARNING" not in done.stdout and "FATAL ERROR" not in done.stdout, done.stdout  # of -Xcheck:jni


def test_junit(classes, library, fixtures):
    run_junit(classes, library, fixtures)


def test_junit_on_arm(classes, fixtures):
    root = os.environ.get("T5G2_ARM_ROOT")
    if not root:
        pytest.skip("T5G2_ARM_ROOT names no folder with a JVM for arm64; under qemu the tests take minutes")
    emulated.need_arm()
    engine = native_programs.own_program("libt5g2.so", "aarch64", native_programs.arm_executorch())
    compilers = [f"-DCMAKE_{language}_COMPILER=aarch64-linux-gnu-{name}" for language, name in (("C", "gcc"), ("CXX", "g++"))]
    arm = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", *compilers]
    library = build(native_programs.BUILD / "jni-aarch64", engine, *arm)
    java = emulated.on_arm("cortex-a76", Path(root, "usr/lib/jvm/java-17-openjdk-arm64/bin/java"))
    run_junit(classes, library, fixtures, ["env", f"LD_LIBRARY_PATH={root}/lib/aarch64-linux-gnu", *java])


def test_a_library_that_is_not_there(classes, tmp_path):
    program = ["org.junit.runner.JUnitCore", "dev.t5g2.engine.MissingLibraryCheck"]
    done = tools.run_java([classes, *tools.junit_classpath()], program, [f"-Djava.library.path={tmp_path}"])
    assert "OK (1 test)" in done.stdout, done.stdout


# --- what C++ and Kotlin agree on ---


def declarations() -> list[str]:
    """The names of Native's functions that are implemented in C++."""
    return re.findall(r"\bexternal fun (\w+)\(", (SOURCES / NATIVE.replace(".", "/")).with_suffix(".kt").read_text())


def exported(library: Path) -> set[str]:
    done = subprocess.run(["nm", "--dynamic", "--defined-only", "--format=posix", library], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line.split()[0] for line in done.stdout.splitlines()}


def test_only_the_binding_is_visible(library):
    assert exported(library / "libt5g2_jni.so") == {PREFIX + name for name in declarations()}


C_TYPES = {
    "void": "void", "int": "jint", "long": "jlong", "float": "jfloat", "double": "jdouble", "boolean": "jboolean",
    "byte[]": "jbyteArray", "int[]": "jintArray", "long[]": "jlongArray", "float[]": "jfloatArray",
    "double[]": "jdoubleArray",
}  # fmt: skip


def test_functions_take_what_kotlin_gives_them(classes, tmp_path):
    """Prototypes made from the compiled class stand before t5g2_jni.cpp: a C function has only one."""
    javap = tools.java().with_name("javap")
    listing = subprocess.run([javap, "-p", "-cp", classes, NATIVE], capture_output=True, text=True, check=True).stdout
    lines = ["#include <jni.h>"]
    for result, name, body in re.findall(r"native (\S+) (\w+)\((.*)\);", listing):
        arguments = [C_TYPES.get(a, "jobjectArray" if a.endswith("[]") else "jobject") for a in body.split(", ") if a]
        types = ", ".join(["JNIEnv*", "jclass", *arguments])
        lines.append(f'extern "C" JNIEXPORT {C_TYPES[result]} JNICALL {PREFIX}{name}({types});')
    assert len(lines) == len(declarations()) + 1
    (tmp_path / "prototypes.h").write_text("\n".join(lines) + "\n")
    headers = tools.java().resolve().parents[1] / "include"
    include = [f"-I{folder}" for folder in (headers, headers / "linux", native_programs.REPOSITORY / "runtime/include")]
    check = [os.environ.get("CXX", "c++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *include]
    native_programs.succeed(*check, "-include", tmp_path / "prototypes.h", CPP / "t5g2_jni.cpp")


def test_options_and_their_defaults_are_the_header_s():
    text = (SOURCES / "dev/t5g2/engine/GenerationOptions.kt").read_text()
    ours = {}
    for name, value in re.findall(r"^    val (\w+): [^=]+ = (.+),$", text, re.MULTILINE):
        ours[re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)] = value
    defaults = bindings.GenerationOptions()
    bindings.library().t5g2_generation_defaults(defaults)
    fields = [
        name for name, *_ in bindings.GenerationOptions._fields_ if name != "size" and not re.search("_(length|count)$", name)
    ]
    assert {"prefix_text" if name == "prefix" else name for name in ours} == set(fields)
    numbers = {name: float(value.removesuffix("f")) for name, value in ours.items() if re.match("-?[0-9]", value)}
    assert numbers == {name: getattr(defaults, name) for name in numbers} and len(numbers) > 10
    assert (ours["early_stopping"], ours["suppress_unused"]) == ("false", "true")
    assert (defaults.early_stopping, defaults.suppress_unused) == (0, 1)


def test_pages_of_16_kilobytes(library):
    readelf = ["readelf", "--program-headers", "--wide", library / "libt5g2_jni.so"]
    listing = subprocess.run(readelf, capture_output=True, text=True, check=True).stdout
    alignments = {int(line.split()[-1], 16) for line in listing.splitlines() if line.split()[:1] == ["LOAD"]}
    assert alignments == {16384}
