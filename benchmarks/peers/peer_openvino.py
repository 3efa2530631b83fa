"""OpenVINO on the graphs of model.py: int4 weights in groups of 32 (nncf), or int8 per channel.

encode: source tokens a second, 512 tokens, with the cross keys and values. decode: generated tokens a second at source 512
and target positions from 256, all logits computed; inputs and outputs are the caller's arrays, bound once.
"""

import time
from pathlib import Path

import common
import numpy as np

QUANTS = ("int4", "int8")
GRAPHS = ("encoder", "decoder")
OUTPUTS_FIRST = False
PRECISION = (
    {},
    {"INFERENCE_PRECISION_HINT": "f32"},
)  # encoder: the default, bf16 where the CPU has AMX; one row: f32 is faster


def prepare(models: Path) -> None:
    import model
    import openvino
    import torch

    for name in GRAPHS:
        targets = {quant: models / f"openvino-{name}-{quant}.xml" for quant in QUANTS}
        if all(path.exists() for path in targets.values()):
            continue
        if name == "encoder":
            module, example = model.Encoder(), (torch.randn(common.SOURCE, common.HIDDEN),)
            shapes = [("x", (common.SOURCE, common.HIDDEN))]
        else:
            module, example = model.DecoderStep(OUTPUTS_FIRST), model.decoder_example(OUTPUTS_FIRST)
            shapes = common.decoder_inputs(OUTPUTS_FIRST)
        for quant, path in targets.items():
            program = torch.export.export(module.eval(), example)
            graph = openvino.convert_model(program)
            for port, (input_name, _) in zip(graph.inputs, shapes):
                port.get_tensor().set_names({input_name})
            graph.reshape(dict(shapes))  # conversion leaves them dynamic, which costs speed
            save(compress(graph, quant), path)


def compress(graph, quant: str):
    import nncf

    if quant == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32, ratio=1.0, all_layers=True)


def save(graph, path: Path) -> None:
    import openvino

    unfinished = path.with_name(f"unfinished-{path.name}")
    openvino.save_model(graph, unfinished, compress_to_fp16=False)
    unfinished.with_suffix(".bin").rename(path.with_suffix(".bin"))
    unfinished.rename(path)


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    graphs = [args.models / f"openvino-{name}-{args.quant}.xml" for name in GRAPHS]
    files = graphs + [path.with_suffix(".bin") for path in graphs]
    common.read_once(files)
    before_mb = common.memory_mb()

    start = time.perf_counter()
    import openvino

    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": args.threads}
    encoder, decoder = (
        core.compile_model(path, "CPU", {**options, **extra}).create_infer_request() for path, extra in zip(graphs, PRECISION)
    )
    load_s = time.perf_counter() - start

    source = np.random.default_rng(0).standard_normal((common.SOURCE, common.HIDDEN), np.float32)
    encoder.set_input_tensor(openvino.Tensor(source, shared_memory=True))
    encode_runs = common.rates(encoder.infer, common.SOURCE, args.runs)

    inputs = common.DecoderInputs(OUTPUTS_FIRST)
    logits = np.empty((1, common.VOCAB), np.float32)
    new = np.empty((2 * common.LAYERS, common.HEAD_DIM), np.float32)
    for name, array in inputs.arrays.items():
        decoder.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    for index, array in enumerate((logits, new)):
        decoder.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))

    def step(position: int) -> None:
        inputs.move_to(position)
        decoder.infer()
        inputs.store(position, new)

    decode_runs = common.decode_rates(step, args.runs)
    common.report(
        args,
        peer="OpenVINO",
        version=openvino.__version__,
        encode_runs=encode_runs,
        decode_runs=decode_runs,
        load_s=load_s,
        resident_mb=common.memory_mb() - before_mb,
        files=files,
        settings={"int4": "nncf INT4_SYM, groups of 32, all layers", "int8": "nncf INT8_SYM, per channel"}[args.quant]
        + "; encoder in the CPU's default precision (bf16 with AMX), decoder in f32; "
        + common.GRAPHS_LEAVE_OUT,
    )


if __name__ == "__main__":
    main()
