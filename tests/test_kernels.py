"""The C++ tests of the kernels (tests/native): on this CPU, under sanitizers, and for ARM under emulation."""

import shutil
import subprocess

import pytest
from native_programs import ENVIRONMENT, arm_executorch, program, run, run_thread_sanitized

ARM_CPUS = {
    "cortex-a53": "portable neon",
    "cortex-a76": "portable neon neon_dotprod",
    "max,sme=off": "portable neon neon_dotprod neon_i8mm",  # qemu 7.2 multiplies int8 wrongly where it emulates SME
}


def need(*tools: str) -> None:
    for tool in tools:
        if not shutil.which(tool, path=ENVIRONMENT["PATH"]):
            pytest.skip(f"{tool} is not installed")


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
    need("aarch64-linux-gnu-g++", "qemu-aarch64-static")
    built = program("kernels_test", "aarch64", arm_executorch())
    done = run("qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu, built, "--small")
    assert check(done) == ARM_CPUS[cpu]
