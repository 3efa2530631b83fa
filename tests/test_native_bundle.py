"""What a native bundle promises beside right answers: one copy of the table, memory that is the caller's, clear errors."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from commands import run_process

import t5g2
from t5g2.export.checkpoint import EMBEDDING, Checkpoint
from t5g2.nano import CHECKPOINT_DIR
from t5g2.quant.packed import pack_weight
from t5g2.quant.schemes import scheme_for
from t5g2.runtime import native, reference
from t5g2.runtime.errors import T5g2Error

PROMPTS = ["ISO date: the 3rd of March 2021", "In digits: seven hundred and twelve"]


@pytest.mark.parametrize("quant", ["int4", "int8", "none"])
def test_the_token_table_is_in_the_file_once(nano_bundle, quant):
    """Encoder, decoder step and vocabulary head share one constant: every block of the table occurs once."""
    table = pack_weight(Checkpoint.open(CHECKPOINT_DIR).tensor(EMBEDDING), scheme_for(quant), EMBEDDING)
    content = (nano_bundle(quant) / "text.pte").read_bytes()
    size = table.shape.block_bytes
    for block in (0, table.shape.blocks // 2, table.shape.blocks - 1):
        assert content.count(table.data[block * size : (block + 1) * size].numpy().tobytes()) == 1


def test_generations_do_not_share_a_cache(nano_bundle):
    """Two answers drawn token by token in turn are those drawn one after the other."""
    model = t5g2.load(nano_bundle("int4"))
    alone = [[token.id for token in model.stream(prompt)] for prompt in PROMPTS]
    streams = [model.stream(prompt) for prompt in PROMPTS]
    drawn = [[], []]
    for _ in range(max(map(len, alone))):
        for stream, tokens in zip(streams, drawn):
            if (token := next(stream, None)) is not None:
                tokens.append(token.id)
    assert drawn == alone


def test_the_cache_is_the_caller_s_memory(nano_bundle):
    text = reference.load(nano_bundle("int4"))._text
    (cross, _), cache = text.encode(torch.tensor([2, 30, 31]), torch.zeros(3, 128)), text.new_cache()
    text.step(cross, cache, torch.tensor([2]), 0)
    assert cache.any() and not text.new_cache().any()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_make_no_difference(nano_bundle, threads):
    ids, target = [2, *range(20, 120)], [2, 40, 41, 42]
    expected = t5g2.load(nano_bundle("int4"), threads=1).logits(ids, target)
    found = t5g2.load(nano_bundle("int4"), threads=threads).logits(ids, target)
    assert np.array_equal(found, expected)


def test_models_in_threads(nano_bundle):
    """A model each: their programs share the pool, the library and nothing else."""
    expected = [t5g2.load(nano_bundle("int4")).generate(prompt).text for prompt in PROMPTS]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda prompt: t5g2.load(nano_bundle("int4")).generate(prompt).text, PROMPTS * 3))
    assert found == expected * 3


@pytest.mark.parametrize("name", native.available_kernels())
def test_every_kind_of_kernels_gives_the_same_answers(nano_bundle, name):
    code = (
        "import sys, t5g2; model = t5g2.load(sys.argv[1]);"
        "print(model.kernels, *(model.generate(p).text for p in sys.argv[2:]), sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(nano_bundle("int4")), *PROMPTS],
        env=os.environ | {"T5G2_CPU": name}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().split("|") == [name, "2021-03-03", "712"]


def test_nothing_but_the_answer_is_printed(nano_bundle):
    done = run_process("t5g2.runtime.run", nano_bundle("int4"), "--prompt", PROMPTS[0])
    assert (done.code, done.out, done.err) == (0, "2021-03-03\n", "")


def test_kernels_that_the_cpu_lacks(nano_bundle):
    code = "from t5g2.runtime.native import kernels; print(kernels())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"T5G2_CPU": "mmx", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == native.available_kernels()[-1]
    assert "T5G2_CPU=mmx: this CPU has no such kernels" in done.stderr


def test_a_missing_library(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "libt5g2_ops.so")
    native.library.cache_clear()
    try:
        with pytest.raises(T5g2Error, match="missing; install t5g2 with pip on a machine with a C\\+\\+ compiler"):
            native.library()
        (tmp_path / "libt5g2_ops.so").write_bytes(b"not a library")
        with pytest.raises(T5g2Error, match="does not load"):
            native.library()
    finally:
        native.library.cache_clear()
