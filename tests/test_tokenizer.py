"""Tokenizer: ids equal to transformers', image blocks, streaming, damaged files."""

import json
import random
import time

import pytest
import tokenizers
from nasty_corpus import CONTROL, LANGUAGES, LONE_SURROGATES, LONG_LINES, PLAIN, SPECIAL, SYMBOLS, TEXTS
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.tokenizer import Tokenizer

UNUSED = [f"<unused{n}>" for n in range(20)]
FLAGGED = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
PLAIN_ADDED = ["[multimodal]", "<start_of_turn>", "<end_of_turn>", "<table>", "<tr>", "</td>"]
RUNS = ["\n" * n for n in range(1, 32)] + ["▁" * n for n in range(2, 32)] + ["\t" * n for n in range(1, 8)]
BYTES = [f"<0x{n:02X}>" for n in range(256)]
N = 4  # soft tokens per image


def gemma_like() -> dict:
    """A small tokenizer.json built as Gemma 3's is: same normaliser, split, decoder, added tokens, byte fallback."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    first = FLAGGED[:5] + PLAIN_ADDED[:1] + UNUSED[:19] + PLAIN_ADDED[1:] + RUNS + BYTES + FLAGGED[5:] + UNUSED[19:]
    # A few languages only: the others must fall back to bytes.
    known = [text for name, text in LANGUAGES.items() if name[0] in "EFGRH"] + PLAIN
    trainer = trainers.BpeTrainer(vocab_size=len(first) + 900, special_tokens=first, show_progress=False)
    backend.train_from_iterator([" " + word for text in known for word in text.split()], trainer)
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    data = json.loads(backend.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in BYTES]
    for token in data["added_tokens"]:
        token["special"] = token["content"] in FLAGGED
    return data


CONFIG = {
    "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
    "unk_token": "<unk>", "mask_token": "<mask>", "add_bos_token": True, "add_eos_token": False,
    "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
    "extra_special_tokens": {
        "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return gemma_like()


@pytest.fixture(scope="module", params=["gemma_like", "nano"])
def folder(request, data, tmp_path_factory):
    if request.param == "nano":
        from t5g2 import nano

        path = getattr(nano, "CHECKPOINT_DIR", None)
        if path is None or not (path / "tokenizer.json").exists():
            pytest.skip("nano has no tokenizer.json")
        return path
    path = tmp_path_factory.mktemp("gemma_like")
    (path / "tokenizer.json").write_text(json.dumps(data))
    (path / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return path


def special(folder) -> dict:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "boi": FLAGGED[5], "eoi": FLAGGED[6], "image": FLAGGED[7]}
    return {f"{role}_id": backend.token_to_id(name) for role, name in names.items()}


def write(folder, data: dict, name="tokenizer.json"):
    (folder / name).write_text(json.dumps(data))
    return folder / name


@pytest.fixture(scope="module")
def ours(folder):
    return Tokenizer.from_file(folder / "tokenizer.json", **special(folder), mm_tokens_per_image=N)


@pytest.fixture(scope="module")
def theirs(folder):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def small(data, tmp_path, **special_ids):
    ids = {"bos_id": 2, "eos_id": 1, "pad_id": 0} | special_ids
    return Tokenizer.from_file(write(tmp_path, data), **ids)


# --- ids ---


def test_source_ids_equal_transformers(ours, theirs):
    for text in TEXTS:
        assert ours.encode_source(text) == theirs(text).input_ids, ascii(text)


def test_target_ids_equal_transformers(ours, theirs):
    for text in TEXTS:
        assert ours.encode_target(text) == theirs(text, add_special_tokens=False).input_ids, ascii(text)


def test_decode_equals_transformers(ours, theirs):
    for text in TEXTS:
        ids = ours.encode_source(text)
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip), ascii(text)


@pytest.mark.parametrize("kind", LONG_LINES)
def test_long_line_is_fast_and_equal(ours, theirs, kind):
    start = time.perf_counter()
    ids = ours.encode_source(LONG_LINES[kind])
    assert time.perf_counter() - start < 3  # measured below 0.3 s; a quadratic merge takes minutes
    assert ids == theirs(LONG_LINES[kind]).input_ids


def test_text_comes_back(ours):
    for text in TEXTS:
        # U+2581 is how the vocabulary writes a space.
        if text not in SPECIAL:
            assert ours.decode(ours.encode_target(text)) == text.replace("▁", " "), ascii(text)


def test_source_has_bos_and_no_eos(ours):
    ids = ours.encode_source("hello")
    assert ids[0] == ours.bos_id and ours.bos_id not in ids[1:] and ours.eos_id not in ids
    assert ours.encode_source("") == [ours.bos_id]
    assert ours.encode_source("hello", add_bos=False) == ids[1:] == ours.encode_target("hello")


def test_bos_written_in_the_text(ours):
    assert ours.encode_source("<bos>hello")[:2] == [ours.bos_id] * 2
    assert ours.encode_source("<bos>hello", add_bos=False) == ours.encode_source("hello")


@pytest.mark.parametrize("text", LONE_SURROGATES)
def test_lone_surrogate_is_an_error(ours, text):
    for encode in (ours.encode_source, ours.encode_target):
        with pytest.raises(T5g2Error, match="surrogate"):
            encode(text)


# --- images ---


def test_image_block(ours):
    block = ours.encode_target("\n\n<start_of_image>" + "<image_soft_token>" * N + "<end_of_image>\n\n")
    assert block.count(ours.image_id) == N
    assert ours.encode_source("<start_of_image>", 1) == [ours.bos_id, *block]


@pytest.mark.parametrize(
    "text",
    ["<start_of_image> in this image", "a\n<start_of_image>\n\nb<start_of_image><start_of_image>", " <start_of_image> "],
)
def test_image_source_equals_gemma3_processor(ours, theirs, text):
    transformers = pytest.importorskip("transformers")
    from PIL import Image

    image_processor = transformers.models.gemma3.image_processing_pil_gemma3.Gemma3ImageProcessorPil(
        size={"height": 8, "width": 8}, do_pan_and_scan=False
    )
    processor = transformers.Gemma3Processor(image_processor, theirs, image_seq_length=N)
    count = text.count("<start_of_image>")
    expected = processor(text=text, images=[Image.new("RGB", (9, 5))] * count).input_ids[0]
    assert ours.encode_source(text, count) == list(expected)


@pytest.mark.parametrize(("text", "count"), [("none", 1), ("<start_of_image>", 0), ("<start_of_image>" * 3, 2)])
def test_marker_count_must_be_image_count(ours, text, count):
    found = text.count("<start_of_image>")
    with pytest.raises(T5g2Error, match=rf"{found} <start_of_image>.*{count} image.*one marker per image"):
        ours.encode_source(text, count)


def test_own_soft_tokens_beside_an_image(ours):
    with pytest.raises(T5g2Error, match="<image_soft_token>"):
        ours.encode_source("<image_soft_token><start_of_image>", 1)


def test_text_only_model(data, tmp_path):
    tokenizer = small(data, tmp_path)
    assert tokenizer.encode_source("<start_of_image>") == [2, *tokenizer.encode_target("<start_of_image>")]
    with pytest.raises(T5g2Error, match="text only"):
        tokenizer.encode_source("<start_of_image>", 1)


# --- suppressed ids ---


def test_suppressed_ids(ours):
    ids = ours.suppressed_ids()
    assert {ours.boi_id, ours.eoi_id, ours.image_id} <= set(ids) and ids == sorted(set(ids))
    names = {ours.token(i) for i in ids} - {"<start_of_image>", "<end_of_image>", "<image_soft_token>"}
    vocab = ours._backend.get_vocab()
    assert names == {name for name in vocab if name.startswith("<unused") and name[7:-1].isdigit()} != set()


def test_suppressed_ids_follow_the_vocabulary(data, tmp_path):
    text = json.dumps(data).replace("<unused3>", "<mine>")
    tokenizer = small(json.loads(text), tmp_path)
    assert {tokenizer.token(i) for i in tokenizer.suppressed_ids()} == set(UNUSED) - {"<unused3>"}


# --- streaming ---


def streamed(tokenizer, ids, skip=True):
    stream = tokenizer.stream(skip)
    return [stream.push(i) for i in ids] + [stream.flush()]


def test_stream_equals_decode(ours):
    for text in TEXTS:
        ids = ours.encode_source(text) + [ours.eos_id]
        for skip in (True, False):
            pieces = streamed(ours, ids, skip)
            assert "".join(pieces) == ours.decode(ids, skip), ascii(text)
            for piece in pieces:
                assert "\ufffd" not in piece or "\ufffd" in text, ascii(text)


def test_stream_of_random_ids_equals_decode(ours):
    rng = random.Random(0)
    byte = [i for i in range(ours.vocab_size) if (ours.token(i) or "").startswith("<0x")]
    everything = list(range(ours.vocab_size + 3))
    for _ in range(300):
        ids = [rng.choice(byte if rng.random() < 0.6 else everything) for _ in range(rng.randrange(30))]
        for skip in (True, False):
            assert "".join(streamed(ours, ids, skip)) == ours.decode(ids, skip), ids


def test_stream_is_not_late(ours):
    ids = ours.encode_target("The quick brown fox. 你好 ꉕ fox")
    pieces = streamed(ours, ids)
    assert pieces[-1] == ""
    for token_id, piece in zip(ids, pieces):
        assert bool(piece) or ours.token(token_id).startswith("<0x")


def test_stream_holds_half_a_character_until_flush(data, tmp_path):
    tokenizer = small(data, tmp_path)
    ids = [tokenizer._backend.token_to_id(f"<0x{b:02X}>") for b in "🫠".encode()]
    assert streamed(tokenizer, ids) == ["", "", "", "", "🫠"]
    assert streamed(tokenizer, ids[:3]) == ["", "", "", tokenizer.decode(ids[:3])]
    assert "\ufffd" in tokenizer.decode(ids[:3])
    h = tokenizer.encode_target("e")
    assert streamed(tokenizer, [*ids, tokenizer.bos_id, *ids, *h]) == [""] * 9 + ["🫠🫠e", ""]


def test_stream_can_be_used_again_after_flush(ours):
    stream = ours.stream()
    first = "".join([stream.push(i) for i in ours.encode_target(" a b")] + [stream.flush()])
    assert first == "".join([stream.push(i) for i in ours.encode_target(" a b")] + [stream.flush()]) == " a b"


def test_stream_keeps_to_a_decoder_that_strips_the_first_space(data, tmp_path):
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoder = data["decoder"] | {"decoders": [*data["decoder"]["decoders"], strip]}
    tokenizer = small(data | {"decoder": decoder}, tmp_path)
    for text in [" lead", "  two", " a b c", " ", "   ", "x  y", "\n a", *SYMBOLS, *CONTROL]:
        ids = tokenizer.encode_target(text)
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids), ascii(text)
    assert tokenizer.decode(tokenizer.encode_target(" lead")) == "lead"


def test_decode_odd_ids(ours):
    assert ours.decode([]) == ""
    assert ours.decode([ours.vocab_size + 1000]) == ""
    with pytest.raises(T5g2Error, match="ids"):
        ours.decode([-1])


# --- what fine-tunes leave in the file ---


def test_truncation_and_padding_are_off(data, tmp_path):
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
           "pad_token": "<pad>"}  # fmt: skip
    text = "All human beings are born free"
    plain = small(data, tmp_path).encode_source(text)
    changed = data | {"truncation": cut, "padding": pad}
    assert len(tokenizers.Tokenizer.from_str(json.dumps(changed)).encode(text).ids) == 64  # the settings do bite
    assert small(changed, tmp_path).encode_source(text) == plain and len(plain) > 4


@pytest.mark.parametrize("template", [None, "$A", "<bos> $A <eos>"])
def test_post_processor_does_not_decide_on_bos(data, tmp_path, template):
    post = None
    if template:
        names = [("<bos>", 2), ("<eos>", 1)]
        backend = tokenizers.Tokenizer.from_str(json.dumps(data))
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=names)
        post = json.loads(backend.to_str())["post_processor"]
    expected = small(data, tmp_path).encode_source("hello there")
    assert small(data | {"post_processor": post}, tmp_path).encode_source("hello there") == expected


# --- damaged files ---


def test_absent_file(tmp_path):
    with pytest.raises(T5g2Error, match="absent.json.*cannot read"):
        Tokenizer.from_file(tmp_path / "absent.json", bos_id=2, eos_id=1, pad_id=0)


def test_damaged_files(data, tmp_path):
    text = json.dumps(data)
    no_merge_token = json.loads(text)
    no_merge_token["model"]["merges"].insert(0, ["<nope", "nope>"])
    damaged = [b"", b"{}", b"null", b"[1]", b"\xff\xfe\x00", b"version https://git-lfs", text[: len(text) // 2].encode()]
    damaged += [json.dumps(no_merge_token).encode(), json.dumps(data | {"model": {"type": "Nope"}}).encode()]
    for content in damaged:
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(T5g2Error, match="tokenizer.json") as caught:
            Tokenizer.from_file(tmp_path / "tokenizer.json", bos_id=2, eos_id=1, pad_id=0)
        assert "\n" not in str(caught.value) and "again" in str(caught.value)


def test_special_id_outside_the_vocabulary(data, tmp_path):
    with pytest.raises(T5g2Error, match="256001.*image.*same checkpoint"):
        small(data, tmp_path, boi_id=5, eoi_id=6, image_id=256001)
