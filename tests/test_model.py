"""The runner in Python: requests, the generation loop and its options, on a tiny random model."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from test_parity import TOLERANCE, random_ids, with_images
from tiny import BOI, EOI, IMAGE, MM_TOKENS

import t5g2
from t5g2.runtime.errors import T5g2Error, UsageError

TEXT = "w10 w20 w30 w40 w50 w60"
BOS, EOS, UNUSED = 2, 1, 299
MAX_SOURCE, MAX_TARGET = 320, 64


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8))


@pytest.fixture
def model(tiny_gqa):
    return tiny_gqa.model


@pytest.fixture
def favour(monkeypatch):
    """`favour(model, id, ...)`: those ids get by far the highest logits, the first the very highest."""

    def favour(model, *ids):
        step = model._decoder_step

        def biased(*arguments):
            logits = step(*arguments).copy()
            for rank, token in enumerate(ids):
                logits[:, token] = 1e6 - rank
            return logits

        monkeypatch.setattr(model, "_decoder_step", biased)

    return favour


# --- the loop ---


def test_greedy_ids_are_the_argmax_of_the_logits(tiny):
    source = random_ids(40, seed=1).tolist()
    for suppress in (False, True):
        result = tiny.model.generate(source, suppress_unused=suppress)
        logits = tiny.model.logits(source, [BOS, *result.ids[:-1]])
        if suppress:
            logits[:, tiny.model.unused_ids] = -np.inf
        assert result.ids == logits.argmax(1).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_greedy_ids_equal_transformers(tiny, seed):
    """The same ids, or at the first other one a tie within the parity tolerance."""
    source = random_ids(30 + 40 * seed, seed)
    pixels = None
    if seed % 2:
        source = with_images(source, [5])
        image = picture(seed)
        pixels = torch.from_numpy(tiny.model._prepare(source.tolist(), [image])[1])
    expected = tiny.reference.generate(
        input_ids=source[None], pixel_values=pixels, decoder_input_ids=torch.tensor([[BOS]]),
        do_sample=False, max_new_tokens=50, eos_token_id=EOS, pad_token_id=0,
    )[0, 1:].tolist()  # fmt: skip
    expected = expected[: expected.index(EOS)] if EOS in expected else expected
    images = [] if pixels is None else [image]
    found = tiny.model.generate(source.tolist(), images, max_new_tokens=50, suppress_unused=False).ids
    if found != expected:
        at = next(i for i, (a, b) in enumerate(zip([*found, EOS], [*expected, EOS])) if a != b)
        logits = tiny.model.logits(source.tolist(), [BOS, *expected[:at]], None if pixels is None else pixels.numpy())[-1]
        a, b = logits[[*found, EOS][at]], logits[[*expected, EOS][at]]
        assert abs(a - b) < TOLERANCE * np.abs(logits).max(), at


def test_stream_and_generate_agree(tiny):
    result = tiny.model.generate(TEXT, max_new_tokens=20)
    tokens = list(tiny.model.stream(TEXT, max_new_tokens=20))
    assert [t.id for t in tokens if t.id is not None] == result.ids and len(result.ids) == 20
    assert "".join(t.text for t in tokens) == result.text == tiny.model.tokenizer.decode(result.ids)
    assert result.source_tokens == 7 and result.finish_reason == "length"


def test_a_finished_stream_stays_finished(model):
    stream = model.stream(TEXT, max_new_tokens=2)
    assert len(list(stream)) == 2 and next(stream, None) is None and list(stream) == []


def test_streams_do_not_disturb_each_other(model):
    first, second = model.stream(TEXT, max_new_tokens=8), model.stream("w7", max_new_tokens=8)
    mixed = list(zip(first, second))
    assert [a for a, _ in mixed] == list(model.stream(TEXT, max_new_tokens=8))
    assert [b for _, b in mixed] == list(model.stream("w7", max_new_tokens=8))


def test_text_and_ids_are_the_same_source(model):
    assert model.generate(TEXT, max_new_tokens=9).ids == model.generate([BOS, 10, 20, 30, 40, 50, 60], max_new_tokens=9).ids
    assert model.generate(np.array([BOS, 10, 20]), max_new_tokens=9) == model.generate("w10 w20", max_new_tokens=9)


# --- options ---


def test_max_new_tokens(model):
    whole = model.generate(TEXT).ids
    assert len(whole) == MAX_TARGET
    for count in (1, 7, MAX_TARGET):
        assert model.generate(TEXT, max_new_tokens=count).ids == whole[:count]


@pytest.mark.parametrize("count", [0, -1, MAX_TARGET + 1])
def test_max_new_tokens_out_of_range(model, count):
    with pytest.raises(UsageError, match=f"max_new_tokens: {count}; give 1 to {MAX_TARGET}, the bundle's --max-target"):
        model.stream(TEXT, max_new_tokens=count)


@pytest.mark.parametrize("count", [-1, 11])
def test_min_new_tokens_out_of_range(model, count):
    with pytest.raises(UsageError, match=rf"min_new_tokens: {count}; give 0 to max_new_tokens \(10\)"):
        model.stream(TEXT, max_new_tokens=10, min_new_tokens=count)


def test_eos_ends_the_target(model, favour):
    favour(model, EOS)
    result = model.generate(TEXT)
    assert result.ids == [] and result.text == "" and result.finish_reason == "stop"


def test_min_new_tokens(model, favour):
    favour(model, EOS, 77)
    result = model.generate(TEXT, min_new_tokens=3)
    assert result.ids == [77] * 3 and result.text == "w77 w77 w77" and result.finish_reason == "stop"


def test_stop_ids(model):
    whole = model.generate(TEXT).ids
    stop = whole[5]
    result = model.generate(TEXT, stop=[stop])
    assert result.ids == whole[: whole.index(stop)] and result.finish_reason == "stop"
    assert model.generate(TEXT, stop=stop) == result


@pytest.mark.parametrize("stop", [300, -1])
def test_a_stop_id_outside_the_vocabulary(model, stop):
    with pytest.raises(UsageError, match=f"stop: id {stop} is outside the vocabulary of 300"):
        model.stream(TEXT, stop=[stop])


def test_stop_strings(model):
    whole = model.generate(TEXT)
    at = whole.text.index(" ", 12)
    string = whole.text[at - 2 : at + 3]  # from the middle of one token into the next
    cut = whole.text.index(string)
    result = model.generate(TEXT, stop=[string, "never"])
    assert result.text == whole.text[:cut] and result.finish_reason == "stop"
    assert result.ids == whole.ids[: len(result.ids)] and string in model.tokenizer.decode(result.ids)
    assert string not in model.tokenizer.decode(result.ids[:-1])
    assert model.generate(TEXT, stop=string) == result


def test_text_held_back_for_a_stop_string_comes_at_the_end(model):
    whole = model.generate(TEXT, max_new_tokens=6)
    *tokens, last = model.stream(TEXT, max_new_tokens=6, stop=[whole.text[-2:] + " never"])
    assert last.id is None and last.text == whole.text[-2:]
    assert "".join(t.text for t in tokens) + last.text == whole.text and len(tokens) == 6


def test_seeds_repeat(model):
    options = {"temperature": 1.5, "max_new_tokens": 30}
    first, again, other = (model.generate(TEXT, seed=seed, **options).ids for seed in (5, 5, 6))
    assert first == again != other and first != model.generate(TEXT, max_new_tokens=30).ids


def test_sampling_options_reach_the_sampler(model):
    greedy = model.generate(TEXT, max_new_tokens=30).ids
    options = {"temperature": 3.0, "seed": 1, "max_new_tokens": 30}
    assert model.generate(TEXT, top_k=1, **options).ids == model.generate(TEXT, top_p=1e-9, **options).ids == greedy
    assert model.generate(TEXT, **options).ids != greedy
    for bad in ({"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"seed": -1}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            model.stream(TEXT, **bad)


def test_unused_tokens_are_suppressed(model, favour):
    assert model.unused_ids == [BOI, EOI, IMAGE, UNUSED]
    favour(model, UNUSED, IMAGE, BOI, EOI, 77)
    assert model.generate(TEXT, max_new_tokens=2).ids == [77, 77]
    assert model.generate(TEXT, max_new_tokens=2, suppress_unused=False).ids == [UNUSED, UNUSED]


def test_a_stop_id_is_not_suppressed(model, favour):
    favour(model, UNUSED)
    assert model.generate(TEXT, stop=[UNUSED]).finish_reason == "stop"


# --- requests that cannot be answered: all refused by `stream` itself, before its first token ---


def refused(model, message, *arguments, error=T5g2Error, **options):
    with pytest.raises(error, match=message):
        model.stream(*arguments, **options)


def test_empty_sources(model):
    refused(model, "the source: no tokens; give at least one", [])
    assert model.generate("", max_new_tokens=3) == model.generate([BOS], max_new_tokens=3)


def test_a_source_at_and_over_the_limit(model):
    longest = " ".join(["w9"] * (MAX_SOURCE - 1))
    assert model.generate(longest, max_new_tokens=1).source_tokens == MAX_SOURCE
    message = "the source: 321 tokens, and this bundle takes 320; shorten it, or export with --max-source 321"
    refused(model, message, longest + " w9")
    refused(model, message, [BOS] * 321)
    with pytest.raises(T5g2Error, match="source_ids: 321 tokens"):
        model.logits([BOS] * 321, [BOS])


def test_a_target_over_the_limit(model):
    assert model.logits([BOS], [BOS] * MAX_TARGET).shape == (MAX_TARGET, 300)
    with pytest.raises(T5g2Error, match="target_ids: 65 tokens, and this bundle takes 64; .* --max-target 65"):
        model.logits([BOS], [BOS] * (MAX_TARGET + 1))
    with pytest.raises(T5g2Error, match="target_ids: no tokens"):
        model.logits([BOS], [])


@pytest.mark.parametrize("wrong", [-1, 300])
def test_ids_outside_the_vocabulary(model, wrong):
    refused(model, f"the source: id {wrong} is outside the vocabulary of 300", [BOS, wrong])
    with pytest.raises(T5g2Error, match=f"target_ids: id {wrong}"):
        model.logits([BOS], [BOS, wrong])


def test_markers_and_images_must_match(model):
    refused(model, r"1 <start_of_image> marker\(s\) and 0 image\(s\)", "<start_of_image> w5")
    refused(model, r"0 <start_of_image> marker\(s\) and 1 image\(s\)", "w5", [picture(0)])
    refused(model, r"1 <start_of_image> marker\(s\) and 2 image\(s\)", "<start_of_image> w5", [picture(0), picture(1)])


@pytest.mark.parametrize(
    ("ids", "images", "message"),
    [
        ([BOS, BOI, *[IMAGE] * 4, EOI], 0, "has 1 image blocks of 4 tokens and 0 images"),
        ([BOS, 5, 6], 1, "has 0 image blocks of 4 tokens and 1 images"),
        ([BOS, BOI, *[IMAGE] * 3, EOI], 1, "has 0.75 image blocks of 4 tokens and 1 images"),
        ([BOS, *[IMAGE] * 8], 1, "has 2 image blocks of 4 tokens and 1 images"),
    ],
)
def test_image_blocks_and_images_must_match(model, ids, images, message):
    refused(model, message, ids, [picture(0)] * images)
    with pytest.raises(T5g2Error, match=message):
        model.logits(ids, [BOS], np.zeros((images, 3, 56, 56), np.float32))


def test_pixels_of_a_wrong_shape(model):
    ids = [BOS, *[IMAGE] * MM_TOKENS]
    for shape in ((1, 3, 56, 57), (1, 1, 56, 56), (1, 56, 56, 3)):
        with pytest.raises(T5g2Error, match=r"where \[3, 56, 56\] is expected; resize the image"):
            model.logits(ids, [BOS], np.zeros(shape, np.float32))


def test_a_corrupt_image_file(model, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    picture(0).save(good)
    bad.write_bytes(good.read_bytes()[:-500])
    refused(model, r"bad\.png: damaged image file", "<start_of_image>", [bad])
    bad.write_bytes(b"no image")
    refused(model, r"bad\.png: not an image", "<start_of_image>", [bad])
    refused(model, r"gone\.png: no such image file", "<start_of_image>", [tmp_path / "gone.png"])
    assert model.generate("<start_of_image>", [good], max_new_tokens=3).ids


def test_the_order_of_images_counts(model):
    a, b = picture(0), picture(1)
    ids, pixels = model._prepare("<start_of_image> w5 <start_of_image> w6", [a, b])
    assert ids.count(IMAGE) == 2 * MM_TOKENS and ids.index(BOI) == 1
    straight, swapped = model.logits(ids, [BOS, 7], pixels), model.logits(ids, [BOS, 7], pixels[::-1])
    assert np.abs(straight - swapped).max() > TOLERANCE * np.abs(straight).max()
    assert np.array_equal(pixels[::-1], model._prepare(ids, [b, a])[1])


def test_images_as_paths_files_and_pil(model, tmp_path):
    file = tmp_path / "a.png"
    picture(0).save(file)
    with open(file, "rb") as opened:
        kinds = [file, str(file), picture(0), opened]
        assert len({tuple(model.generate("<start_of_image>", [kind], max_new_tokens=9).ids) for kind in kinds}) == 1


# --- bundles ---


def test_load_refuses_a_damaged_bundle(tiny_gqa, tmp_path):
    with pytest.raises(T5g2Error, match="no such bundle"):
        t5g2.load(tmp_path / "gone")
    with pytest.raises(UsageError, match="threads: 0; must be at least 1"):
        t5g2.load(tiny_gqa.bundle, threads=0)


def test_a_program_that_executorch_does_not_load(tiny_gqa, tmp_path):
    """A bundle that is whole but whose program is none."""
    from t5g2.runtime.bundle import write_manifest

    manifest = t5g2.load(tiny_gqa.bundle).bundle.manifest
    (tmp_path / "text.pte").write_bytes(b"no program" * 400)
    write_manifest(tmp_path, {k: v for k, v in manifest.items() if k not in ("files", "manifest_sha256")})
    with pytest.raises(T5g2Error, match=r"text\.pte: ExecuTorch does not load it .*; export the bundle again"):
        t5g2.load(tmp_path)


def without(bundle, tmp_path, *names):
    """A copy of a bundle without some of its files."""
    import json

    from t5g2.runtime.bundle import write_manifest

    manifest = json.loads((bundle / "manifest.json").read_text())
    for file in bundle.iterdir():
        if file.name not in (*names, "manifest.json"):
            os.link(file, tmp_path / file.name)
    write_manifest(tmp_path, {k: v for k, v in manifest.items() if k not in ("files", "manifest_sha256")})
    return t5g2.load(tmp_path)


def test_without_a_tokenizer(tiny_gqa, tmp_path):
    model = without(tiny_gqa.bundle, tmp_path, "tokenizer.json")
    refused(model, "has no tokenizer .* give source ids", TEXT)
    result = model.generate([BOS, 10, 20], max_new_tokens=5)
    expected = tiny_gqa.model.generate([BOS, 10, 20], max_new_tokens=5, suppress_unused=False)
    assert result.text == "" and result.ids == expected.ids


def test_without_vision(tiny_gqa, tmp_path):
    model = without(tiny_gqa.bundle, tmp_path, "vision.pte")
    message = "a bundle without vision cannot read images; export without --no-vision"
    refused(model, message, "<start_of_image>", [picture(0)])
    refused(model, message, [BOS, *[IMAGE] * MM_TOKENS], [picture(0)])
    with pytest.raises(T5g2Error, match=message):
        model.logits([BOS, *[IMAGE] * MM_TOKENS], [BOS], np.zeros((1, 3, 56, 56), np.float32))
