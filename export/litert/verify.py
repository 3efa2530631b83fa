"""Checks a written .tflite file: its matrices are those of the checkpoint in their schemes' integers, each in it once."""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t5g2.runtime.errors import T5g2Error


@dataclass(frozen=True)
class Expected:
    """What a file should hold of a matrix: the SHA-256 of its values as they are stored, and its scales, one after another."""

    sha256: str
    scales: np.ndarray


def check(path: Path, expected: dict[str, Expected]) -> None:
    """Raises T5g2Error where the matrices of the file are not exactly the expected ones, by name, once each."""
    found = Counter()
    for name, content in stored_matrices(path, expected.keys()):
        if name not in expected:
            raise T5g2Error(f"{path.name}: {name}, a quantized matrix of it, is none of the model's; report it")
        if content.sha256 != expected[name].sha256:
            raise T5g2Error(f"{path.name}: {name} has other values than its scheme gives; report it")
        if not np.array_equal(content.scales, expected[name].scales):
            raise T5g2Error(f"{path.name}: {name} has other scales than its scheme gives; report it")
        found[name] += 1
    for name in expected:
        if found[name] != 1:
            raise T5g2Error(f"{path.name}: {name} is in it {found[name]} times; report it")


def stored_matrices(path: Path, names) -> Iterator[tuple[str, Expected]]:
    """Of each buffer that a quantized tensor has, or one of `names`: the tensor's name and what is in the file."""
    from ai_edge_litert import schema_py_generated as schema

    types = schema.TensorType.INT8, schema.TensorType.INT4
    seen = set()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = schema.Model.GetRootAs(data, 0)
        for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
            for tensor in map(graph.Tensors, range(graph.TensorsLength())):
                name = tensor.Name().decode()
                if tensor.Buffer() not in seen and (tensor.Type() in types or name in names):
                    seen.add(tensor.Buffer())
                    yield name, Expected(_hash(model, tensor.Buffer(), data), _scales(model, graph, tensor, data))


def _hash(model, buffer: int, data: mmap.mmap) -> str:
    with memoryview(data) as view, view[_place(model.Buffers(buffer))] as content:
        return hashlib.sha256(content).hexdigest()


def _place(buffer) -> slice:
    """Where a constant's buffer lies in the file: all of them lie behind its flat part."""
    return slice(buffer.Offset(), buffer.Offset() + buffer.Size())


def _scales(model, graph, tensor, data: mmap.mmap) -> np.ndarray:
    from ai_edge_litert import schema_py_generated as schema

    quantization = tensor.Quantization()
    if quantization is None or quantization.DetailsType() != schema.QuantizationDetails.BlockwiseQuantization:
        return np.array([]) if quantization is None or quantization.ScaleIsNone() else quantization.ScaleAsNumpy().copy()
    block = schema.BlockwiseQuantization()
    block.Init(quantization.Details().Bytes, quantization.Details().Pos)
    return np.frombuffer(data[_place(model.Buffers(graph.Tensors(block.Scales()).Buffer()))], np.float16)
