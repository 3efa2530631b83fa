"""The ctypes declarations against the header that they stand for, and finding the library."""

import ctypes
import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

from t5g2.runtime import arguments, bindings
from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.model import Options

INCLUDE = Path(bindings.__file__).with_name("include")
HEADER = re.sub(r"/\*.*?\*/", "", (INCLUDE / "t5g2.h").read_text(), flags=re.DOTALL)
COMPILER = os.environ.get("CXX", "c++")
STRUCTS = {
    "t5g2_programs": bindings.Programs,
    "t5g2_engine_options": bindings.EngineOptions,
    "t5g2_engine_info": bindings.EngineInfo,
    "t5g2_image": bindings.Image,
    "t5g2_source": bindings.Source,
    "t5g2_generation_options": bindings.GenerationOptions,
    "t5g2_token": bindings.Token,
    "t5g2_result": bindings.Result,
}


def fields_of_the_header() -> dict[str, list[str]]:
    """The fields of each struct, in order."""
    found = {}
    for body, name in re.findall(r"typedef struct \w+ \{([^}]*)\} (\w+);", HEADER):
        calls = re.compile(r"\(\*(\w+)\)\([^)]*\)")  # a pointer to a function is declared around its name
        declarations = [calls.sub(r"\1", d) for d in body.split(";") if d.strip()]
        found[name] = [re.search(r"(\w+)\s*$", part)[1] for d in declarations for part in d.split(",")]
    return found


def prototypes_of_the_header() -> dict[str, tuple[str, list[str]]]:
    """Of each function its result and the types of its arguments."""
    found = {}
    for result, name, body in re.findall(r"T5G2_API ([\w *]+?)\s*(t5g2_\w+)\(([^)]*)\);", HEADER):
        types = [] if body == "void" else [re.sub(r"\w+$", "", " ".join(a.split())).strip() for a in body.split(",")]
        found[name] = result.strip(), types
    return found


def ctype(declared: str):
    """The type that a result or an argument of the header has here."""
    plain = declared.replace("const ", "").strip()
    if plain in ("t5g2_engine*", "t5g2_session*", "t5g2_generation*"):
        return ctypes.c_void_p
    if plain in ("t5g2_engine**", "t5g2_session**", "t5g2_generation**"):
        return ctypes.POINTER(ctypes.c_void_p)
    if plain == "char*":
        return ctypes.c_char_p
    if plain.endswith("*"):
        return ctypes.POINTER(ctype(plain[:-1]))
    if plain in STRUCTS:
        return STRUCTS[plain]
    others = {"void": None, "t5g2_status": ctypes.c_int32, "size_t": ctypes.c_size_t}
    return others[plain] if plain in others else getattr(ctypes, f"c_{plain.removesuffix('_t')}")


def test_every_struct_of_the_header_is_declared():
    assert fields_of_the_header() == {name: [f[0] for f in struct._fields_] for name, struct in STRUCTS.items()}


