"""ONNX Runtime on the graphs of model.py: int8 (dynamic, per channel) or 4 bit (MatMulNBits, blocks of 32).

encode: source tokens a second, 512 tokens, with the cross keys and values. decode: generated tokens a second at source 512
and target positions from 256, all logits computed; inputs and outputs bound once.
"""

import time
from pathlib import Path

import common
import numpy as np

QUANTS = ("int8", "int4")
GRAPHS = ("encoder", "decoder")
OUTPUTS_FIRST = False  # the layout its matrix product packs faster


def prepare(models: Path) -> None:
    for name in GRAPHS:
        targets = {quant: models / f"onnx-{name}-{quant}.onnx" for quant in QUANTS}
        plain = models / f"onnx-{name}.onnx"
        if not plain.exists() and all(path.exists() for path in targets.values()):  # it goes when all are finished
            continue
        export(name, plain)
        quantize_int8(plain, targets["int8"])
        quantize_int4(plain, targets["int4"])
        plain.unlink()


def export(name: str, path: Path) -> None:
    import model
    import torch
    from onnxruntime.quantization.onnx_model import ONNXModel

    if name == "encoder":
        module, example, input_names = model.Encoder(), (torch.randn(common.SOURCE, common.HIDDEN),), ["x"]
    else:
        module, example = model.DecoderStep(OUTPUTS_FIRST), model.decoder_example(OUTPUTS_FIRST)
        input_names = [name for name, _ in common.decoder_inputs(OUTPUTS_FIRST)]
    program = torch.onnx.export(module.eval(), example, input_names=input_names, dynamo=True, verbose=False)
    proto = program.model_proto
    del proto.graph.value_info[:]  # shapes from before constants were folded; the quantizer would trip over them
    plain = ONNXModel(proto)
    plain.replace_gemm_with_matmul()  # the quantizer for 4 bits takes no Gemm
    plain.save_model_to_file(str(path))


def quantize_int8(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])


def quantize_int4(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    files = [args.models / f"onnx-{name}-{args.quant}.onnx" for name in GRAPHS]
    common.read_once(files)
    before_mb = common.memory_mb()

    start = time.perf_counter()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    encoder, decoder = (onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in files)
    load_s = time.perf_counter() - start

    source = {"x": np.random.default_rng(0).standard_normal((common.SOURCE, common.HIDDEN), np.float32)}
    encode_runs = common.rates(lambda: encoder.run(None, source), common.SOURCE, args.runs)

    inputs = common.DecoderInputs(OUTPUTS_FIRST)
    logits = np.empty((1, common.VOCAB), np.float32)
    new = np.empty((2 * common.LAYERS, common.HEAD_DIM), np.float32)
    binding = decoder.io_binding()
    for name, array in inputs.arrays.items():
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    for output, array in zip(decoder.get_outputs(), (logits, new)):
        binding.bind_output(output.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def step(position: int) -> None:
        inputs.move_to(position)
        decoder.run_with_iobinding(binding)
        inputs.store(position, new)

    decode_runs = common.decode_rates(step, args.runs)
    common.report(
        args,
        peer="ONNX Runtime",
        version=onnxruntime.__version__,
        encode_runs=encode_runs,
        decode_runs=decode_runs,
        load_s=load_s,
        resident_mb=common.memory_mb() - before_mb,
        files=files,
        settings={
            "int8": "quantize_dynamic, per channel, QInt8 weights",
            "int4": "MatMulNBits, block 32, symmetric, accuracy level 4 (int8 arithmetic)",
        }[args.quant]
        + "; "
        + common.GRAPHS_LEAVE_OUT,
    )


if __name__ == "__main__":
    main()
