"""Programs for ARM Linux under qemu-user, at a CPU of each kind of ARM kernels."""

import shutil
from pathlib import Path

import pytest
from native_programs import ENVIRONMENT

LIBRARIES = "/usr/aarch64-linux-gnu"  # the cross compiler's, in place of a device's own

# The CPU, and the kernels that it runs, best last.
ARM_CPUS = {
    "cortex-a53": "portable neon",
    "cortex-a76": "portable neon neon_dotprod",
    "max,sme=off": "portable neon neon_dotprod neon_i8mm",  # qemu 7.2 multiplies int8 wrongly where it emulates SME
}


def need_arm() -> None:
    """Skips the test where nothing can be built for ARM or run as ARM."""
    for tool, package in (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64-static", "qemu-user-static")):
        if not shutil.which(tool, path=ENVIRONMENT["PATH"]):
            pytest.skip(f"{tool} is not installed; on Debian: apt install {package}")


def on_arm(cpu: str, program: Path, *arguments: object) -> list:
    """The command that runs an ARM program on that CPU."""
    return ["qemu-aarch64-static", "-L", LIBRARIES, "-cpu", cpu, program, *arguments]
