"""The engine built for ARM Linux, under emulation at a CPU of each kind of ARM kernels, against this machine's.

tests/test_kernels.py has every kernel and operator against its reference at these CPUs.
"""

import json
import platform
import struct
import subprocess
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from emulated import ARM_CPUS, need_arm, on_arm
from exported import default_scheme
from native_programs import ENVIRONMENT, REPOSITORY, arm_executorch, own_program, program, run
from test_images import rgb

from t5g2.export.config import SIZES
from t5g2.export.export_bundle import export_bundle
from t5g2.export.random_weights import RandomCheckpoint
from t5g2.nano.data import held_out
from t5g2.runtime.bundle import Limits
from t5g2.runtime.images import to_pixels

# With AMX tiles an x86 encoder rounds activations to bfloat16. ARM's kernels quantize them to int8, as AVX2's do.
HERE = {"env": ENVIRONMENT | ({"T5G2_CPU": "avx2"} if platform.machine() == "x86_64" else {})}
NANO_WINDOW = 32
TEXTS, LONG, PICTURES = ("date", "number", "fields", "note"), "records", ("digits", "shapes")
SOURCE, TOKENS, LIKELIEST = 32, 4, 100
TOLERANCE, ROUNDING = 1e-3, 0.1  # of the largest logit


def best_kernels(cpu: str) -> str:
    return ARM_CPUS[cpu].split()[-1]


# --- nano, from text and pictures to text ---


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> str:
    """Lines for t5g2-run --jsonl."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = [{"id": LONG, "prompt": (REPOSITORY / "nano/examples/records.txt").read_text()}]
    for task in (*TEXTS, *PICTURES):
        [example] = held_out(task, 1, seed=5)
        lines.append({"id": task, "prompt": example.source})
        if example.image:
            lines[-1]["images"] = [str(folder / f"{task}.png")]
            example.image.save(folder / f"{task}.png")
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture(scope="module")
def nano_answers(nano_bundle, questions, tmp_path_factory):
    """`nano_answers(quant, cpu)`: t5g2-run's replies by id; without a CPU this machine's."""
    hashes = tmp_path_factory.mktemp("hashes")

    @cache
    def answers(quant: str, cpu: str | None = None) -> dict[str, dict]:
        arguments = (nano_bundle(quant), "--jsonl", "--threads", 2, "--cache-folder", hashes, "--verbose")
        options = {"input": questions, "stderr": subprocess.PIPE, "timeout": 300}
        if cpu:
            done = run(*on_arm(cpu, own_program("t5g2-run", "aarch64", arm_executorch()), *arguments), **options)
        else:
            done = run(own_program("t5g2-run", "test"), *arguments, **options, **HERE)
        assert done.stdout.count("\n") == questions.count("\n"), done.stderr
        if cpu:
            assert f" {best_kernels(cpu)} kernels" in done.stderr
        return {reply["id"]: reply for reply in map(json.loads, done.stdout.splitlines())}

    return answers


@pytest.fixture(scope="module", params=[(cpu, quant) for cpu in ARM_CPUS for quant in ("int8", "int4")], ids="-".join)
def both(request, nano_answers):
    """What ARM answers, and what this machine does."""
    need_arm()
    cpu, quant = request.param
    return nano_answers(quant, cpu), nano_answers(quant)


@pytest.mark.parametrize("task", TEXTS)
def test_texts(both, task):
    arm, here = both
    assert here[task]["ids"] and arm[task] == here[task]


def test_a_source_of_many_windows(both):
    arm, here = both
    assert here[LONG]["source_tokens"] > 4 * NANO_WINDOW and arm[LONG] == here[LONG]


@pytest.mark.parametrize("task", PICTURES)
def test_pictures(both, task):
    arm, here = both
    if "build it again with libjpeg and libpng" in arm[task].get("error", ""):
        pytest.skip("t5g2-run for ARM was built without libjpeg and libpng for arm64")
    assert here[task]["ids"] and arm[task] == here[task]


# --- real shapes ---
#
# Activations are quantized to int8, and where one lies between two integers the last bit of a float decides. One that goes the
# other way moves these random models' logits by 0.8 %, and after 36 layers of such, x86's own kinds of kernels differ by 3 %
# from each other. ARM's do not differ at all, nor do a few layers of a source where no activation is that close.


@pytest.fixture(scope="module")
def logits_of(tmp_path_factory):
    """`logits_of(layers, cpu)`: what session_logits.cpp finds with 270M's shapes in int4 and so many layers in each stack: ids,
    and its three arrays. Without a CPU on this machine."""
    folder = tmp_path_factory.mktemp("270m")

    @cache
    def bundle(layers: int):
        stacks = {}
        for name in ("encoder", "decoder"):
            stack = getattr(SIZES["270m"], name)
            kinds = stack.layer_types if layers == stack.num_layers else stack.layer_types[-layers:]
            stacks[name] = replace(stack, num_layers=layers, layer_types=kinds)
        config, limits = replace(SIZES["270m"], vision=None, **stacks), Limits(max_source=64, max_target=64)
        output, scheme, source = folder / str(layers), default_scheme("int4", "native"), {"random_weights": 0}
        export_bundle(RandomCheckpoint(config, 0), output, scheme, name="270m", source=source, limits=limits)
        return output

    @cache
    def logits(layers: int, cpu: str | None = None) -> tuple[list[str], list[np.ndarray]]:
        if cpu:  # hashing 200 MB under emulation would take longer than the rest
            logits(layers)
        out = folder / f"{layers}.f32"
        arguments = (bundle(layers), folder / "hashes", TOKENS, out, *source_ids)
        if cpu:
            done = run(*on_arm(cpu, program("session_logits", "aarch64", arm_executorch()), *arguments), timeout=600)
        else:
            done = run(program("session_logits"), *arguments, **HERE)
        assert done.returncode == 0, done.stdout
        kernels, *ids = done.stdout.split()
        assert len(ids) == TOKENS and (not cpu or kernels == best_kernels(cpu))
        vocabulary = SIZES["270m"].decoder.vocab_size
        parts = np.split(np.fromfile(out, np.float32), np.cumsum([vocabulary, TOKENS * LIKELIEST]))
        assert parts[2].size == (1 + TOKENS) * vocabulary
        return ids, parts

    source_ids = [SIZES["270m"].bos_token_id, *np.random.default_rng(3).integers(1000, 200_000, SOURCE - 1)]
    return logits


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest, in units of the largest logit."""
    return max(np.abs(a - b).max() for a, b in zip(found, expected)) / np.abs(expected[0]).max()


