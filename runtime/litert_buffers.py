"""Memory of ours as the input and output buffers of a LiteRT model: nothing is copied in or out.

ai_edge_litert's own `TensorBuffer.create_from_host_memory` makes one-dimensional tensors only, so this calls LiteRT's C
function of that name, with the type that the model itself gives.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_size_t, c_void_p, py_object
from functools import cache
from pathlib import Path

import ai_edge_litert
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel, TensorBuffer

from t5g2.runtime.errors import T5g2Error

ALIGNMENT = 64  # of the memory, in bytes
_CAPSULE = c_char_p(b"LiteRtTensorBuffer")  # kept: a capsule points to its name
_TYPE_BYTES = 1024  # more than a LiteRtRankedTensorType has


@cache
def _litert() -> ctypes.CDLL:
    library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))
    library.LiteRtGetTensorBufferTensorType.argtypes = [c_void_p, c_void_p]
    library.LiteRtCreateTensorBufferFromHostMemory.argtypes = [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p]
    python = ctypes.pythonapi
    python.PyCapsule_New.restype, python.PyCapsule_New.argtypes = py_object, [c_void_p, c_char_p, c_void_p]
    python.PyCapsule_GetPointer.restype, python.PyCapsule_GetPointer.argtypes = c_void_p, [py_object, c_char_p]
    return library


class Buffers:
    """Makes buffers for the inputs and outputs of one signature of a model."""

    def __init__(self, model: CompiledModel, signature: str) -> None:
        self._model = model
        inputs, outputs = model.get_input_tensor_details(signature), model.get_output_tensor_details(signature)
        self.inputs, self.outputs = sorted(inputs), sorted(outputs)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: tuple(int(n) for n in tensor["shape"]) for name, tensor in (inputs | outputs).items()
        }
        self._types = {name: _type_of(model.create_input_buffer_by_name(signature, name)) for name in inputs}
        self._types |= {name: _type_of(model.create_output_buffer_by_name(signature, name)) for name in outputs}

    def bytes(self, name: str) -> int:
        """Of one tensor, whose elements are float32 or int32."""
        return 4 * int(np.prod(self.shapes[name]))

    def over(self, name: str, address: int) -> TensorBuffer:
        """A buffer over memory that the caller owns and that outlives it."""
        if address % ALIGNMENT:
            raise T5g2Error(f"{name}: its memory is not at a multiple of {ALIGNMENT} bytes; report it")
        made = c_void_p()
        status = _litert().LiteRtCreateTensorBufferFromHostMemory(
            self._types[name], address, self.bytes(name), None, ctypes.byref(made)
        )
        if status:
            raise T5g2Error(f"{name}: LiteRT does not take its memory (status {status}); report it")
        capsule = ctypes.pythonapi.PyCapsule_New(made, _CAPSULE, None)
        return TensorBuffer(capsule, self._model.environment)

    def new(self, name: str, dtype: type) -> tuple[np.ndarray, TensorBuffer]:
        """An array of the tensor's shape and the buffer over it."""
        memory = np.zeros(self.bytes(name) + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        array = memory[start : start + self.bytes(name)].view(dtype).reshape(self.shapes[name])
        return array, self.over(name, array.ctypes.data)


def _type_of(buffer: TensorBuffer) -> ctypes.Array:
    kind = (ctypes.c_uint8 * _TYPE_BYTES)()
    library = _litert()
    status = library.LiteRtGetTensorBufferTensorType(ctypes.pythonapi.PyCapsule_GetPointer(buffer.capsule, _CAPSULE), kind)
    if status:
        raise T5g2Error(f"LiteRT does not tell the type of a tensor (status {status}); report it")
    return kind
