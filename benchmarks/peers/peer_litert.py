"""LiteRT with XNNPACK on the graphs of model.py: int8 per channel or int4 in blocks of 32, dynamic activations.

encode: source tokens a second, 512 tokens, with the cross keys and values. decode: generated tokens a second at source 512
and target positions from 256, all logits computed; each cache is one buffer, input and output, updated in the graph.
"""

import time
from importlib import metadata
from pathlib import Path

import common
import numpy as np

QUANTS = ("int4", "int8")
GRAPHS = ("encoder", "decoder")
OUTPUTS_FIRST = True  # the layout its matrix product packs faster
XNNPACK_FLAGS = 0x1 | 0x2 | 0x8 | 0x40  # int8, uint8, products of two activations, latest operators; never 0x4, all in fp16


def prepare(models: Path) -> None:
    for name in GRAPHS:
        targets = {quant: models / f"litert-{name}-{quant}.tflite" for quant in QUANTS}
        plain = models / f"litert-{name}.tflite"
        if not plain.exists() and all(path.exists() for path in targets.values()):  # it goes when all are finished
            continue
        export(name, plain)
        for quant, target in targets.items():
            quantize(plain, quant, target)
        for target in targets.values():
            packed(target).unlink(missing_ok=True)  # XNNPACK would not notice that it belongs to another model
            load(target, 1)  # writes it
        plain.unlink()


def export(name: str, path: Path) -> None:
    import litert_torch
    import model
    import torch

    if name == "encoder":
        module, example = model.Encoder(), (torch.randn(common.SOURCE, common.HIDDEN),)
    else:
        module, (x, rotary, mask, *caches) = caching_step(), model.decoder_example(OUTPUTS_FIRST)
        example = (x, rotary, mask, torch.tensor(0, dtype=torch.int32), *caches)
    litert_torch.convert(module.eval(), example, lightweight_conversion=True).export(str(path))


def caching_step():
    """The decoder step with one more input, the slot to write to, and the caches as outputs in place of what is new."""
    import model
    import torch
    from litert_torch.generative.custom_ops.dynamic_update_slice import dynamic_update_slice

    class CachingStep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = model.DecoderStep(OUTPUTS_FIRST)

        def forward(self, x, rotary, mask, slot, *caches):
            logits, new = self.step(x, rotary, mask, *caches)
            zero = torch.zeros_like(slot)
            new = new.split(1)  # each [1, head_dim]
            keys = [dynamic_update_slice(old, row, [slot, zero]) for old, row in zip(caches[: common.LAYERS], new)]
            values = zip(caches[common.LAYERS :], new[common.LAYERS :])
            return logits, *keys, *(dynamic_update_slice(old, row.t(), [zero, slot]) for old, row in values)

    return CachingStep()


def quantize(source: Path, quant: str, target: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    recipes = {"int8": recipe.dynamic_wi8_afp32, "int4": recipe.dynamic_wi4b32_afp32}
    quantizer.Quantizer(str(source), recipes[quant]()).quantize().export_model(str(target), overwrite=True)


def load(graph: Path, threads: int):
    """Compiles a graph for the CPU. Packed weights are kept in a file beside it: written the first time, then mapped."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, Options

    cpu = CpuOptions(num_threads=threads, xnnpack_flags=XNNPACK_FLAGS, xnnpack_weight_cache_path=str(packed(graph)))
    return CompiledModel.from_file(str(graph), options=Options(HardwareAccelerator.CPU, cpu_options=cpu))


def packed(graph: Path) -> Path:
    return graph.with_suffix(".packed")


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    graphs = [args.models / f"litert-{name}-{args.quant}.tflite" for name in GRAPHS]
    files = graphs + [packed(graph) for graph in graphs]
    common.read_once(files)
    before_mb = common.memory_mb()

    start = time.perf_counter()
    encoder, decoder = (load(graph, args.threads) for graph in graphs)
    load_s = time.perf_counter() - start

    encoder_inputs, encoder_outputs = encoder.create_input_buffers(0), encoder.create_output_buffers(0)
    encoder_inputs[0].write(np.random.default_rng(0).standard_normal((common.SOURCE, common.HIDDEN), np.float32))
    encode_runs = common.rates(lambda: encoder.run_by_index(0, encoder_inputs, encoder_outputs), common.SOURCE, args.runs)

    inputs = common.DecoderInputs(OUTPUTS_FIRST)
    x, rotary, mask, slot, *caches = buffers = decoder.create_input_buffers(0)
    for buffer, array in zip((x, rotary, mask, *caches), inputs.arrays.values()):
        buffer.write(array)
    logits = decoder.create_output_buffers(0)[0]

    def step(position: int) -> None:
        inputs.move_to(position)
        rotary.write(inputs.arrays["rotary"])
        mask.write(inputs.arrays["mask"])
        slot.write(np.array([common.SOURCE + position], np.int32))
        decoder.run_by_index(0, buffers, [logits, *caches])

    decode_runs = common.decode_rates(step, args.runs)
    common.report(
        args,
        peer="LiteRT",
        version=metadata.version("ai-edge-litert"),
        encode_runs=encode_runs,
        decode_runs=decode_runs,
        load_s=load_s,
        resident_mb=common.memory_mb() - before_mb,
        files=files,
        settings={
            "int4": "blocks of 32, bf16 scales",
            "int8": "per channel",
        }[args.quant]
        + ", dynamic activations; CompiledModel, XNNPACK with weight cache (the second copy in file MB); "
        + common.GRAPHS_LEAVE_OUT,
    )


if __name__ == "__main__":
    main()
