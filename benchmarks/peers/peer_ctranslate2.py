"""CTranslate2 on T5Gemma 2's text half with random weights, int8 per row, the token table included.

encode: source tokens a second, 512 tokens, with the cross keys and values: the time from the request to its first token,
less that of its second token, which is one decoder step without them. decode: generated tokens a second at source 512 and
target positions from 256, greedy, all logits computed. It feeds a target prefix one token at a time, as slow as it
generates, so each timed run of 32 tokens is the end of a request of 288: this peer takes minutes.
"""

import os
import time
from pathlib import Path

import common
import numpy as np

QUANTS = ("int8",)
BOS, EOS, UNK = 2, 1, 3
FASTEST = {  # of what was tried, set before it is imported; a compute type other than int8 gives less
    "MKL_DISABLE_FAST_MM": "1",  # it frees and allocates its caches in each step: decoding gains 40 % on one core
    **({"CT2_FORCE_CPU_ISA": "AVX512"} if "avx512f" in Path("/proc/cpuinfo").read_text() else {}),  # encoding, 12 %
}
MOST_DECODE_RUNS = 2  # of half a minute each
WRONG = (
    "it has no sliding windows, so it is wrong past half a window of source (256 tokens) and from a window of target (512) on;"
    " in a batch it attends to the padding of shorter sources (tests/test_peer_ctranslate2.py)"
)


def prepare(models: Path) -> None:
    folder = models / "ctranslate2-int8"
    if folder.exists():
        return
    unfinished = models / "unfinished-ctranslate2-int8"
    random_converter().convert(str(unfinished), quantization="int8", force=True)
    unfinished.rename(folder)


def random_converter():
    """A converter of transformers' model with random weights; CTranslate2's own wants a tokenizer as well."""
    import random_t5gemma2
    import torch
    from ctranslate2.converters import Converter
    from ctranslate2.converters.transformers import T5Gemma2Loader

    class FromMemory(Converter):
        def _load(self):
            model = random_t5gemma2.build(torch.float32)
            with torch.no_grad():
                spec = T5Gemma2Loader().get_model_spec(model)
            tokens = list(map(str, range(common.VOCAB)))
            spec.register_source_vocabulary(tokens)
            spec.register_target_vocabulary(tokens)
            spec.config.bos_token = spec.config.decoder_start_token = str(BOS)
            spec.config.eos_token, spec.config.unk_token = str(EOS), str(UNK)
            spec.config.layer_norm_epsilon = 1e-6
            return spec

    return FromMemory()


def token_times(translator, source: list[str], steps: int) -> list[float]:
    """Decodes `steps` tokens greedily; returns the seconds from the request to each. No end token stops it."""
    times = []

    def on_token(_) -> bool:
        times.append(time.perf_counter() - start)
        return False  # go on

    start = time.perf_counter()
    translator.translate_batch(
        [source], beam_size=1, max_decoding_length=steps, min_decoding_length=steps, max_input_length=0, callback=on_token
    )
    return times


def encode_rate(translator, source: list[str]) -> float:
    first, second = token_times(translator, source, 2)
    return common.SOURCE / (first - (second - first))


def decode_rate(translator, source: list[str]) -> float:
    times = token_times(translator, source, common.DEPTH // 2 + common.DECODE_STEPS)
    return common.DECODE_STEPS / (times[-1] - times[-1 - common.DECODE_STEPS])


def main() -> None:
    args = common.arguments(QUANTS, __doc__)
    if args.prepare:
        return prepare(args.models)
    folder = args.models / "ctranslate2-int8"
    files = [path for path in folder.iterdir() if path.is_file()]
    common.read_once(files)
    before_mb = common.memory_mb()
    os.environ.update(FASTEST)

    start = time.perf_counter()
    import ctranslate2

    translator = ctranslate2.Translator(
        str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=args.threads
    )
    load_s = time.perf_counter() - start

    source = [str(token) for token in np.random.default_rng(0).integers(300, 200_000, common.SOURCE)]
    encode_rate(translator, source)  # not counted
    encode_runs = [encode_rate(translator, source) for _ in range(args.runs)]
    decode_runs = [decode_rate(translator, source) for _ in range(min(args.runs, MOST_DECODE_RUNS))]  # 256 tokens warm up
    variables = " ".join(f"{name}={value}" for name, value in FASTEST.items())
    common.report(
        args,
        peer="CTranslate2",
        version=ctranslate2.__version__,
        encode_runs=encode_runs,
        decode_runs=decode_runs,
        load_s=load_s,
        resident_mb=common.memory_mb() - before_mb,
        files=files,
        settings=f"int8 per row, compute type {translator.compute_type}, MKL, {variables}",
        wrong=WRONG,
    )


if __name__ == "__main__":
    main()
