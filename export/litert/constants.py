"""Writes the weight matrices into a converted .tflite file, in the place of the inputs that stood for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from t5g2.export.litert.matrices import Matrix
from t5g2.export.litert.verify import Expected
from t5g2.quant.schemes import QuantScheme, quantize_weight
from t5g2.runtime.errors import T5g2Error

_ALIGNMENT = 64  # of every constant in the file, for vector loads from the mapped file
_BLOCK = 1 << 24  # weights converted at a time
_ID = b"TFL3"
_MAX_INT4 = 7
_SMALLEST, _LARGEST = 2.0**-24, 65504.0  # that float16 holds, as LiteRT stores the scales of groups


def fill(program: Path, path: Path, matrices: list[Matrix]) -> dict[str, Expected]:
    """Writes `program` to `path` with constants where its signatures have inputs for matrices.

    A matrix is stored once, however many signatures use it, and none is in memory longer than it is written. Everything
    that is constant lies behind the flat part of the file, at multiples of 64 bytes. Returns what was written, by name.
    Raises T5g2Error where a weight is not finite, or too large for a scale of groups.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(program.read_bytes(), 0))
    contents = _Contents(model, schema)
    stored = {matrix.input: _StoredMatrix(matrix, contents, schema) for matrix in matrices}
    for signature in model.signatureDefs:
        graph = model.subgraphs[signature.subgraphIndex]
        given = {bytes(entry.name).decode(): entry for entry in signature.inputs}
        taken = {name: entry.tensorIndex for name, entry in given.items() if name in stored}
        for name, index in taken.items():
            stored[name].put(graph, index)
        graph.inputs = np.array([i for i in graph.inputs if i not in taken.values()], np.int32)
        signature.inputs = [entry for name, entry in given.items() if name not in taken]
    _drop_empty_buffers(model)
    contents.move_constants()
    with open(path, "wb") as file:
        contents.write(file)
    return {matrix.matrix.name: matrix.expected() for matrix in stored.values()}


def _drop_empty_buffers(model) -> None:
    """The converter gives each tensor one. Buffer 0 stands for all that are empty."""
    kept = {0: 0} | {entry.buffer: 0 for entry in model.metadata or []}
    kept |= {i: 0 for i, buffer in enumerate(model.buffers) if buffer.size or (buffer.data is not None and len(buffer.data))}
    kept = {old: new for new, old in enumerate(sorted(kept))}
    model.buffers = [model.buffers[old] for old in kept]
    for holder in [tensor for graph in model.subgraphs for tensor in graph.tensors] + (model.metadata or []):
        holder.buffer = kept.get(holder.buffer, 0)


