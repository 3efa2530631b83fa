"""The `.litertlm` package: LiteRT-LM's own engine answers as ours does, within the limits that the package sets."""

import dataclasses
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import T5Gemma2ForConditionalGeneration

import t5g2
from t5g2.export.checkpoint import Checkpoint
from t5g2.nano import CHECKPOINT_DIR
from t5g2.nano.data import held_out
from t5g2.quant.schemes import FLOAT32
from t5g2.runtime.bundle import Limits
from t5g2.runtime.errors import T5g2Error, UsageError

pytest.importorskip("litert_torch", reason="litert-torch is not installed: pip install 't5g2[litert]'")
from t5g2.export.litert.lm import (  # noqa: E402
    cache_shapes,
    context_length,
    lm_modules,
    prefill_length,
    signatures,
    write_package,
)
from t5g2.export.litert.programs import write_model  # noqa: E402

LIMITS = Limits(max_source=191, max_target=60)  # the encoder's graph, and the time to convert it, grows with the source
TASKS = ("date", "number", "fields", "note", "lookup")
PER_TASK = 10
BOS, STOP = 2, 1


@pytest.fixture(scope="module")
def checkpoint():
    return Checkpoint.open(CHECKPOINT_DIR)


@pytest.fixture(scope="module")
def open_engine(checkpoint, tmp_path_factory):
    """`open_engine(**settings)`: the stock engine over the float32 package."""
    litert_lm = pytest.importorskip("litert_lm", reason="litert-lm is not installed: pip install litert-lm")
    folder = tmp_path_factory.mktemp("litertlm")
    write_package(checkpoint, folder / "nano.litertlm", FLOAT32, FLOAT32, limits=LIMITS)
    litert_lm.set_min_log_severity(litert_lm.LogSeverity.FATAL)
    backend = litert_lm.Backend.CPU(thread_count=2)
    return partial(litert_lm.Engine, str(folder / "nano.litertlm"), backend, cache_dir=str(folder))


@pytest.fixture(scope="module")
def engine(open_engine):
    with open_engine() as engine:
        yield engine


def ask(engine, source: str) -> str:
    with engine.create_conversation() as conversation:
        return str(conversation.send_message(source).contents)


def session(engine, *parts: str, apply_prompt_template: bool = False) -> str:
    """The answer to a prompt that is prefilled in parts, one call each."""
    with engine.create_session(apply_prompt_template=apply_prompt_template) as session:
        for part in parts:
            session.run_prefill([part])
        return session.run_decode().texts[0]


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_those_of_the_native_engine(task, engine, nano_bundle):
    model = t5g2.load(nano_bundle("none"), threads=2)
    drawn = (example.source for example in held_out(task, 20 * PER_TASK, seed=13))
    sources = list(islice((source for source in drawn if len(engine.tokenize(source)) < LIMITS.max_source), PER_TASK))
    assert len(sources) == PER_TASK
    found = [engine.tokenize(ask(engine, source)) for source in sources]
    assert found == [model.generate(source).ids for source in sources]


def test_a_session_gives_the_prompt_itself(engine):
    assert session(engine, "In digits: three hundred and twenty-four<bos>") == "324"


def test_a_source_in_two_calls_gets_no_answer(engine):
    assert session(engine, "In digits: three hundred", " and twenty-four<bos>") == ""
    assert session(engine, "In digits: three hundred and twenty-four", apply_prompt_template=True) == ""


def test_a_prompt_longer_than_the_prefill_is_refused(engine):
    longest = "7" * (prefill_length(LIMITS) - 2)  # between BOS and BOS
    assert session(engine, longest + "<bos>") != ""
    with pytest.raises(RuntimeError):
        session(engine, longest + "7<bos>")


