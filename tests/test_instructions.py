"""Kernels and a decoder step execute no more instructions than recorded (benchmarks/instructions.json): counts do not vary as
times do."""

import importlib
import sys

import pytest
from native_programs import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))
instructions = importlib.import_module("instructions")


@pytest.mark.parametrize("kind", instructions.KINDS)
def test_no_more_instructions_are_executed_than_recorded(kind, nano_bundle):
    if lacking := instructions.missing(kind):
        pytest.skip(lacking)
    record, compiler = instructions.read_record(), instructions.compiler(kind)
    recorded_with = record["compiler"][instructions.architecture(kind)]
    if not instructions.same_major(recorded_with, compiler):
        pytest.skip(f"counts belong to a compiler: {recorded_with} recorded, this is {compiler}")
    bundles = {quantization: nano_bundle(quantization) for quantization in instructions.QUANTIZATIONS}
    found = instructions.problems(kind, record["counts"][kind], instructions.count(kind, bundles))
    assert not found, "\n".join([*found, "if that is meant: python benchmarks/instructions.py --update"])


def test_a_count_that_rose_by_more_than_three_percent_is_reported():
    recorded = {"linear": 100_000, "norm": 1000}
    assert instructions.problems("neon", recorded, {"linear": 102_000, "norm": 500}) == []
    [found] = instructions.problems("neon", recorded, {"linear": 104_000, "norm": 1000})
    assert found == "neon linear: 100000 instructions rose to 104000, 1.040 times"


def test_a_case_without_its_count_is_reported():
    assert instructions.problems("neon", {"linear": 1}, {"norm": 1}) == [
        "neon norm: not recorded",
        "neon linear: recorded, but no longer counted",
    ]


def test_counts_belong_to_a_major_version():
    assert instructions.same_major("GNU 12.2.0", "GNU 12.3.0")
    assert not instructions.same_major("GNU 12.2.0", "GNU 13.2.0")
    assert not instructions.same_major("GNU 12.2.0", "Clang 12.2.0")


def test_blocks_count_as_often_as_they_ran():
    log = b"""----------------
IN: main
0x0000400c20:  48 c7 44 24 18 7f 03 00  movq     $0x37f, 0x18(%rsp)
0x0000400c28:  00
0x0000400c29:  eb 05                    jmp      0x400c30

Trace 0: 0x7f0374000100 [0000000000000000/0000000000400c20/1040c0b3/00000200] main
----------------
IN: add
0x0000400c30:  c3                       retq

Trace 0: 0x7f0374000200 [0000000000000000/0000000000400c30/1040c0b3/00000200] add
Trace 0: 0x7f0374000100 [0000000000000000/0000000000400c20/1040c0b3/00000200] main
"""
    assert instructions.executed(log.splitlines(keepends=True)) == 2 + 1 + 2