def test_structs_lie_in_memory_as_the_compiler_lays_them(tmp_path):
    lines = []
    for name, struct in STRUCTS.items():
        lines.append(f'std::printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in struct._fields_:
            lines.append(f'std::printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), sizeof({name}::{field}));')
    source, program = tmp_path / "layout.cpp", tmp_path / "layout"
    source.write_text('#include <cstdio>\n#include "t5g2.h"\nint main() {\n' + "\n".join(lines) + "\n}\n")
    subprocess.run([COMPILER, f"-I{INCLUDE}", source, "-o", program], check=True)
    expected = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for name, struct in STRUCTS.items():
        found.append(f"{name} {ctypes.sizeof(struct)}")
        for field, *_ in struct._fields_:
            descriptor = getattr(struct, field)
            found.append(f"{name}.{field} {descriptor.offset} {descriptor.size}")
    assert found == expected


def test_every_function_of_the_header_is_declared():
    expected = {
        name: (ctype(result), [ctype(a) for a in types]) for name, (result, types) in prototypes_of_the_header().items()
    }
    assert len(expected) > 20 and bindings.PROTOTYPES == expected


def test_constants():
    values = dict(re.findall(r"(T5G2_(?:API_)?[A-Z_]+)\s*=?\s*(-?\d+)\b", HEADER))
    assert bindings.API_VERSION == int(values["T5G2_API_VERSION"])
    for name in ("OK", "DONE", "CANCELLED", "ERROR", "USAGE"):
        assert getattr(bindings, name) == int(values[f"T5G2_{name}"])
    names = {None: "NONE", "stop": "STOP", "length": "LENGTH", "cancelled": "CANCELLED"}
    assert {number: int(values[f"T5G2_FINISH_{names[r]}"]) for number, r in bindings.FINISH_REASONS.items()} == {
        number: number for number in range(4)
    }


def test_options_have_the_names_of_the_header():
    ours = set(signature(arguments.generation_options).parameters)
    suffix = "_(text|text_length|ids|id_count|strings|string_count)$"
    assert ours == {re.sub(suffix, "", field) for field in fields_of_the_header()["t5g2_generation_options"]} - {"size"}
    assert set(Options.__annotations__) == ours


def test_defaults_are_the_header_s():
    """What generation_options() sets without being told is what the library's own defaults are."""
    expected = bindings.GenerationOptions()
    bindings.library().t5g2_generation_defaults(expected)
    found = arguments.generation_options()
    for field, *_ in bindings.GenerationOptions._fields_:
        if field not in ("prefix_ids", "stop_ids", "stop_strings", "suppressed_ids"):  # empty, and not NULL
            assert getattr(found, field) == getattr(expected, field), field


def test_check():
    assert [bindings.check(status) for status in (bindings.OK, bindings.DONE, bindings.CANCELLED)] == [0, 1, 2]
    with pytest.raises(UsageError, match="^engine: is NULL$"):
        bindings.check(bindings.library().t5g2_engine_get_info(None, bindings.EngineInfo()))
    with pytest.raises(T5g2Error, match="no such bundle") as raised:
        bindings.new_handle("t5g2_engine_open", "t5g2_engine_free", b"/gone", None)
    assert not isinstance(raised.value, UsageError)


@pytest.fixture
def library_at(monkeypatch):
    """`library_at(path)`: what `library` says of the file."""

    def library_at(path):
        monkeypatch.setenv("T5G2_LIBRARY", str(path))
        return bindings.library.__wrapped__()

    return library_at


def stub(folder: Path, code: str) -> Path:
    (folder / "stub.cpp").write_text(code)
    subprocess.run([COMPILER, "-shared", "-fPIC", folder / "stub.cpp", "-o", folder / "stub.so"], check=True)
    return folder / "stub.so"


def test_a_missing_library(library_at, tmp_path):
    with pytest.raises(T5g2Error, match=r"gone\.so: missing; install t5g2 with pip on a machine with a C\+\+ compiler"):
        library_at(tmp_path / "gone.so")


def test_what_is_no_library_of_ours(library_at, tmp_path):
    (tmp_path / "text.so").write_bytes(b"not a library")
    for path in (tmp_path / "text.so", stub(tmp_path, "int other() { return 1; }")):
        with pytest.raises(T5g2Error, match=rf"{path.name}: does not load .*; install t5g2 again beside its executorch"):
            library_at(path)


def test_a_library_of_another_version(library_at, tmp_path):
    path = stub(tmp_path, 'extern "C" unsigned t5g2_api_version() { return 99; }')
    needed = bindings.API_VERSION
    with pytest.raises(T5g2Error, match=rf"stub\.so: of API version 99, and this t5g2 needs {needed}; install t5g2 again"):
        library_at(path)


def test_neither_torch_nor_executorch_is_imported():
    code = """
import sys, t5g2
assert "numpy" not in sys.modules
try:
    t5g2.load("/gone")
except t5g2.T5g2Error as error:
    assert "no such bundle" in str(error)
print({"torch", "executorch", "transformers", "tokenizers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n" and done.stderr == ""