@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_two_layers_of_real_shapes(logits_of, cpu):
    need_arm()
    (ids, found), (expected_ids, expected) = logits_of(2, cpu), logits_of(2)
    assert ids == expected_ids and difference(found, expected) < TOLERANCE


@pytest.mark.parametrize("cpu", ARM_CPUS)
def test_real_shapes(logits_of, cpu):
    need_arm()
    layers = SIZES["270m"].encoder.num_layers
    (ids, found), (first_ids, first) = logits_of(layers, cpu), logits_of(layers, next(iter(ARM_CPUS)))
    assert ids == first_ids and difference(found, first) < TOLERANCE
    expected = logits_of(layers)[1]  # without the likeliest tokens, where paths may part
    assert difference([found[0], found[2]], [expected[0], expected[2]]) < ROUNDING


# --- what has no kernels: compiled for ARM all the same, where char is unsigned and products are fused into sums ---


def test_choosing_tokens():
    need_arm()
    done = run(*on_arm("cortex-a53", program("generation_test", "aarch64", arm_executorch())))
    assert done.returncode == 0 and done.stdout.endswith(" 0 failed\n"), done.stdout


@pytest.mark.parametrize("size", [(57, 41), (200, 56), (897, 895)], ids=str)
def test_pixels_equal_pillows(size):
    need_arm()
    image = rgb(*size)
    command = on_arm("cortex-a53", program("image_cases", "aarch64", arm_executorch()), "pixels", 56, *(0.5,) * 6)
    stdin = struct.pack("<4q", *size, 3, 3 * size[0]) + image.tobytes()
    done = run(*command, input=stdin, text=False, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32).reshape(3, 56, 56), to_pixels(image, 56))
