"""dev.t5g2.demo.core, what the Android app does behind its screens: its JUnit tests, against local servers and nano."""

import re
import shutil

import android_tools as tools
import native_programs
import pytest
from test_android_engine import SOURCES as ENGINE_SOURCES
from test_android_engine import library  # noqa: F401  (a fixture)

from t5g2.benchmarks.cli import PROGRAM as BENCH

CORE = tools.DEMO / "core"


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """The engine's binding, and core with its tests: apart, as in the app, where core sees only what the binding shows."""
    engine = tools.kotlin_compile([ENGINE_SOURCES], [], tmp_path_factory.mktemp("engine"))
    needed = [engine, *tools.classpath_of("org.json"), *tools.classpath_of("junit4"), *tools.classpath_of("hamcrest")]
    sources = [CORE / "src/main/kotlin", CORE / "src/test/kotlin"]
    return [tools.kotlin_compile(sources, needed, tmp_path_factory.mktemp("core")), engine]


def test_junit(classes, library, nano_bundle, tmp_path):  # noqa: F811
    shutil.copytree(nano_bundle("int4"), tmp_path / "models/nano")
    properties = {
        "java.library.path": library,
        "t5g2.bundle": tmp_path / "models/nano",
        "t5g2.examples": native_programs.REPOSITORY / "nano/examples",
        "t5g2.bench": BENCH,
        "java.io.tmpdir": tmp_path,
        "java.awt.headless": "true",
        "file.encoding": "UTF-8",
    }
    options = [f"-D{name}={value}" for name, value in properties.items()]
    done = tools.junit(classes[:1], [*classes[1:], *tools.classpath_of("org.json")], options)
    assert done.returncode == 0, done.stdout
    assert re.search(r"OK \(\d\d\d tests\)", done.stdout), done.stdout
