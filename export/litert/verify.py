"""Checks a written .tflite file: its integers are those of `quant/`, and each matrix is in it once."""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from t5g2.quant.schemes import QuantScheme
from t5g2.runtime.errors import T5g2Error

_SAME_SCALE = 1e-6  # relative, of float32


@dataclass
class Expected:
    """The matrices that a file should hold: name and scales, float32 [N, groups], by the hash of their integers."""

    matrices: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, values: torch.Tensor, scales: torch.Tensor, scheme: QuantScheme) -> None:
        """values: int8 [N, K]; scales: float32 [N, groups]."""
        data = values.numpy()
        if scheme.bits == 4:
            low, high = data[:, 0::2] & 15, data[:, 1::2] & 15
            data = (low | (high << 4)).astype(np.uint8)
        self.matrices[_hash(data.tobytes())] = name, scales.numpy()


def check(path: Path, expected: Expected) -> None:
    """Raises T5g2Error where the quantized matrices of the file are not exactly the expected ones, once each."""
    found = Counter()
    for key, scales in quantized_matrices(path):
        name, right = expected.matrices.get(key, (None, None))
        if name is None:
            raise T5g2Error(f"{path.name}: a quantized matrix of it is none of the model's; report it")
        if not _equal(scales, right.flatten()):
            raise T5g2Error(f"{path.name}: {name} has other scales than its scheme gives; report it")
        found[key] += 1
    for key, (name, _) in expected.matrices.items():
        if found[key] != 1:
            raise T5g2Error(f"{path.name}: {name} is in it {found[key]} times with the integers of its scheme; report it")


def quantized_matrices(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Of each buffer that holds one: the hash of its integers, and its scales, one after another."""
    from ai_edge_litert import schema_py_generated as schema

    types = schema.TensorType.INT8, schema.TensorType.INT4
    seen = set()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = schema.Model.GetRootAs(data, 0)
        for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
            for tensor in map(graph.Tensors, range(graph.TensorsLength())):
                if tensor.Type() not in types or tensor.Buffer() in seen:
                    continue
                seen.add(tensor.Buffer())
                if content := _content(model.Buffers(tensor.Buffer()), data):
                    yield _hash(content), _scales(model, graph, tensor, data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _equal(scales: np.ndarray, right: np.ndarray) -> bool:
    """Up to one factor for all: the converter multiplies a matrix by the number that its product is multiplied by."""
    if scales.shape != right.shape:
        return False
    factors = scales.astype(np.float64) / right
    return np.ptp(factors) <= _SAME_SCALE * factors[0]


def _content(buffer, data: mmap.mmap) -> bytes:
    """What a constant's buffer holds, in the flat part or, of a large model, behind it."""
    if buffer.Offset() > 1:
        return data[buffer.Offset() : buffer.Offset() + buffer.Size()]
    return buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""


def _scales(model, graph, tensor, data: mmap.mmap) -> np.ndarray:
    from ai_edge_litert import schema_py_generated as schema

    quantization = tensor.Quantization()
    if quantization.DetailsType() != schema.QuantizationDetails.BlockwiseQuantization:
        return quantization.ScaleAsNumpy().copy()
    block = schema.BlockwiseQuantization()
    block.Init(quantization.Details().Bytes, quantization.Details().Pos)
    return np.frombuffer(_content(model.Buffers(graph.Tensors(block.Scales()).Buffer()), data), np.float16)
