"""Loads the operator library, whose operators `native` programs call, into this process."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from executorch.extension.pybindings import _C  # noqa: F401  first: it brings the ExecuTorch that the library links to

from t5g2.runtime.errors import T5g2Error

LIBRARY = Path(__file__).with_name("libt5g2_ops.so")


@cache
def library() -> ctypes.CDLL:
    """The loaded library; its operators are registered. Raises T5g2Error where it was not built or does not load."""
    if not LIBRARY.is_file():
        raise T5g2Error(f"{LIBRARY}: missing; install t5g2 with pip on a machine with a C++ compiler, which builds it")
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise T5g2Error(f"{LIBRARY}: does not load ({error}); install t5g2 again beside its executorch") from None
    loaded.t5g2_kernels.restype = ctypes.c_char_p
    loaded.t5g2_available_kernels.restype = ctypes.POINTER(ctypes.c_char_p)
    loaded.t5g2_use_kernels.restype = ctypes.c_bool
    loaded.t5g2_use_kernels.argtypes = [ctypes.c_char_p]
    return loaded


def kernels() -> str:
    """The name of the kernels in use: portable, avx2, avx512vnni, amx, neon, neon_dotprod or neon_i8mm."""
    return library().t5g2_kernels().decode()


def available_kernels() -> list[str]:
    """Those that this CPU runs, best last. The environment variable T5G2_CPU takes one of them."""
    names = library().t5g2_available_kernels()
    found = []
    while names[len(found)]:
        found.append(names[len(found)].decode())
    return found


def use_kernels(name: str) -> None:
    """Changes the kernels in use, for tests and benchmarks; not while a program runs."""
    if not library().t5g2_use_kernels(name.encode()):
        raise T5g2Error(f"kernels {name}: this CPU runs {', '.join(available_kernels())}")