def test_one_turn_of_a_conversation_is_all(engine):
    with engine.create_conversation() as conversation:
        assert str(conversation.send_message("In digits: three").contents) == "3"
        with pytest.raises(RuntimeError):
            conversation.send_message("In digits: four")
    with engine.create_conversation(messages=[{"role": "system", "content": "Be brief."}]) as conversation:
        with pytest.raises(RuntimeError):
            conversation.send_message("In digits: three")
    assert ask(engine, "In digits: four") == "4"


def test_an_answer_ends_with_the_cache_whatever_the_app_allows(open_engine):
    from litert_lm import SamplerConfig, SuppressTokensConfig

    vocabulary = Tokenizer.from_file(str(CHECKPOINT_DIR / "tokenizer.json")).get_vocab()
    named = [i for name, i in vocabulary.items() if name.startswith("<") and i != STOP]  # bytes at random are no text
    almost_any_token = SamplerConfig(temperature=50.0, top_k=1000, top_p=1.0, seed=1)
    with open_engine(max_num_tokens=4096) as engine:
        with engine.create_conversation(sampler_config=almost_any_token, max_output_tokens=400) as conversation:
            conversation.send_message("In digits: three", suppress_tokens_config=SuppressTokensConfig(named))
            assert 100 < conversation.token_count <= context_length(LIMITS) + 2  # and the stop token


@torch.inference_mode()
def test_logits_equal_transformers_past_the_window(checkpoint, tmp_path):
    """The program in a package, run as the engine does, over a target of several sliding windows."""
    from ai_edge_litert.interpreter import Interpreter

    text = checkpoint.config.decoder
    limits = Limits(max_source=100, max_target=80)
    modules = lm_modules(checkpoint, FLOAT32, FLOAT32, stop_id=STOP)
    write_model(signatures(*modules, text, limits), tmp_path / "model.tflite", "text", lambda stage: None)
    program = Interpreter(str(tmp_path / "model.tflite"), num_threads=1)
    prefill, decode = (program.get_signature_runner(name) for name in (f"prefill_{prefill_length(limits)}", "decode"))
    random = torch.Generator().manual_seed(3)
    source = torch.randint(300, text.vocab_size, (70,), generator=random).tolist()
    target = [BOS, *torch.randint(300, text.vocab_size, (2 * text.sliding_window,), generator=random).tolist()]
    reference = T5Gemma2ForConditionalGeneration.from_pretrained(CHECKPOINT_DIR, dtype=torch.float32).eval()
    expected = reference(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])).logits[0]

    shapes = cache_shapes(text, context_length(limits))
    caches = {name: torch.randn(shape, generator=random).numpy() for name, shape in shapes.items()}
    padding = [0] * (prefill_length(limits) - len(source))
    tokens = np.array([source + padding], np.int32)
    positions = np.array([*range(len(source)), *padding], np.int32)
    caches = prefill(tokens=tokens, input_pos=positions, **caches)
    for t, token in enumerate(target):
        position = np.array([len(source) + t], np.int32)
        caches = decode(tokens=np.array([[token]], np.int32), input_pos=position, **caches)
        logits = torch.from_numpy(caches.pop("logits")[0, 0])
        assert (logits - expected[t]).abs().max() < 1e-4 * expected.abs().max(), t


def test_what_a_package_cannot_hold_is_said_first(checkpoint, tmp_path):
    path = tmp_path / "nano.litertlm"
    with pytest.raises(UsageError, match="reads text only; add --no-vision"):
        write_package(checkpoint, path, FLOAT32, FLOAT32, limits=LIMITS, with_vision=True)
    path.write_bytes(b"something")
    with pytest.raises(T5g2Error, match="already exists"):
        write_package(checkpoint, path, FLOAT32, FLOAT32, limits=LIMITS)


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint, tmp_path):
    from t5g2.export.random_weights import RandomCheckpoint

    random = RandomCheckpoint(dataclasses.replace(checkpoint.config, vision=None), seed=0)
    with pytest.raises(T5g2Error, match="no tokenizer.json"):
        write_package(random, tmp_path / "random.litertlm", FLOAT32, FLOAT32, limits=LIMITS)
