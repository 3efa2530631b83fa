"""Lowers traced programs to ExecuTorch files whose arithmetic runs on XNNPACK."""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.backend.compile_spec_schema import CompileSpec
from executorch.exir.backend.partitioner import DelegationSpec
from executorch.exir.passes import MemoryPlanningPass
from torch.export import ExportedProgram


class _Partitioner(XnnpackPartitioner):
    """XNNPACK with one graph pass instead of seventeen, and one decomposition instead of three.

    Each of those runs the whole graph through fake tensors, which was most of the lowering time; our modules are written so
    that none but the linear conversion has anything to do (no convolution, no pooling, no batch norm, short concatenations).
    """

    def __init__(self) -> None:
        super().__init__()
        self.delegation_spec = DelegationSpec("XnnpackBackend", [CompileSpec("dqlinear_partitioner", b"")])

    def ops_to_not_decompose(self, program: ExportedProgram):
        return [torch.ops.aten.linear.default], None


def lower(programs: dict[str, ExportedProgram], path: Path) -> dict[str, int]:
    """Writes `programs`, by method name, into one .pte file at `path`; constants that methods share are stored once.

    Inputs stay in the caller's memory: the K/V that a decoder step reads is not copied in.
    Returns the bytes of planned memory of each method at its largest shapes, beside what XNNPACK allocates as it runs.
    """
    partitioner = {name: [_Partitioner()] for name in programs}
    config = EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True)
    edge = to_edge_transform_and_lower(programs, partitioner=partitioner, compile_config=config)
    program = edge.to_executorch(
        ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(alloc_graph_input=False))
    )
    with open(path, "wb") as file:
        program.write_to_file(file)
    plans = program.executorch_program.execution_plan
    return {plan.name: sum(plan.non_const_buffer_sizes) for plan in plans}

