"""The examples in C and C++, and what of t5g2.hpp they do not use, compiled as a user would."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import executorch
import pytest

from t5g2.runtime import bindings

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
INCLUDE = Path(bindings.__file__).with_name("include")
LIBRARY = Path(os.environ.get("T5G2_LIBRARY") or bindings.LIBRARY).parent
EXECUTORCH = Path(next(iter(executorch.__path__))) / "lib"
COMPILERS = {
    ".c": [os.environ.get("CC", "cc"), "-std=c11"],
    ".cpp": [os.environ.get("CXX", "c++"), "-std=c++20"],
}


def build(source: Path, program: Path) -> Path:
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    paths = [f"-I{INCLUDE}", f"-L{LIBRARY}", f"-Wl,-rpath,{LIBRARY}:{EXECUTORCH}"]
    command = [*COMPILERS[source.suffix], *strict, *paths, str(source), "-o", str(program), "-lt5g2"]
    subprocess.run(command, check=True, timeout=300)
    return program


def run(program: Path, *argv, stdout=subprocess.PIPE) -> SimpleNamespace:
    done = subprocess.run([program, *map(str, argv)], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120)
    return SimpleNamespace(code=done.returncode, out=done.stdout or "", err=done.stderr)


@pytest.fixture(scope="module", params=["ask.c", "ask.cpp"])
def ask(request, tmp_path_factory):
    return build(EXAMPLES / request.param, tmp_path_factory.mktemp("examples") / "ask")


def test_an_answer(ask, tiny_gqa):
    done = run(ask, tiny_gqa.bundle, "w184 w151 w187")
    assert (done.code, done.err) == (0, "")
    assert done.out == tiny_gqa.model.generate("w184 w151 w187", max_new_tokens=64).text + "\n"


def test_errors(ask, tiny_gqa, tmp_path):
    done = run(ask, tmp_path / "gone", "w184")
    assert (done.code, done.out) == (1, "") and done.err.startswith(f"ask: {tmp_path}/gone: no such bundle; ")
    done = run(ask, tiny_gqa.bundle, "w184 " * 400)
    assert (done.code, done.out) == (1, "") and done.err.startswith("ask: the source: ")
    done = run(ask)
    assert (done.code, done.out, done.err) == (2, "", "ask: give a bundle's folder and a question\n")
    with open("/dev/full", "w") as full:
        done = run(ask, tiny_gqa.bundle, "w184", stdout=full)
    assert (done.code, done.err) == (1, "ask: the answer could not be written\n")


def test_they_are_short():
    assert all(len(file.read_text().splitlines()) < 60 for file in EXAMPLES.iterdir())


def test_the_cpp_face(tiny_gqa, tmp_path):
    """Every function of t5g2.hpp, checked in C++: the program says what is wrong."""
    program = build(HERE / "native" / "face_check.cpp", tmp_path / "face_check")
    done = run(program, tiny_gqa.bundle, tmp_path / "a.session")
    assert (done.code, done.out, done.err) == (0, "", "")
