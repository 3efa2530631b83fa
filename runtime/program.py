"""Loads and calls ExecuTorch methods. The one module of the reference runner that touches ExecuTorch.

It binds to the extension under `executorch.runtime` and not to that module itself, which also imports the whole export
stack: 1.7 s instead of 4.7 s to start (torch's own 1.7 s included; Xeon, 2 cores, busy, 2026-11-22).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from pathlib import Path

import torch
from executorch.extension.pybindings import _C

from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.native import library as native_library

_thread_pool = ctypes.CDLL(_C.__file__)["_ZN10executorch9extension10threadpool15get_pthreadpoolEv"]  # get_pthreadpool()
_thread_pool.restype = ctypes.c_void_p


def set_threads(threads: int) -> None:
    """Sets the size of ExecuTorch's thread pool, which all programs of the process share."""
    if threads < 1:
        raise UsageError(f"threads: {threads}; must be at least 1")
    with _hushed():
        _C._unsafe_reset_threadpool(threads)


class Method:
    """One method of a program file: tensors in, a flat list of tensors out, which are the program's own memory: the next
    call overwrites them."""

    def __init__(self, path: Path, program: _C.ExecuTorchProgram, name: str) -> None:
        self._path, self._program, self._name = path, program, name
        self._load()

    def _load(self) -> None:
        self._pool = _thread_pool()
        try:
            with _hushed():
                self._method = self._program.load_method(self._name)
        except RuntimeError as error:
            raise T5g2Error(f"{self._path}: no usable method {self._name} ({_line(error)}); export the bundle again") from error

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        if self._pool != _thread_pool():  # XNNPACK keeps the pool that it was loaded with; a change of threads frees that
            self._load()
        try:
            return self._method.call(inputs, clone_outputs=False)
        except RuntimeError as error:
            raise T5g2Error(
                f"{self._path.name}: {self._name} failed ({_line(error)}); export the bundle again, or report it"
            ) from error


class Program:
    """A mapped .pte file; methods are loaded on first use, which is when XNNPACK packs their weights."""

    def __init__(self, path: Path, native: bool = False) -> None:
        """native: the program calls our own operators. Raises T5g2Error naming the file where ExecuTorch does not take it."""
        if native:
            native_library()
        self._path = path
        self._methods: dict[str, Method] = {}
        try:
            with _hushed():
                _C._threadpool_get_thread_count()  # makes the pool, which logs, here and not at the first call
                self._program = _C._load_program(
                    str(path),
                    enable_etdump=False,
                    debug_buffer_size=0,
                    program_verification=_C.Verification.InternalConsistency,
                    data_path=None,
                )
        except RuntimeError as error:
            raise T5g2Error(f"{path}: ExecuTorch does not load it ({_line(error)}); export the bundle again") from error

    def method(self, name: str) -> Method:
        if name not in self._methods:
            self._methods[name] = Method(self._path, self._program, name)
        return self._methods[name]


def _hushed() -> contextlib.AbstractContextManager:
    """Drops what ExecuTorch logs through sys.stderr while it loads, such as failed look-ups of the CPU's model."""
    return contextlib.redirect_stderr(io.StringIO())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
