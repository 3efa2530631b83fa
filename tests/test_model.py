"""Requests, the generation loop and its options, on a tiny random model: the engine through `t5g2.load`, and the reference
runner, which must not differ where both have something. Then what only the engine has."""

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from test_parity import TOLERANCE, random_ids, with_images
from tiny import BOI, EOI, IMAGE, MM_TOKENS

import t5g2
from t5g2.runtime import reference
from t5g2.runtime.bundle import write_manifest
from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.images import to_pixels

TEXT = "w10 w20 w30 w40 w50 w60"
MARKER = "<start_of_image>"
BOS, EOS, UNUSED, VOCAB = 2, 1, 299, 300
MAX_SOURCE, MAX_TARGET = 320, 64
SIDE = 56


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    channels = len(mode)
    values = np.random.default_rng(seed).integers(0, 256, (70, 90, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def close(values):
    """With several threads the last bits of a decoder step are not always the same."""
    return pytest.approx(values, rel=1e-4, abs=1e-5)


def ids_of(stream) -> list[int]:
    return [token.id for token in stream if token.id is not None]


@pytest.fixture(params=["model", "oracle"], ids=["engine", "reference"])
def runner(request, tiny_gqa):
    """The engine's face and the reference runner in turn."""
    return getattr(tiny_gqa, request.param)


@pytest.fixture
def model(tiny_gqa):
    """The engine's face."""
    return tiny_gqa.model


@pytest.fixture
def oracle(tiny_gqa):
    return tiny_gqa.oracle


# --- the loop ---


@pytest.mark.parametrize("runs", ["model", "oracle"])
def test_greedy_ids_are_the_argmax_of_the_logits(tiny, runs):
    model, source = getattr(tiny, runs), random_ids(40, seed=1).tolist()
    for suppress in (False, True):
        result = model.generate(source, suppress_unused=suppress)
        logits = model.logits(source, [BOS, *result.ids[:-1]])
        if suppress:
            logits[:, tiny.oracle.unused_ids] = -np.inf
        assert result.ids == logits.argmax(1).tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("runs", ["model", "oracle"])
def test_greedy_ids_equal_transformers(tiny, runs, seed):
    """The same ids, or at the first other one a tie within the parity tolerance."""
    model, source = getattr(tiny, runs), random_ids(30 + 40 * seed, seed)
    images, pixels = [], None
    if seed % 2:
        source, images = with_images(source, [5]), [picture(seed)]
        pixels = to_pixels(images[0], SIDE)[None]
    expected = tiny.reference.generate(
        input_ids=source[None], pixel_values=None if pixels is None else torch.from_numpy(pixels),
        decoder_input_ids=torch.tensor([[BOS]]), do_sample=False, max_new_tokens=50, eos_token_id=EOS, pad_token_id=0,
    )[0, 1:].tolist()  # fmt: skip
    expected = expected[: expected.index(EOS)] if EOS in expected else expected
    found = model.generate(source.tolist(), images, max_new_tokens=50, suppress_unused=False).ids
    if found != expected:
        at = next(i for i, (a, b) in enumerate(zip([*found, EOS], [*expected, EOS])) if a != b)
        logits = model.logits(source.tolist(), [BOS, *expected[:at]], pixels)[-1]
        a, b = logits[[*found, EOS][at]], logits[[*expected, EOS][at]]
        assert abs(a - b) < TOLERANCE * np.abs(logits).max(), at


@pytest.mark.parametrize("options", [{}, {"stop": ["w"], "min_new_tokens": 4}, {"stop": [77, "zzz"]}])
def test_the_engine_and_the_reference_agree(tiny, options):
    expected = tiny.oracle.generate(TEXT, max_new_tokens=40, **options)
    found = tiny.model.generate(TEXT, max_new_tokens=40, **options)
    for field in ("text", "ids", "finish_reason", "source_tokens"):
        assert getattr(found, field) == getattr(expected, field)
    expected = list(tiny.oracle.stream(TEXT, max_new_tokens=40, **options))
    assert [(t.id, t.text) for t in tiny.model.stream(TEXT, max_new_tokens=40, **options)] == [(t.id, t.text) for t in expected]


def test_stream_and_generate_agree(runner, oracle):
    result = runner.generate(TEXT, max_new_tokens=20)
    tokens = list(runner.stream(TEXT, max_new_tokens=20))
    assert ids_of(tokens) == result.ids and len(result.ids) == 20
    assert "".join(t.text for t in tokens) == result.text == oracle.tokenizer.decode(result.ids)
    assert result.source_tokens == len(oracle.tokenizer.encode_source(TEXT)) and result.finish_reason == "length"


def test_a_finished_stream_stays_finished(runner):
    stream = runner.stream(TEXT, max_new_tokens=2)
    assert len(ids_of(stream)) == 2 and next(stream, None) is None and list(stream) == []


def test_streams_do_not_disturb_each_other(runner):
    first, second = runner.stream(TEXT, max_new_tokens=8), runner.stream("w7", max_new_tokens=8)
    mixed = list(zip(first, second))
    assert [a for a, _ in mixed] == list(runner.stream(TEXT, max_new_tokens=8))[: len(mixed)]
    assert [b for _, b in mixed] == list(runner.stream("w7", max_new_tokens=8))[: len(mixed)]


def test_text_and_ids_are_the_same_source(runner, oracle):
    ids = oracle.tokenizer.encode_source(TEXT)
    expected = runner.generate(TEXT, max_new_tokens=9)
    assert runner.generate(ids, max_new_tokens=9) == runner.generate(np.array(ids), max_new_tokens=9) == expected


# --- options ---


def test_max_new_tokens(runner):
    whole = runner.generate(TEXT).ids
    assert len(whole) == MAX_TARGET
    for count in (1, 7, MAX_TARGET):
        assert runner.generate(TEXT, max_new_tokens=count).ids == whole[:count]


@pytest.mark.parametrize("count", [0, -1, MAX_TARGET + 1])
def test_max_new_tokens_out_of_range(runner, count):
    with pytest.raises(UsageError, match=f"max_new_tokens: {count}; give 1 .*the bundle's --max-target"):
        runner.stream(TEXT, max_new_tokens=count)


@pytest.mark.parametrize("count", [-1, 11])
def test_min_new_tokens_out_of_range(runner, count):
    with pytest.raises(UsageError, match=rf"min_new_tokens: {count}; give 0 to max_new_tokens \(10\)"):
        runner.stream(TEXT, max_new_tokens=10, min_new_tokens=count)


def test_stop_ids(runner):
    whole = runner.generate(TEXT).ids
    stop = whole[5]
    result = runner.generate(TEXT, stop=[stop])
    assert result.ids == whole[: whole.index(stop)] and result.finish_reason == "stop"
    assert runner.generate(TEXT, stop=stop) == result


@pytest.mark.parametrize("stop", [VOCAB, -1])
def test_a_stop_id_outside_the_vocabulary(runner, stop):
    with pytest.raises(UsageError, match=f"stop: id {stop} is outside the vocabulary of {VOCAB}"):
        runner.stream(TEXT, stop=[stop])


def test_stop_strings(runner, oracle):
    whole = runner.generate(TEXT)
    middle = len(whole.text) // 2
    string = whole.text[middle - 3 : middle + 3]  # as a rule from the middle of one token into the next
    cut = whole.text.index(string)
    result = runner.generate(TEXT, stop=[string, "never"])
    assert result.text == whole.text[:cut] and result.finish_reason == "stop"
    assert result.ids == whole.ids[: len(result.ids)] and string in oracle.tokenizer.decode(result.ids)
    assert string not in oracle.tokenizer.decode(result.ids[:-1])
    assert runner.generate(TEXT, stop=string) == result


def test_text_held_back_for_a_stop_string_comes_at_the_end(runner):
    whole = runner.generate(TEXT, max_new_tokens=6)
    *tokens, last = runner.stream(TEXT, max_new_tokens=6, stop=[whole.text[-2:] + " never"])
    assert last.id is None and last.text == whole.text[-2:]
    assert "".join(t.text for t in tokens) + last.text == whole.text and ids_of(tokens) == whole.ids


def test_seeds_repeat(runner):
    options = {"temperature": 1.5, "max_new_tokens": 30}
    first, again, other = (runner.generate(TEXT, seed=seed, **options).ids for seed in (5, 5, 6))
    assert first == again != other and first != runner.generate(TEXT, max_new_tokens=30).ids


def test_sampling_options_reach_the_sampler(runner):
    greedy = runner.generate(TEXT, max_new_tokens=30).ids
    options = {"temperature": 3.0, "seed": 1, "max_new_tokens": 30}
    assert runner.generate(TEXT, top_k=1, **options).ids == runner.generate(TEXT, top_p=1e-9, **options).ids == greedy
    assert runner.generate(TEXT, **options).ids != greedy
    for bad in ({"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}, {"seed": -1}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            runner.stream(TEXT, **bad)


# --- requests that cannot be answered: all refused by `stream` itself, before its first token ---


def refused(model, message, *arguments, error=T5g2Error, **options):
    with pytest.raises(error, match=message):
        model.stream(*arguments, **options)


def test_empty_sources(runner):
    refused(runner, "the source: no tokens; give at least one", [])
    assert runner.generate("", max_new_tokens=3) == runner.generate([BOS], max_new_tokens=3)


def test_a_source_at_and_over_the_limit(runner):
    longest = [BOS] + [9] * (MAX_SOURCE - 1)
    assert runner.generate(longest, max_new_tokens=1).source_tokens == MAX_SOURCE
    message = "the source: 321 tokens, and this bundle takes 320; shorten it, or export with --max-source 321"
    refused(runner, message, [*longest, 9])
    refused(runner, "the source: .* tokens, and this bundle takes 320; shorten it", "w9 " * MAX_SOURCE)
    with pytest.raises(T5g2Error, match="321 tokens, and this bundle takes 320"):
        runner.logits([*longest, 9], [BOS])


def test_a_target_over_the_limit(runner):
    assert runner.logits([BOS], [BOS] * MAX_TARGET).shape == (MAX_TARGET, VOCAB)
    with pytest.raises(T5g2Error, match="target_ids: 65 tokens, and this bundle takes 64; .* --max-target 65"):
        runner.logits([BOS], [BOS] * (MAX_TARGET + 1))
    with pytest.raises(T5g2Error, match="target_ids: no tokens"):
        runner.logits([BOS], [])


@pytest.mark.parametrize("wrong", [-1, VOCAB])
def test_ids_outside_the_vocabulary(runner, wrong):
    refused(runner, f"the source: id {wrong} is outside the vocabulary of {VOCAB}", [BOS, wrong])
    with pytest.raises(T5g2Error, match=f"target_ids: id {wrong}"):
        runner.logits([BOS], [BOS, wrong])


def test_markers_and_images_must_match(runner):
    refused(runner, r"1 <start_of_image> marker\(s\) and 0 image\(s\)", f"{MARKER} w5")
    refused(runner, r"0 <start_of_image> marker\(s\) and 1 image\(s\)", "w5", [picture(0)])
    refused(runner, r"1 <start_of_image> marker\(s\) and 2 image\(s\)", f"{MARKER} w5", [picture(0), picture(1)])


@pytest.mark.parametrize(
    ("ids", "images", "message"),
    [
        ([BOS, BOI, *[IMAGE] * 4, EOI], 0, "has 1 image blocks of 4 tokens and 0 images"),
        ([BOS, 5, 6], 1, "has 0 image blocks of 4 tokens and 1 images"),
        ([BOS, BOI, *[IMAGE] * 3, EOI], 1, "has 0.75 image blocks of 4 tokens and 1 images"),
        ([BOS, *[IMAGE] * 8], 1, "has 2 image blocks of 4 tokens and 1 images"),
    ],
)
def test_image_blocks_and_images_must_match(runner, ids, images, message):
    refused(runner, message, ids, [picture(0)] * images)
    with pytest.raises(T5g2Error, match=message):
        runner.logits(ids, [BOS], np.zeros((images, 3, SIDE, SIDE), np.float32))


def test_pixels_of_a_wrong_shape(runner):
    ids = [BOS, *[IMAGE] * MM_TOKENS]
    for shape in ((1, 3, 56, 57), (1, 1, 56, 56), (1, 56, 56, 3)):
        with pytest.raises(T5g2Error, match=r"where \[3, 56, 56\] is expected; resize the image"):
            runner.logits(ids, [BOS], np.zeros(shape, np.float32))


def test_a_corrupt_image_file(runner, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    picture(0).save(good)
    bad.write_bytes(good.read_bytes()[:-500])
    refused(runner, r"bad\.png: damaged image file", MARKER, [bad])
    refused(runner, r"bad\.png: damaged image file", MARKER, [Image.open(bad)])
    bad.write_bytes(b"no image")
    refused(runner, r"bad\.png: not an image", MARKER, [bad])
    refused(runner, r"gone\.png: no such image file", MARKER, [tmp_path / "gone.png"])
    refused(runner, "the image is 0 x 5 pixels; give one with at least one pixel", MARKER, [Image.new("RGB", (0, 5))])
    assert runner.generate(MARKER, [good], max_new_tokens=3).ids


def test_the_order_of_images_counts(runner, oracle):
    a, b = picture(0), picture(1)
    ids, pixels = oracle._prepare(f"{MARKER} w5 {MARKER} w6", [a, b])
    assert ids.count(IMAGE) == 2 * MM_TOKENS
    straight, swapped = runner.logits(ids, [BOS, 7], pixels), runner.logits(ids, [BOS, 7], pixels[::-1])
    assert np.abs(straight - swapped).max() > TOLERANCE * np.abs(straight).max()


def test_images_as_paths_files_and_pil(runner, tmp_path):
    file = tmp_path / "a.png"
    picture(0).save(file)
    with open(file, "rb") as opened:
        kinds = [file, str(file), picture(0), Image.open(file), opened]
        assert len({tuple(runner.generate(MARKER, [kind], max_new_tokens=9).ids) for kind in kinds}) == 1


# --- bundles ---


@pytest.fixture(params=[t5g2.load, reference.load], ids=["engine", "reference"])
def load(request):
    return request.param


def copy_without(bundle, folder, *names):
    """A copy of a bundle without some of its files."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for file in bundle.iterdir():
        if file.name not in (*names, "manifest.json"):
            os.link(file, folder / file.name)
    write_manifest(folder, {k: v for k, v in manifest.items() if k not in ("files", "manifest_sha256")})
    return folder


def test_load_refuses(load, tiny_gqa, tmp_path):
    with pytest.raises(T5g2Error, match="no such bundle"):
        load(tmp_path / "gone")
    with pytest.raises(T5g2Error, match="not a bundle"):
        load(tmp_path)
    with pytest.raises(UsageError, match="threads: 0"):
        load(tiny_gqa.bundle, threads=0)


def test_a_program_that_executorch_does_not_load(load, tiny_gqa, tmp_path):
    """A bundle that is whole but whose program is none."""
    copy_without(tiny_gqa.bundle, tmp_path, "text.pte", "manifest.json")
    (tmp_path / "text.pte").write_bytes(b"no program" * 400)
    write_manifest(tmp_path, {k: v for k, v in tiny_gqa.model.manifest.items() if k not in ("files", "manifest_sha256")})
    with pytest.raises(T5g2Error, match=r"text\.pte: .*; export the bundle again"):
        load(tmp_path)


def test_without_a_tokenizer(load, tiny_gqa, tmp_path):
    model = load(copy_without(tiny_gqa.bundle, tmp_path, "tokenizer.json", "tokenizer.bin"))
    refused(model, "has no tokenizer .* give source ids", TEXT)
    result = model.generate([BOS, 10, 20], max_new_tokens=5)
    expected = tiny_gqa.model.generate([BOS, 10, 20], max_new_tokens=5, suppress_unused=False)
    assert result.text == "" and result.ids == expected.ids


def test_without_vision(load, tiny_gqa, tmp_path):
    model = load(copy_without(tiny_gqa.bundle, tmp_path, "vision.pte"))
    message = "a bundle without vision cannot read images; export without --no-vision"
    refused(model, message, MARKER, [picture(0)])
    refused(model, message, [BOS, *[IMAGE] * MM_TOKENS], [picture(0)])
    with pytest.raises(T5g2Error, match=message):
        model.logits([BOS, *[IMAGE] * MM_TOKENS], [BOS], np.zeros((1, 3, SIDE, SIDE), np.float32))


# --- what only the engine has: options ---

IDS = [BOS, *range(10, 60)]


def only(*ids: int) -> list[int]:
    """The suppressed ids that leave just these."""
    return sorted(set(range(VOCAB)) - set(ids))


@pytest.fixture
def unlikely(model) -> int:
    """The id of a word that the model would not choose."""
    words = [i for i in range(6, BOI) if i not in model.stop_ids]
    return words[int(model.logits(IDS, [BOS])[0, words].argmin())]


def test_suppressed(model, unlikely):
    assert model.generate(IDS, suppressed=only(unlikely), max_new_tokens=3).ids == [unlikely] * 3
    assert model.generate(IDS, suppressed=np.array(only(EOS))).finish_reason == "stop"
    first = model.generate(IDS).ids[0]
    assert first not in model.generate(IDS, suppressed=[first]).ids


def test_min_new_tokens(model, unlikely):
    assert model.generate(IDS, suppressed=only(EOS, unlikely)).ids == []
    assert model.generate(IDS, suppressed=only(EOS, unlikely), min_new_tokens=3).ids[:3] == [unlikely] * 3


def test_unused_tokens_are_suppressed(model, unlikely):
    for unused in (UNUSED, BOI, EOI, IMAGE):
        options = {"suppressed": only(unused, unlikely), "max_new_tokens": 1, "top_k": 0}
        assert model.generate(IDS, **options).ids == [unlikely]
        likelier = model.logits(IDS, [BOS])[0, unused] > model.logits(IDS, [BOS])[0, unlikely]
        assert model.generate(IDS, suppress_unused=False, **options).ids == [unused if likelier else unlikely]


def test_a_stop_id_is_not_suppressed(model):
    result = model.generate(IDS, suppressed=only(UNUSED), stop=UNUSED)
    assert result.ids == [] and result.finish_reason == "stop"


def test_repetitions(model):
    plain = model.generate(IDS, max_new_tokens=20).ids
    assert model.generate(IDS, max_new_tokens=20, repetition_penalty=1.5).ids != plain
    ids = model.generate(IDS, max_new_tokens=20, min_new_tokens=20, no_repeat_ngram=1).ids
    assert len(set(ids)) == len(ids) == 20


def test_min_p(model):
    options = {"temperature": 3.0, "seed": 1, "max_new_tokens": 30}
    assert model.generate(IDS, min_p=1.0, **options).ids == model.generate(IDS, max_new_tokens=30).ids
    assert model.generate(IDS, min_p=0.0, **options).ids != model.generate(IDS, max_new_tokens=30).ids


def test_prefix(model):
    whole = model.generate(IDS, max_new_tokens=20)
    for length in (1, 7, 8, 9, 19):  # around the rows of one decoder step
        rest = model.generate(IDS, prefix=whole.ids[:length], max_new_tokens=20 - length)
        assert rest.ids == whole.ids[length:]
    text = "w20 w21"
    by_text, by_ids = (model.generate(IDS, prefix=p, max_new_tokens=5) for p in (text, model.target_ids(text)))
    assert by_text == by_ids and len(by_ids.ids) == 5
    assert model.generate(IDS, prefix="", max_new_tokens=5) == model.generate(IDS, max_new_tokens=5)
    longest = [7] * (MAX_TARGET - 1)
    assert len(model.generate(IDS, prefix=longest).ids) == 1
    refused(model, "prefix: 64 tokens, and this bundle's targets take 64 in all", IDS, prefix=[*longest, 7])
    refused(model, f"prefix: id {VOCAB} is outside the vocabulary", IDS, prefix=[VOCAB])


def test_seeds_repeat_across_threads(model):
    options = {"temperature": 2.0, "max_new_tokens": 20}
    expected = [model.generate(IDS, seed=seed, **options).ids for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: model.generate(IDS, seed=seed, **options).ids, [0, 1, 2, 3] * 3))
    assert found == expected * 3 and len(set(map(tuple, expected))) == 4
    assert model.generate(IDS, **options).ids != model.generate(IDS, **options).ids


def test_logprobs(model):
    session = model.session(IDS)
    tokens = list(session.stream(logprobs=3, max_new_tokens=20, suppress_unused=False))
    logits = torch.from_numpy(session.logits([BOS, *ids_of(tokens)[:-1]]))
    expected = logits.log_softmax(-1)
    for token, row in zip((t for t in tokens if t.id is not None), expected):
        likeliest = row.topk(3)
        assert [i for i, _ in token.top] == likeliest.indices.tolist() and token.id == token.top[0][0]
        np.testing.assert_allclose([p for _, p in token.top], likeliest.values, atol=1e-4)
        assert token.logprob == token.top[0][1]
    result = session.generate(logprobs=3, max_new_tokens=20, suppress_unused=False)
    assert result.logprobs == close([t.logprob for t in tokens if t.id is not None])
    assert [top[0] for top in result.top] == list(zip(result.ids, result.logprobs))
    chosen = session.generate(logprobs=0, max_new_tokens=20, suppress_unused=False)
    assert chosen.logprobs == close(result.logprobs) and chosen.top is None
    plain = session.generate(max_new_tokens=20)
    assert plain.logprobs is plain.top is None


def test_logprobs_are_the_model_s_and_not_the_sampler_s(model):
    session = model.session(IDS)
    result = session.generate(logprobs=0, max_new_tokens=12, temperature=2.0, top_k=9, seed=0, repetition_penalty=1.3)
    np.testing.assert_allclose(result.logprobs, session.score([result.ids], end=False)[0].logprobs, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_new_tokens": "5"}, "max_new_tokens: '5'; give a whole number"),
        ({"max_new_tokens": 2.0}, "max_new_tokens: 2.0; give a whole number"),
        ({"min_new_tokens": True}, "min_new_tokens: True; give a whole number"),
        ({"top_k": 2**31}, "top_k: 2147483648; give a number of at most 32 bits"),
        ({"seed": 2**63}, "seed: 9223372036854775808; give a number of at most 64 bits"),
        ({"temperature": "hot"}, "temperature: 'hot'; give a number"),
        ({"temperature": None}, "temperature: None; give a number"),
        ({"temperature": 10**400}, "temperature: 1000.*; give a number"),
        ({"suppress_unused": "no"}, "suppress_unused: 'no'; give True or False"),
        ({"prefix": 5}, "prefix: 5; give a list of token ids"),
        ({"prefix": [1.5]}, "prefix: 1.5; give a whole number"),
        ({"prefix": b"text"}, "prefix: b'text'; give a list of token ids"),
        ({"prefix": "\ud800"}, "prefix: has half of a surrogate pair"),
        ({"stop": [None]}, "stop: None; give a whole number"),
        ({"stop": 1.5}, "stop: 1.5; give a list of strings or token ids"),
        ({"stop": "a\0b"}, r"stop: b'a\\x00b' holds a NUL"),
        ({"stop": ""}, "stop: an empty string"),
        ({"suppressed": "w5"}, "suppressed: 'w5'; give a list of token ids"),
        ({"suppressed": [VOCAB]}, f"suppressed: id {VOCAB}"),
        ({"logprobs": -1}, "logprobs: -1; give 0"),
        ({"logprobs": 101}, "logprobs: 101; give"),
        ({"min_p": 1.5}, "min_p: 1.5; give 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: 0; give more than 0"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram: -1; give 0"),
    ],
)
def test_options_of_a_wrong_type_or_out_of_range(model, options, name):
    with pytest.raises(T5g2Error, match=f"^{name}"):
        model.stream(IDS, **options)


def test_an_option_that_there_is_not(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_tokens'"):
        model.stream(IDS, max_tokens=3)


# --- beams ---


def test_beams_equal_transformers(tiny):
    source = random_ids(60, seed=3)
    expected = tiny.reference.generate(
        input_ids=source[None], decoder_input_ids=torch.tensor([[BOS]]), do_sample=False, num_beams=4,
        num_return_sequences=4, max_new_tokens=12, eos_token_id=EOS, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    found = tiny.model.beams(source.tolist(), beams=4, max_new_tokens=12, suppress_unused=False)
    rows = [[i for i in row if i not in (EOS, 0)] for row in expected.sequences[:, 1:].tolist()]
    assert [r.ids for r in found] == rows
    np.testing.assert_allclose([r.score for r in found], expected.sequences_scores, rtol=1e-3)


def test_beams(model):
    session = model.session(IDS)
    results = session.beams(3, max_new_tokens=10)
    assert len(results) == 3 and len({tuple(r.ids) for r in results}) == 3
    assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)
    for result in results:
        stopped = result.finish_reason == "stop"
        (score,) = session.score([result.ids], end=stopped)
        assert result.text == model.text(result.ids) and result.source_tokens == len(IDS)
        assert score.total / (len(result.ids) + stopped) == pytest.approx(result.score, rel=1e-3)
    again = model.beams(IDS, (), 3, max_new_tokens=10)
    assert [r.ids for r in again] == [r.ids for r in results]
    best = session.generate(beams=3, max_new_tokens=10, logprobs=0)
    assert best.ids == results[0].ids and best.score == close(results[0].score)
    assert best.logprobs == close(session.score([best.ids], end=False)[0].logprobs)
    unscaled = session.beams(3, length_penalty=0.0, max_new_tokens=10)[0]
    stopped = unscaled.finish_reason == "stop"
    assert unscaled.score == pytest.approx(session.score([unscaled.ids], end=stopped)[0].total, rel=1e-3)


def test_beams_that_suppression_leaves(model, unlikely):
    """Fewer than asked for: with one choice at each step there is one target."""
    (result,) = model.beams(IDS, beams=4, suppressed=only(unlikely), max_new_tokens=3)
    assert result.ids == [unlikely] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 1}, "beams: 1; give 2 to 64"),
        ({"beams": 65}, "beams: 65; give 1 to 64"),
        ({"beams": "4"}, "beams: '4'; give a whole number"),
        ({"temperature": 1.0}, "temperature: beams do not sample"),
        ({"stop": "w5"}, "stop: strings do not end beams"),
        ({"logprobs": 0}, "logprobs: of the best beam only"),
        ({"length_penalty": float("nan")}, "length_penalty: nan"),
        ({"early_stopping": 1}, "early_stopping: 1; give True or False"),
    ],
)
def test_options_of_beams(model, options, message):
    with pytest.raises(UsageError, match=message):
        model.beams(IDS, **options)


# --- sessions ---


def test_a_session_answers_many_times(model):
    session = model.session(TEXT)
    assert session.ids == model.source_ids(TEXT)
    for options in ({"max_new_tokens": 9}, {"max_new_tokens": 9, "temperature": 2.0, "seed": 3}):
        assert session.generate(**options) == model.generate(TEXT, **options)
        assert list(session.stream(**options)) == list(model.stream(TEXT, **options))
    assert session.logits([BOS, 7]) == close(model.logits(session.ids, [BOS, 7]))


def test_a_fork_outlives_its_origin(model):
    session = model.session(IDS)
    fork, expected = session.fork(), session.generate(max_new_tokens=9)
    session.close()
    assert fork.ids == IDS and fork.generate(max_new_tokens=9) == expected


def test_a_saved_session(tiny, tmp_path):
    file = tmp_path / "source"
    source = with_images(random_ids(40, seed=8), [3]).tolist()
    session = tiny.model.session(source, [picture(2)])
    session.save(file)
    loaded = tiny.model.load_session(str(file))
    assert loaded.ids == source and np.array_equal(loaded.states(), session.states())
    assert loaded.logits([BOS, 7, 8]) == close(session.logits([BOS, 7, 8]))
    session.close()
    assert tiny.model.load_session(file).generate(max_new_tokens=9) == loaded.generate(max_new_tokens=9)


def test_saved_sessions_that_cannot_be_loaded(model, tiny_bundle, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    model.session(IDS).save(good)
    content = good.read_bytes()
    for at in (len(content) - 1, len(content) // 2, 80):
        bad.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(T5g2Error, match="bad: its content does not match its hash"):
            model.load_session(bad)
    for size in (100, len(content) - 1):
        bad.write_bytes(content[:size])
        with pytest.raises(T5g2Error, match=f"bad: {size} bytes where {len(content)} are expected"):
            model.load_session(bad)
    for text in (b"", b"no session", content[1:]):
        bad.write_bytes(text)
        with pytest.raises(T5g2Error, match="bad: not a saved session"):
            model.load_session(bad)
    with pytest.raises(T5g2Error, match="good: saved with another model or quantization"):
        tiny_bundle(1).model.load_session(good)
    with pytest.raises(T5g2Error, match="gone"):
        model.load_session(tmp_path / "gone")
    with pytest.raises(T5g2Error, match="gone"):
        model.session(IDS).save(tmp_path / "gone" / "file")
    for path in (5, None, "a\0b"):
        with pytest.raises(UsageError, match="the session: "):
            model.load_session(path)


def test_scores(model):
    session = model.session(IDS)
    texts = ["w10 w11", "w12"]
    by_text, by_ids = session.score(texts), session.score([model.target_ids(t) for t in texts])
    assert [s.total for s in by_text] == close([s.total for s in by_ids])
    for text, score in zip(texts, by_text):
        ids = [*model.target_ids(text), EOS]
        logprobs = torch.from_numpy(session.logits([BOS, *ids[:-1]])).log_softmax(-1)
        np.testing.assert_allclose(score.logprobs, logprobs[range(len(ids)), ids], rtol=1e-5, atol=1e-5)
        assert score.total == pytest.approx(sum(score.logprobs))
        (open_ended,) = session.score([text], end=False)
        assert open_ended.logprobs == close(score.logprobs[:-1])
    long = [7] * MAX_TARGET
    assert len(session.score([long], end=False)[0].logprobs) == MAX_TARGET
    assert session.score([]) == [] and len(session.score([[]])[0].logprobs) == 1


@pytest.mark.parametrize(
    ("targets", "end", "message"),
    [
        ("w5", True, "targets: 'w5'; give a list of texts or lists of ids"),
        ([5], True, "targets: 5; give a list of token ids"),
        ([["w5"]], True, "targets: 'w5'; give a whole number"),
        ([[]], False, "target_ids: no tokens"),
        ([[VOCAB]], True, f"target_ids: id {VOCAB} is outside"),
        ([[7] * MAX_TARGET], True, "target_ids: 65 tokens, and this bundle takes 64"),
        ([[5]], 1, "end: 1; give True or False"),
    ],
)
def test_targets_that_cannot_be_scored(model, targets, end, message):
    with pytest.raises(T5g2Error, match=message):
        model.session(IDS).score(targets, end=end)


def test_states(tiny):
    source = with_images(random_ids(40, seed=8), [3]).tolist()
    pixels = to_pixels(picture(2), SIDE)[None]
    expected = tiny.oracle.encode(source, pixels).states
    session = tiny.model.session(source, pixels=pixels)
    states = session.states()
    assert states.dtype == np.float32 and states.shape == expected.shape == (40, tiny.model.hidden_size)
    np.testing.assert_allclose(states, expected, atol=1e-5 * np.abs(expected).max())
    pooled = session.states(pooled=True)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, states.mean(0), atol=1e-5)


# --- pictures ---


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_pictures_are_prepared_as_for_the_reference(model, mode):
    """To the last bit: the same states as from pixels that `images.to_pixels` made."""
    image = picture(4, "RGB" if mode in ("P", "1") else mode).convert(mode)
    if mode == "P":
        image.info["transparency"] = 3
    expected = model.session(MARKER, pixels=to_pixels(image, SIDE)[None]).states()
    assert np.array_equal(model.session(MARKER, [image]).states(), expected)
    if mode in ("RGB", "RGBA"):
        array = np.asarray(image)
        assert np.array_equal(model.session(MARKER, [array]).states(), expected)
        flipped = np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[:, ::-1]  # strides other than a row's
        assert np.array_equal(model.session(MARKER, [flipped]).states(), expected)


def test_several_pictures_in_order(model):
    source, a, b = f"{MARKER} w5 {MARKER} w6", picture(0), picture(1)
    pixels = np.stack([to_pixels(image, SIDE) for image in (a, b)])
    expected = model.session(source, pixels=pixels).states()
    assert np.array_equal(model.session(source, [a, b]).states(), expected)
    assert np.array_equal(model.session(source, np.stack([a, b])).states(), expected)
    assert not np.array_equal(model.session(source, [b, a]).states(), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.png", "images: 'a.png'; give a list of pictures"),
        (5, "images: 5; give a list of pictures"),
        (picture(0), "images: <PIL.*; give a list of pictures"),
        ([5], "images: 5; give paths, files, PIL images or arrays"),
        ([b"a.png"], "images: b'a.png'; give paths"),
        ([np.zeros((5, 5, 3))], r"images: an array of float64 \[5, 5, 3\]; give uint8"),
        ([np.zeros((5, 5), np.uint8)], r"images: an array of uint8 \[5, 5\]; give uint8"),
        ([np.zeros((5, 5, 2), np.uint8)], r"images: an array of uint8 \[5, 5, 2\]; give uint8"),
        (np.zeros((5, 5, 3), np.uint8), r"images: an array of uint8 \[5, 3\]; give uint8"),
        ([np.zeros((0, 5, 3), np.uint8)], "the image is 5 x 0 pixels"),
    ],
)
def test_what_is_no_picture(model, images, message):
    with pytest.raises(T5g2Error, match=message):
        model.session(MARKER, images)


def test_pixels_of_a_session(model):
    pixels = np.zeros((1, 3, SIDE, SIDE))
    expected = model.session(MARKER, pixels=pixels.astype(np.float32)).states()
    for same in (pixels, pixels.tolist(), pixels.astype(np.float16), np.asfortranarray(pixels)):
        assert np.array_equal(model.session(MARKER, pixels=same).states(), expected)
    for wrong in (5.0, "a", pixels[0], [[[[1], [2, 3]]]]):
        with pytest.raises(T5g2Error, match="pixels"):
            model.session(MARKER, pixels=wrong)
    with pytest.raises(UsageError, match="images and pixels: give one of them"):
        model.session(MARKER, [picture(0)], pixels)


# --- streams, threads and lives ---


def test_a_stream_so_far(model):
    whole = model.generate(IDS, max_new_tokens=9)
    stream = model.stream(IDS, max_new_tokens=9)
    assert stream.result().ids == [] and stream.result().finish_reason is None
    first = next(stream)
    so_far = stream.result()
    assert so_far.ids == [first.id] and so_far.text == first.text and so_far.finish_reason is None
    assert [first.id, *ids_of(stream)] == whole.ids and stream.result() == whole
    assert so_far.ids == [first.id]  # a copy


def test_cancel_from_another_thread(model):
    stream, first, cancelled = model.stream(IDS, min_new_tokens=MAX_TARGET), threading.Event(), threading.Event()

    def read():
        tokens = [next(stream)]
        first.set()
        cancelled.wait(60)
        return [*tokens, *stream]

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        assert first.wait(60)
        stream.cancel()
        cancelled.set()
        assert len(reading.result(60)) == 1
    result = stream.result()
    assert result.finish_reason == "cancelled" and len(result.ids) == 1 and next(stream, None) is None


def test_cancel_before_the_first_token(model):
    stream = model.stream(IDS)
    stream.cancel()
    assert list(stream) == [] and stream.result().finish_reason == "cancelled"
    stream.close()
    stream.cancel()


def test_interrupted_between_tokens(model):
    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            while True:
                model.generate(IDS, min_new_tokens=MAX_TARGET)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert model.generate(IDS, max_new_tokens=9) == model.generate(IDS, max_new_tokens=9)


def test_a_dropped_stream_is_freed(model):
    stream = model.stream(IDS)
    next(stream)
    handle = weakref.ref(stream._handle)
    del stream
    assert handle() is None


def test_streams_close(model):
    with model.stream(IDS) as stream:
        next(stream)
    assert list(stream) == []
    with pytest.raises(UsageError, match="this stream was closed; make a new one"):
        stream.result()


def test_threads_share_a_model(model):
    sources = [[BOS, *range(10, 20 + i)] for i in range(6)]
    expected = [model.generate(source, max_new_tokens=12) for source in sources]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda s: model.generate(s, max_new_tokens=12), sources * 3)) == expected * 3
        session = model.session(sources[0])
        found = list(pool.map(lambda _: session.generate(max_new_tokens=12), range(12)))
    assert found == [expected[0]] * 12


def test_threads_share_a_stream(model):
    """Each token goes to one of them."""
    expected = model.generate(IDS)
    stream = model.stream(IDS)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda _: list(stream), range(4)))
    assert sorted(i for part in parts for i in ids_of(part)) == sorted(expected.ids)
    assert stream.result() == expected


def test_closing(tiny_gqa):
    model = t5g2.load(tiny_gqa.bundle)
    session = model.session(IDS)
    stream, expected = session.stream(max_new_tokens=9), session.generate(max_new_tokens=9)
    model.close()
    model.close()
    assert len(session.score(["w5"])) == len(session.fork().score(["w5"])) == 1  # what was made from it lives on
    with session:
        assert session.generate(max_new_tokens=9) == expected
    session.close()
    assert ids_of(stream) == expected.ids
    for use in (
        lambda: model.session(IDS), lambda: model.generate(IDS), lambda: model.stream(IDS), lambda: model.beams(IDS),
        lambda: model.logits(IDS, [BOS]), lambda: model.load_session("a"), lambda: model.source_ids("w5"),
        lambda: model.target_ids("w5"), lambda: model.text([5]), lambda: model.kernels,
    ):  # fmt: skip
        with pytest.raises(UsageError, match="^this model was closed; make a new one$"):
            use()
    for use in (
        session.generate, session.stream, session.beams, session.states, session.fork,
        lambda: session.save("a"), lambda: session.logits([BOS]), lambda: session.score(["w5"]),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="^this session was closed; make a new one$"):
            use()
    assert session.ids == IDS and model.limits.max_target == MAX_TARGET


def test_closing_while_another_thread_generates(tiny_gqa):
    with ThreadPoolExecutor(1) as pool:
        for _ in range(5):
            model = t5g2.load(tiny_gqa.bundle)
            stream = model.stream(IDS, min_new_tokens=MAX_TARGET)
            generating = pool.submit(model.generate, IDS, min_new_tokens=MAX_TARGET)
            streaming = pool.submit(list, stream)
            model.close()
            with contextlib.suppress(UsageError):  # closed before it began
                assert len(generating.result().ids) == MAX_TARGET
            stream.close()
            streaming.result()


# --- text and what a model says of itself ---


def test_text_and_ids(model, oracle):
    text = "w10 w20 w30"
    assert model.source_ids(text) == oracle.tokenizer.encode_source(text)
    assert model.source_ids(f"{MARKER} w5", 1) == oracle.tokenizer.encode_source(f"{MARKER} w5", 1)
    ids = model.target_ids(text)
    assert ids == oracle.tokenizer.encode_target(text) == model.source_ids(text)[1:]
    assert model.text(ids) == oracle.tokenizer.decode(ids) == model.text([BOS, *ids, EOS])
    assert model.text([BOS, *ids, EOS], skip_special=False) == oracle.tokenizer.decode([BOS, *ids, EOS], skip_special=False)
    assert model.text([]) == model.text([VOCAB, 2**31 - 1]) == ""
    for call, message in (
        (lambda: model.source_ids(5), "the source: 5; give a text"),
        (lambda: model.source_ids(MARKER), "1 <start_of_image> marker"),
        (lambda: model.source_ids("w5", -1), "images: -1; give 0 or more"),
        (lambda: model.target_ids(b"w5"), "the target: b'w5'; give a text"),
        (lambda: model.target_ids("a\ud800"), r"the target: has half of a surrogate pair \(U\+D800\) at character 1"),
        (lambda: model.text("w5"), "ids: 'w5'; give a list of token ids"),
        (lambda: model.text([5], skip_special=1), "skip_special: 1; give True or False"),
        (lambda: model.session({}), "the source: no tokens"),
        (lambda: model.session(None), "the source: None; give a list of token ids"),
        (lambda: model.session([BOS, "5"]), "the source: '5'; give a whole number"),
        (lambda: model.session([[BOS]]), r"the source: \[2\]; give a whole number"),
        (lambda: model.logits([BOS], None), "target_ids: None; give a list of token ids"),
    ):
        with pytest.raises(T5g2Error, match=message):
            call()


def test_what_a_model_says(model, tiny_gqa):
    manifest = json.loads((tiny_gqa.bundle / "manifest.json").read_text())
    assert model.manifest == manifest
    assert (model.limits.max_source, model.limits.max_target) == (MAX_SOURCE, MAX_TARGET)
    assert (model.bos_id, model.stop_ids, model.vocab_size, model.hidden_size) == (BOS, {EOS}, VOCAB, 64)
    assert model.kernels in ("portable", "avx2", "avx512vnni", "amx", "neon", "neon_dotprod", "neon_i8mm")


def test_kernels_of_a_bundle_of_stock_operators(tiny_bundle):
    assert t5g2.load(tiny_bundle(2, "xnnpack").bundle).kernels == "xnnpack"


def test_load_remembers_what_it_checked(tiny_gqa, tmp_path):
    bundle, cache = copy_without(tiny_gqa.bundle, make(tmp_path / "bundle")), tmp_path / "cache"
    t5g2.load(bundle, cache_folder="")
    assert not cache.exists()
    t5g2.load(bundle, threads=1, cache_folder=cache)
    assert any(cache.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 257}, "threads: 257; must be 1 to 256"),
        ({"threads": -1}, "threads: -1; must be 1 to 256"),
        ({"threads": "2"}, "threads: '2'; give a whole number"),
        ({"cache_folder": 5}, "cache_folder: 5; give a path"),
        ({"path": None}, "the bundle: None; give a path"),
        ({"path": "a\0b"}, "the bundle: .* holds a NUL"),
    ],
)
def test_load_options(tiny_gqa, options, message):
    with pytest.raises(UsageError, match=message):
        t5g2.load(**({"path": tiny_gqa.bundle} | options))


def make(folder):
    folder.mkdir()
    return folder


def test_every_export_is_there_and_documented():
    for name in t5g2.__all__:
        thing = getattr(t5g2, name)
        assert inspect.getdoc(thing), name
        for method in vars(thing).values() if inspect.isclass(thing) else ():
            if inspect.isfunction(method) and not method.__name__.startswith("_"):
                assert inspect.getdoc(method), method


@pytest.mark.parametrize("load", ["t5g2.load", "t5g2.runtime.reference.load"])
def test_other_threads_later_do_not_break_a_model_of_stock_operators(tiny_bundle, load):
    """XNNPACK keeps the thread pool that it was loaded with, and the process has one, which each number of threads makes anew.
    In a process of its own, where freed memory is overwritten."""
    tiny = tiny_bundle(2, "xnnpack")
    script = (
        "import sys, t5g2, t5g2.runtime.reference\n"
        f"first = {load}(sys.argv[1], threads=2)\n"
        "expected = first.logits([2, *range(20, 60)], [2, 5]).tolist()\n"
        "for threads in (1, 3, 2):\n"
        "    t5g2.load(sys.argv[1], threads=threads)\n"
        "    assert first.logits([2, *range(20, 60)], [2, 5]).tolist() == expected\n"
    )
    environment = os.environ | {"MALLOC_PERTURB_": "165"}
    done = subprocess.run(
        [sys.executable, "-c", script, tiny.bundle], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
