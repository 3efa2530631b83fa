"""The engine against the reference runner, through nano's programs; many generations; many threads; the faces alike.

T5G2_PROMPTS=72 compares 504 held-out prompts of nano for each precision instead of 56.
"""

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from native_programs import program, run, run_thread_sanitized

import t5g2
from t5g2.nano.data import TASKS, held_out
from t5g2.runtime import reference

PROMPTS = int(os.environ.get("T5G2_PROMPTS", "8"))  # of each of the seven tasks
LOGITS = 1e-4  # of the largest


@pytest.fixture(scope="module", params=["int8", "int4"])
def both(request, nano_bundle):
    """The engine and the oracle on one bundle."""
    bundle = nano_bundle(request.param)
    return t5g2.load(bundle, threads=2), reference.load(bundle, threads=2)


@pytest.mark.parametrize("task", TASKS)
def test_greedy_tokens_are_the_oracle_s(both, task):
    engine, oracle = both
    for example in held_out(task, PROMPTS, seed=3):
        images = [example.image] if example.image else []
        found, expected = engine.generate(example.source, images), oracle.generate(example.source, images)
        assert (found.ids, found.text, found.finish_reason, found.source_tokens) == (
            expected.ids, expected.text, expected.finish_reason, expected.source_tokens
        )  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_logits_are_the_oracle_s(both, task):
    engine, oracle = both
    for example in islice(held_out(task, PROMPTS, seed=4), 0, None, 4):
        images = [example.image] if example.image else []
        ids, pixels = oracle._prepare(example.source, images)
        target = [engine.bos_id, *engine.target_ids(example.target)]
        assert engine.source_ids(example.source, len(images)) == ids
        found, expected = engine.logits(ids, target, pixels), oracle.logits(ids, target, pixels)
        assert np.abs(found - expected).max() <= LOGITS * np.abs(expected).max()


def test_every_face_gives_the_same_tokens_for_a_seed(nano_bundle, tmp_path):
    """Python, and the command line, a C++ program over the C header."""
    bundle, prompt = nano_bundle("int4"), "ISO date: the 3rd of March 2021"
    model = t5g2.load(bundle)
    command = [Path(sys.executable).with_name("t5g2-run"), bundle, "--prompt", prompt]
    for options in ({}, {"temperature": 3.0}, {"temperature": 2.0, "top_k": 20, "top_p": 0.9, "min_p": 0.01}):
        for seed in (0, 7):
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
            done = run(*command, *flags, f"--seed={seed}", stderr=subprocess.PIPE)
            assert done.stdout == model.generate(prompt, seed=seed, **options).text + "\n", done.stderr
    assert model.generate(prompt, seed=1, temperature=3.0).ids != model.generate(prompt, seed=2, temperature=3.0).ids


def soak(bundle, preset: str, *options) -> str:
    done = run(program("engine_soak", preset), bundle, *options, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_memory_stays_flat(nano_bundle):
    """What a generation keeps for good would show as KB a generation; 10,000 of them are in benchmarks/results."""
    said = soak(nano_bundle("int4"), "test", "--generations", 600)
    assert float(re.search(r"half: (\S+) KB", said)[1]) < 2


def test_threads_share_an_engine(nano_bundle):
    soak(nano_bundle("int4"), "test", "--generations", 200, "--threads", 8, "--cpu-threads", 2)


def test_threads_under_the_address_sanitizer(nano_bundle):
    soak(nano_bundle("int4"), "asan", "--generations", 60, "--threads", 8)


def test_threads_under_the_thread_sanitizer(nano_bundle):
    """On one CPU thread: ExecuTorch's pool is not instrumented."""
    command = [program("engine_soak", "tsan"), nano_bundle("int4"), "--generations", 60, "--threads", 8]
    done = run_thread_sanitized(*command, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:]


def test_loading_imports_no_torch():
    code = "import sys, t5g2; t5g2.load; print([name for name in ('torch', 'executorch') if name in sys.modules])"
    assert run(sys.executable, "-c", code).stdout == "[]\n"