class _StoredMatrix:
    """One matrix in the file: its buffer, and for groups that of its scales."""

    def __init__(self, matrix: Matrix, contents: _Contents, schema) -> None:
        self.matrix, self.schema = matrix, schema
        self.hash, self.scales = hashlib.sha256(), np.array([])
        (rows, columns), scheme = matrix.shape, matrix.scheme
        self.buffer = contents.add(rows * columns * scheme.bits // 8, self._values)
        if scheme.group_size:
            self.scales = np.zeros((rows, columns // scheme.group_size), np.float16)
            self.scale_buffer = contents.add(self.scales.nbytes, lambda: iter([self.scales]))
        elif scheme.quantized:
            self.scales, self.zero_points = np.zeros(rows, np.float32), np.zeros(rows, np.int64)

    def put(self, graph, index: int) -> None:
        """Makes a constant of tensor `index`, which was an input."""
        types, scheme, tensor = self.schema.TensorType, self.matrix.scheme, graph.tensors[index]
        tensor.name, tensor.buffer = self.matrix.name, self.buffer
        tensor.type = {4: types.INT4, 8: types.INT8, 32: types.FLOAT32}[scheme.bits]
        if not scheme.quantized:
            return
        tensor.quantization = self.schema.QuantizationParametersT()
        if not scheme.group_size:
            tensor.quantization.scale, tensor.quantization.zeroPoint = self.scales, self.zero_points
            return
        scales = self.schema.TensorT(
            name=f"{self.matrix.name} scales", shape=np.array(self.scales.shape, np.int32), type=types.FLOAT16
        )
        scales.buffer = self.scale_buffer
        graph.tensors.append(scales)
        tensor.quantization.detailsType = self.schema.QuantizationDetails.BlockwiseQuantization
        tensor.quantization.details = self.schema.BlockwiseQuantizationT(
            scales=len(graph.tensors) - 1, zeroPoints=-1, blockSize=scheme.group_size
        )

    def expected(self) -> Expected:
        """What was written."""
        return Expected(self.hash.hexdigest(), self.scales.reshape(-1))

    def _values(self) -> Iterator[np.ndarray]:
        weight, scheme = self.matrix.read(), self.matrix.scheme
        if scheme.quantized:
            weight, scales = quantize_weight(weight, scheme, self.matrix.name)
            self.scales[:] = stored_scales(scales, scheme, self.matrix.name)
        for rows in weight.split(max(1, _BLOCK // weight.shape[1])):
            block = np.ascontiguousarray(stored_values(rows, scheme))
            self.hash.update(block)
            yield block


def stored_values(values: torch.Tensor, scheme: QuantScheme) -> np.ndarray:
    """values: [N, K], int8 or of a float32 scheme any float -> as a file has them: float32 or int8 [N, K], or two integers in
    a uint8, the first in the low half, [N, K / 2]."""
    if not scheme.quantized:
        return values.to(torch.float32).numpy()
    data = values.numpy()
    if scheme.bits == 8:
        return data
    return ((data[:, 0::2] & 15) | (data[:, 1::2] << 4)).view(np.uint8)


def stored_scales(scales: torch.Tensor, scheme: QuantScheme, name: str) -> np.ndarray:
    """scales: float32 [N, groups] -> as a file has them, float32 [N] per channel or float16 [N, groups].

    A float16 holds the 8 bits of a bfloat16's significand from 1.5e-5 up; smaller scales are rounded, and none to 0, which
    LiteRT refuses. Raises T5g2Error, in the name of `name`, for one that float16 does not reach.
    """
    if not scheme.group_size:
        return scales.numpy().reshape(-1)
    if scales.max() > _LARGEST:
        raise T5g2Error(
            f"{name}: weights up to {scales.max() * _MAX_INT4:.3g} need larger scales than LiteRT stores; "
            "check the checkpoint, or use --quant int8"
        )
    return scales.clamp(min=_SMALLEST).to(torch.float16).numpy()


class _Contents:
    """What lies behind the flat part of a file: buffers in the order in which they were added."""

    def __init__(self, model, schema) -> None:
        self.model, self.schema = model, schema
        self.writers: list[tuple[object, Callable[[], Iterator[np.ndarray]]]] = []

    def add(self, size: int, blocks: Callable[[], Iterator[np.ndarray]], buffer=None) -> int:
        """A buffer of `size` bytes, which `blocks` makes when it is written. Returns its index."""
        if buffer is None:
            buffer = self.schema.BufferT()
            self.model.buffers.append(buffer)
        buffer.data, buffer.offset, buffer.size = None, 2, size  # any offset from 2 on is one
        self.writers.append((buffer, blocks))
        return len(self.model.buffers) - 1

    def move_constants(self) -> None:
        """Everything that tensors hold in the flat part, where nothing is aligned, goes behind it."""
        for index in {tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors}:
            buffer = self.model.buffers[index]
            if buffer.data is not None and len(buffer.data):
                self.add(len(buffer.data), lambda data=buffer.data: iter([data]), buffer)

    def write(self, file) -> None:
        # Scales are known once the integers are written, behind a flat part whose size depends on their number only.
        size = end = len(self._flat())
        for buffer, blocks in self.writers:
            end = buffer.offset = -(-end // _ALIGNMENT) * _ALIGNMENT
            file.seek(end)
            for block in blocks():
                end += file.write(block.data)
            assert end == buffer.offset + buffer.size, "a buffer of another size than announced"
        flat = self._flat()
        assert len(flat) == size, "the flat part changed its size"
        file.seek(0)
        file.write(flat)

    def _flat(self) -> bytearray:
        import flatbuffers

        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), _ID)
        return builder.Output()
