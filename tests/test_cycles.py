"""benchmarks/cycles.py finds the loops it is about, and knows what it counts."""

import importlib
import sys

import pytest
from emulated import need_arm
from native_programs import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))
cycles, loops = importlib.import_module("cycles"), importlib.import_module("loops")

# A product of a row in groups, as objdump shows it: an inner loop of four instructions in one of eight.
DISASSEMBLY = """
0000000000000000 <void t5g2::dot<4>(t5g2::DotArguments const&)>:
       0:      \tcbz\tx1, 0x24 <void t5g2::dot<4>(t5g2::DotArguments const&)+0x24>
       4:      \tmovi\tv0.2d, #0000000000000000
       8:      \tldp\tq1, q2, [x0], #32
       c:      \tsdot\tv0.4s, v1.16b, v3.4b[0]
      10:      \tsubs\tx2, x2, #8
      14:      \tb.ne\t0x8 <void t5g2::dot<4>(t5g2::DotArguments const&)+0x8>
      18:      \tscvtf\tv0.4s, v0.4s
      1c:      \tcbnz\tx3, 0x4 <void t5g2::dot<4>(t5g2::DotArguments const&)+0x4>
      20:      \tbl\t0x0 <void t5g2::dot<4>(t5g2::DotArguments const&)>
      24:      \tret
"""


def found() -> "loops.Loop":
    [(name, code)] = loops.functions(DISASSEMBLY).items()
    [loop] = loops.loops(name, code)
    return loop


def test_an_inner_loop_and_the_one_around_it():
    loop = found()
    assert [i.mnemonic for i in loop.body] == ["ldp", "sdot", "subs", "b.ne"]
    assert [i.mnemonic for i in loop.repeated(2)] == ["movi", *["ldp", "sdot", "subs", "b.ne"] * 2, "scvtf", "cbnz"]
    assert loops.counts(loop.body) == {"ldp": 1, "sdot": 1, "subs": 1, "b.ne": 1, "q": 2}
    assert [i.text for i in loop.body][2:] == ["subs x2, x2, #8", "b.ne #0"]


def test_issue_on_a55():
    """Two loads of 128 bits take four cycles, sdot and the branch's test one, the branch one."""
    assert cycles.a55_issue(found().body) == 4 + 1 + 1


def test_a_loop_is_known_by_its_instructions():
    has = cycles.Wanted("", ("sdot",), {"sdot": 1, "ushr": 0})
    assert cycles.find(has, [found()]) == found()
    assert cycles.find(cycles.Wanted("", ("sdot",), {"sdot": 2}), [found()]) is None


def test_the_loops_of_the_kernels():
    """All are there; no product takes fewer cycles than its CPU's peak allows; the table has a line for each."""
    need_arm()
    if not cycles.tools():
        pytest.skip("llvm-mca and llvm-objdump of LLVM 17 or newer are not installed; on Debian: apt install llvm-19")
    rows = cycles.rows(*cycles.tools(), cycles.built_objects())
    assert {row.kernels for row in rows} == set(cycles.WANTED) and len(rows) == 2 * sum(map(len, cycles.WANTED.values()))
    assert all(row.products <= row.cpu.peak * row.once.cycles * 1.01 for row in rows)
    assert cycles.table(rows).count("\n") == 1 + len(rows)
