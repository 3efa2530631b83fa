"""The C++ tests of the kernels (tests/native): on this CPU, under sanitizers, and for ARM under emulation."""

import subprocess

import pytest
from emulated import ARM_CPUS, need_arm, on_arm
from native_programs import arm_executorch, program, run, run_thread_sanitized


def check(done: subprocess.CompletedProcess) -> str:
    """Passes where the test program did; returns the kernels it tested."""
    assert done.returncode == 0, done.stdout[-5000:]
    summary, kernels = done.stdout.splitlines()[-1].split("; kernels: ")
    assert summary.endswith(" 0 failures")
    return kernels


def test_kernels():
    assert check(run(program("kernels_test"))).startswith("portable")


def test_kernels_under_address_and_undefined_sanitizers():
    check(run(program("kernels_test", "asan"), "--small"))


def test_kernels_under_thread_sanitizer():
    check(run_thread_sanitized(program("kernels_test", "tsan"), "--small"))


@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_kernels_on_arm(cpu):
    need_arm()
    built = program("kernels_test", "aarch64", arm_executorch())
    assert check(run(*on_arm(cpu, built, "--small"))) == ARM_CPUS[cpu]
