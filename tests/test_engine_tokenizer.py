"""The engine's tokenizer, prompt and text streams against tokenizers and the Python runner; the file they read.

The engine answers through tests/native/tokenizer_cases.cpp.
"""

import json
import random
import struct
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from nasty_corpus import LONG_LINES, SPECIAL, TEXTS
from native_programs import program
from test_tokenizer import BYTES, FLAGGED, RUNS, UNUSED, gemma_like

from t5g2.export.tokenizer_file import write_tokenizer
from t5g2.nano import CHECKPOINT_DIR
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.text_stop import TextStop
from t5g2.runtime.tokenizer import Tokenizer

IMAGE_TOKENS = 4


class EngineError(Exception):
    """The message of the engine's Error."""


class Engine:
    """A tokenizer in a process of its own; the functions of tokenizer_cases.cpp."""

    def __init__(self, file: Path):
        self._process = subprocess.Popen([program("tokenizer_cases")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.load(file)

    def load(self, file: Path):
        self._ask("L", str(file).encode())

    def encode(self, text: str | bytes) -> list[int]:
        return _numbers(self._ask("E", _bytes(text)))

    def decode(self, ids, skip_special: bool) -> str:
        return self._ask("D", _pack(skip_special, *ids)).decode()

    def stream(self, ids, skip_special: bool) -> list[str]:
        return [piece.decode() for piece in _texts(self._ask("S", _pack(skip_special, *ids)))]

    def tokens(self, ids) -> list[tuple[bool, bool, bool, str]]:
        """Of each id: whether it has a token, whether that is special, whether it is a byte, its name."""
        answer, found = self._ask("T", _pack(*ids)), []
        while answer:
            exists, special, byte, size = struct.unpack_from("<4i", answer)
            found.append((bool(exists), bool(special), bool(byte), answer[16 : 16 + size].decode()))
            answer = answer[16 + size :]
        return found

    def vocab_size(self) -> int:
        return _numbers(self._ask("V", b""))[0]

    def source_ids(self, special: dict, text: str, image_count: int = 0) -> list[int]:
        return _numbers(self._ask("P", _special(special) + _pack(image_count) + _bytes(text)))

    def suppressed_ids(self, special: dict) -> list[int]:
        return _numbers(self._ask("U", _special(special)))

    def stop(self, strings: list[str], pieces: list[str]) -> list[tuple[bool, str]]:
        """After each piece and after the end: whether it has stopped, and what is shown. An empty piece ends a text too."""
        texts = b"".join(_pack(len(t)) + t for t in map(_bytes, [*strings, *pieces]))
        answer, shown = self._ask("X", _pack(len(strings)) + texts), []
        for _ in pieces:
            stopped, size = struct.unpack_from("<2i", answer)
            shown.append((bool(stopped), answer[8 : 8 + size].decode()))
            answer = answer[8 + size :]
        return [*shown, (shown[-1][0] if shown else False, answer[4:].decode())]

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(60) == 0

    def _ask(self, function: str, payload: bytes) -> bytes:
        self._process.stdin.write(function.encode() + _pack(len(payload)) + payload)
        self._process.stdin.flush()
        header = self._process.stdout.read(5)
        assert len(header) == 5, f"tokenizer_cases ended with {self._process.wait()}"
        failed, size = struct.unpack("<Bi", header)
        answer = self._process.stdout.read(size)
        if failed:
            raise EngineError(answer.decode())
        return answer


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _pack(*numbers) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


def _numbers(answer: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(answer) // 4}i", answer))


def _texts(answer: bytes):
    while answer:
        (size,) = struct.unpack_from("<i", answer)
        yield answer[4 : 4 + size]
        answer = answer[4 + size :]


def _special(ids: dict) -> bytes:
    roles = ("bos", "eos", "pad", "boi", "eoi", "image")
    return _pack(*(-1 if ids.get(f"{r}_id") is None else ids[f"{r}_id"] for r in roles), IMAGE_TOKENS)


# --- tokenizers ---


def nano() -> dict:
    return json.loads((CHECKPOINT_DIR / "tokenizer.json").read_text(encoding="utf-8"))


def added(content: str, **flags) -> dict:
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return {"content": content, **usual, **flags}


def with_added(data: dict, tokens: list[dict]) -> dict:
    size = 1 + max([*data["model"]["vocab"].values(), *(t["id"] for t in data["added_tokens"])])
    return data | {"added_tokens": data["added_tokens"] + [t | {"id": size + i} for i, t in enumerate(tokens)]}


FLAGS = [
    added("<left>", lstrip=True), added("<right>", rstrip=True), added("<both>", lstrip=True, rstrip=True, special=True),
    added("fox", normalized=True), added("quick brown", normalized=True), added(" jumps", normalized=True),
    added("  ", normalized=True), added("<n>", normalized=True, lstrip=True, rstrip=True), added("<lef"),
    added("<special>", normalized=True, special=True), added("é"), added("▁x", normalized=True), added("\n\n<right>"),
]  # fmt: skip


def renamed(data: dict, names: dict[str, str]) -> dict:
    """With other names for some pieces that no merge uses."""
    vocab = {names.get(name, name): i for name, i in data["model"]["vocab"].items()}
    return data | {"model": data["model"] | {"vocab": vocab}}


def with_merges(data: dict, pairs: list[tuple[str, str]]) -> dict:
    """With merges before all others, whose pieces take the place of byte pieces."""
    data = renamed(data, {f"<0x{0xFF - i:02X}>": a + b for i, (a, b) in enumerate(pairs)})
    return data | {"model": data["model"] | {"merges": [list(p) for p in pairs] + data["model"]["merges"]}}


def with_model(data: dict, **fields) -> dict:
    return data | {"model": data["model"] | fields}


def with_spaces_merged(data: dict) -> dict:
    """With the merges of ▁ to its runs, as Gemma's has them."""
    merges = [["▁" * left, "▁" * right] for left in range(1, 17) for right in range(1, 17) if left + right < 32]
    return with_model(data, merges=data["model"]["merges"] + merges)


KINDS = {
    "nano": nano,
    "gemma_like": gemma_like,
    "added tokens with flags": lambda: with_added(gemma_like(), FLAGS),
    "merges across words": lambda: with_merges(gemma_like(), [("s", "▁"), ("e", "▁")]),
    "merges of spaces": lambda: with_spaces_merged(gemma_like()),
    "no byte pieces": lambda: with_model(gemma_like(), byte_fallback=False),
    "no byte pieces, not fused": lambda: with_model(gemma_like(), byte_fallback=False, fuse_unk=False),
    "no unknown token": lambda: with_model(gemma_like(), byte_fallback=False, unk_token=None),
    "some byte pieces": lambda: renamed(gemma_like(), {f"<0x{b:02X}>": f"<no {b}>" for b in (0xC3, 0xE4, 0x9F, 0x0A)}),
    "some byte pieces, not fused": lambda: with_model(KINDS["some byte pieces"](), fuse_unk=False),
    "no space piece": lambda: renamed(with_model(gemma_like(), merges=[]), {"▁": "<no space>"}),
    "odd byte names": lambda: renamed(gemma_like(), {"<0xAB>": "<0xab>", "<0xAC>": "<0x+9>", "<0xAD>": "<0x9+>"}),
}


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """`.engine`, and for the same tokenizer.json `.reference`: the library, `.runner`: the Python runner's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(json.dumps(KINDS[request.param]()))
    write_tokenizer(folder / "tokenizer.json", folder / "tokenizer.bin")
    reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "boi": FLAGGED[5], "eoi": FLAGGED[6], "image": FLAGGED[7]}
    special = {f"{role}_id": reference.token_to_id(name) for role, name in names.items()}
    runner = Tokenizer.from_file(folder / "tokenizer.json", **special, mm_tokens_per_image=IMAGE_TOKENS)
    engine = Engine(folder / "tokenizer.bin")
    yield SimpleNamespace(
        kind=request.param, engine=engine, reference=reference, runner=runner, special=special, file=folder / "tokenizer.bin"
    )
    engine.close()


def reference_ids(both, text: str) -> list[int]:
    return both.reference.encode(text, add_special_tokens=False).ids


FRAGMENTS = [
    *FLAGGED, *UNUSED[:3], *RUNS[:4], *RUNS[31:36], *BYTES[:2], "<", ">", "<unused", "<0x0", "0A>", "\n", "\t", "\r\n", "▁",
    "▁▁▁", *(" " * n for n in range(1, 6)), "\u00a0", "\u3000", "\u0085", "\u2028", "é", "e\u0301", "ä", "你", "🫠", "👩🏽‍💻",
    "\ufffd", "\U0010ffff", "\x00", "hello", "The quick brown fox jumps", "birthday of", "human beings", "s", "es ", "12",
    *(token["content"] for token in FLAGS),
]  # fmt: skip
mixed_text = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=24).map("".join)


# --- ids ---


def test_ids_of_texts(both):
    every_whitespace = "".join(f"x<right>{chr(c)}x{chr(c)}<left>" for c in range(0x3100))
    for text in [*TEXTS, *(f" {a}{b} " for a in FRAGMENTS for b in FRAGMENTS), every_whitespace]:
        assert both.engine.encode(text) == reference_ids(both, text), ascii(text)


@settings(deadline=None, max_examples=200)
@given(text=mixed_text)
def test_ids_of_random_texts(both, text):
    try:
        expected = reference_ids(both, text)
    except BaseException as error:  # the library panics where two tokens want the same whitespace
        assert type(error).__name__ == "PanicException" and both.kind == "added tokens with flags"
        reject()
    assert both.engine.encode(text) == expected


@pytest.mark.parametrize("line", LONG_LINES)
def test_ids_of_a_long_line(both, line):
    start = time.perf_counter()
    ids = both.engine.encode(LONG_LINES[line])
    assert time.perf_counter() - start < 2  # measured below 0.05 s, under sanitizers below 0.5 s
    assert ids == reference_ids(both, LONG_LINES[line])


INVALID = {
    b"ab\xff": 2, b"\xc3": 0, b"a\xc3(": 1, b"\xe2\x96": 0, b"x \xed\xa0\x80": 2, b"\xc0\xaf": 0, b"\xe0\x9f\xbf": 0,
    b"\xf0\x8f\xbf\xbf": 0, b"\xf4\x90\x80\x80": 0, b"\xf8\x88\x80\x80\x80": 0, b"\x80": 0, b"\xf0\x9f\xab": 0,
}  # fmt: skip


def test_text_that_is_not_utf8(both):
    for text, at in INVALID.items():
        with pytest.raises(EngineError, match=f"not valid UTF-8 at byte {at};"):
            both.engine.encode(text)


def test_text_that_is_too_long(both):
    with pytest.raises(EngineError, match="67108865 bytes, and at most 67108864"):
        both.engine.encode(b"a" * (2**26 + 1))


# --- text ---


def test_text_of_ids_of_texts(both):
    for text in TEXTS:
        ids = reference_ids(both, text)
        for skip in (True, False):
            assert both.engine.decode(ids, skip) == both.reference.decode(ids, skip_special_tokens=skip), ascii(text)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), skip=st.booleans())
def test_text_of_random_ids(both, data, skip):
    size = both.runner.vocab_size
    byte = [i for i in range(size) if both.runner.token(i).startswith("<0x")]
    ids = data.draw(st.lists(st.one_of(st.sampled_from(byte), st.integers(0, size + 2)), max_size=40))
    text = both.reference.decode(ids, skip_special_tokens=skip)
    assert both.engine.decode(ids, skip) == text
    pieces = both.engine.stream(ids, skip)
    assert "".join(pieces) == text
    stream = both.runner.stream(skip)
    if both.kind != "odd byte names":  # which the runner's stream takes for text
        assert pieces == [*map(stream.push, ids), stream.flush()]


def test_text_of_ids_outside_the_vocabulary(both):
    a = both.engine.encode("a")
    outside = [-1, -(2**31), 2**31 - 1, both.engine.vocab_size()]
    for ids in (outside, [*outside, *a, *outside]):
        assert both.engine.decode(ids, False) == "".join(both.engine.stream(ids, False)) == "a" * (ids != outside)
    assert both.engine.tokens(outside) == [(False, False, False, "")] * 4


def test_tokens(both):
    assert both.engine.vocab_size() == both.runner.vocab_size
    for i, (exists, special, byte, name) in enumerate(both.engine.tokens(range(both.runner.vocab_size))):
        assert exists and name == both.reference.id_to_token(i)
        assert special == (i in both.runner.special_ids)
        assert byte == (both.reference.decode([i, i, i], skip_special_tokens=False) != 3 * name.replace("▁", " "))


def test_stream_can_be_used_again_after_flush(both):
    ids = both.engine.encode("aé")[-1:]
    assert both.engine.stream(ids, True) == both.engine.stream(ids, True)


# --- prompts ---


@pytest.mark.parametrize("image_count", [0, 1, 3])
@pytest.mark.parametrize("without", [None, "boi_id", "eoi_id", "image_id"])
def test_source_ids(both, image_count, without):
    """The same ids as the runner, or the same error."""
    special = both.special | ({without: None} if without else {})
    runner = Tokenizer(both.reference, **special, mm_tokens_per_image=IMAGE_TOKENS)
    for text in [*SPECIAL, "", "hello", "<start_of_image> in this image", " <start_of_image>\n" * 3]:
        try:
            expected = runner.encode_source(text, image_count)
        except T5g2Error as error:
            with pytest.raises(EngineError) as caught:
                both.engine.source_ids(special, text, image_count)
            assert str(caught.value) == str(error)
        else:
            assert both.engine.source_ids(special, text, image_count) == expected, ascii(text)


def test_own_image_tokens_beside_an_image(both):
    with pytest.raises(EngineError, match="contains <image_soft_token>, .* write only <start_of_image> where"):
        both.engine.source_ids(both.special, "<image_soft_token><start_of_image>", 1)


def test_suppressed_ids(both):
    assert both.engine.suppressed_ids(both.special) == both.runner.suppressed_ids()
    assert set(both.engine.suppressed_ids(both.special | {"image_id": None})) < set(both.runner.suppressed_ids())


@pytest.mark.parametrize("role", ["bos", "eos", "pad", "boi", "eoi", "image"])
def test_special_id_outside_the_vocabulary(both, role):
    with pytest.raises(EngineError, match=f"tokenizer.bin: no token has the id 256001, which the config calls {role};"):
        both.engine.source_ids(both.special | {f"{role}_id": 256001}, "")


# --- stop strings ---


@pytest.fixture(scope="module")
def nano_engine(tmp_path_factory):
    file = tmp_path_factory.mktemp("nano") / "tokenizer.bin"
    write_tokenizer(CHECKPOINT_DIR / "tokenizer.json", file)
    engine = Engine(file)
    yield engine
    engine.close()


def stopped(strings: list[str], pieces: list[str]) -> list[tuple[bool, str]]:
    stop, shown = TextStop(strings), []
    for piece in pieces:
        text = stop.push(piece) if piece else stop.flush()
        shown.append((stop.stopped, text))
    return [*shown, (stop.stopped, stop.flush())]


@settings(deadline=None, max_examples=1000)
@given(
    strings=st.lists(st.text("abé🫠", max_size=6), max_size=4),
    pieces=st.lists(st.text("abé🫠\n", max_size=6), max_size=20),
)
def test_stop_strings(nano_engine, strings, pieces):
    assert nano_engine.stop(strings, pieces) == stopped(strings, pieces)


def test_long_stop_string_takes_linear_time(nano_engine):
    string, pieces = "a" * 50_000 + "b", ["a" * 100] * 1000
    start = time.perf_counter()
    shown = nano_engine.stop([string], pieces)
    assert time.perf_counter() - start < 2  # 50000 * 100000 comparisons would take longer
    assert "".join(text for _, text in shown) == "".join(pieces)


def test_stop_string_that_is_not_utf8(nano_engine):
    with pytest.raises(EngineError, match="stop string is not valid UTF-8 at byte 1;"):
        nano_engine.stop([b"a\xff"], [])


# --- damaged files ---


def test_absent_file(tmp_path, nano_engine):
    with pytest.raises(EngineError, match="absent.bin: cannot read it"):
        nano_engine.load(tmp_path / "absent.bin")


def test_another_version(both, tmp_path):
    content = bytearray(both.file.read_bytes())
    content[8] = 2
    refused(both, tmp_path, content, "tokenizer format 2, and this library reads 1; export the bundle again")


def test_truncated_files(both, tmp_path):
    content = both.file.read_bytes()
    tokens, merges, characters, literal, normalized, unused, names = struct.unpack_from("<7I", content, 16)
    counts = [merges * 8, characters * 8, 4 * (tokens + 1), 4 * (tokens + 1), 8 * literal, 8 * normalized, 4 * unused, names]
    sections = [1072]
    for size in counts:
        sections.append(sections[-1] + size)
    assert sections[-1] == len(content)
    for size in {0, 1, 8, 12, 1071, *sections, *(s + 1 for s in sections), *(s - 1 for s in sections)} - {len(content)}:
        refused(both, tmp_path, (content + b"\0")[:size], "not an intact tokenizer")


def test_added_token_that_is_not_utf8(both, tmp_path):
    """It would be found within characters, and leave parts of them."""
    content = bytearray(both.file.read_bytes())
    tokens, merges, characters = struct.unpack_from("<3I", content, 16)
    starts = 1072 + 8 * merges + 8 * characters + 4 * (tokens + 1)
    names = len(content) - struct.unpack_from("<I", content, 40)[0]
    last = max((t.content.encode(), i) for i, t in both.reference.get_added_tokens_decoder().items() if not t.normalized)[1]
    (end,) = struct.unpack_from("<I", content, starts + 4 * (last + 1))
    content[names + end - 1] = 0xF0
    refused(both, tmp_path, content, "an added token is not UTF-8")


def refused(both, tmp_path, content: bytes, message: str):
    (tmp_path / "bad.bin").write_bytes(content)
    with pytest.raises(EngineError, match=message) as caught:
        both.engine.load(tmp_path / "bad.bin")
    assert str(caught.value).startswith(str(tmp_path / "bad.bin")) and "\n" not in str(caught.value)
    both.engine.load(both.file)


def test_flipped_bytes(both, tmp_path):
    """A damaged file is refused, or gives something or an Error in use; the program lives on, under sanitizers too."""
    content, rng = both.file.read_bytes(), random.Random(0)
    ids, errors = list(range(-1, both.runner.vocab_size + 1)), 0
    for n in range(300):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 3, 100])):
            at = rng.randrange(48) if n % 3 == 0 else rng.randrange(len(content))
            changed[at] = rng.choice([0, 255, rng.randrange(256), changed[at] ^ 1 << rng.randrange(8)])
        (tmp_path / "bad.bin").write_bytes(changed)
        try:
            both.engine.load(tmp_path / "bad.bin")
            both.engine.encode("".join(FRAGMENTS))
            both.engine._ask("D", _pack(0, *ids))
            both.engine._ask("T", _pack(*ids))
        except EngineError as error:
            assert "bad.bin: " in str(error) and "export the bundle again" in str(error)
            errors += 1
    assert errors > 50
    both.engine.load(both.file)


# --- conversion ---


def converted(data: dict, folder: Path) -> bytes:
    (folder / "tokenizer.json").write_text(json.dumps(data))
    write_tokenizer(folder / "tokenizer.json", folder / "tokenizer.bin")
    return (folder / "tokenizer.bin").read_bytes()


def sequence(key: str, *parts: dict) -> dict:
    return {"type": "Sequence", key: list(parts)}


def test_same_tokenizer_written_differently(tmp_path):
    data = nano()
    expected = converted(data, tmp_path)
    merges = [" ".join(pair) for pair in data["model"]["merges"]]
    for same in (
        data | {"normalizer": sequence("normalizers", data["normalizer"])},
        data | {"pre_tokenizer": None, "post_processor": None},
        with_model(data, merges=merges),
        with_model(data, merges=[merges[-1].split(" "), *data["model"]["merges"]]),  # the later of two counts
        with_model(data, dropout=0.0, continuing_subword_prefix="", end_of_word_suffix=""),
    ):
        assert converted(same, tmp_path) == expected


NFC = {"type": "NFC"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
OTHERS = {
    'type is "WordLevel"': lambda d: d | {"model": WORDS},
    "normalizer is null": lambda d: d | {"normalizer": None},
    'normalizer is {"type": "NFC"}': lambda d: d | {"normalizer": NFC},
    'normalizer is {"type": "Sequence"': lambda d: d | {"normalizer": sequence("normalizers", d["normalizer"], NFC)},
    'pre_tokenizer is {"type": "Whitespace"}': lambda d: d | {"pre_tokenizer": {"type": "Whitespace"}},
    'pre_tokenizer is {"type": "Split"': lambda d: d | {"pre_tokenizer": d["pre_tokenizer"] | {"invert": True}},
    "decoder is null": lambda d: d | {"decoder": None},
    'decoder is {"type": "Sequence"': lambda d: d | {"decoder": sequence("decoders", *d["decoder"]["decoders"], STRIP)},
    "dropout is 0.5": lambda d: with_model(d, dropout=0.5),
    'continuing_subword_prefix is "#"': lambda d: with_model(d, merges=[], continuing_subword_prefix="#"),
    'end_of_word_suffix is "</w>"': lambda d: with_model(d, end_of_word_suffix="</w>"),
    "ignore_merges is true": lambda d: with_model(d, ignore_merges=True),
    'unk_token "<what>" is not in': lambda d: with_model(d, unk_token="<what>"),
    "single_word": lambda d: with_added(d, [added("word", single_word=True)]),
    'added token "a b" is special': lambda d: with_added(d, [added("a b", normalized=True, special=True)]),
    'added token " x" is special': lambda d: with_added(d, [added(" x", normalized=True), added("▁x", special=True)]),
    "ids of its vocabulary are not 0 to 1279": lambda d: with_model(d, vocab=d["model"]["vocab"] | {"<pad>": 5000}),
    "ids of its vocabulary are not 0 to 1280": lambda d: with_model(d, vocab=d["model"]["vocab"] | {"~~": 7}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_tokenizers_are_refused(tmp_path, what):
    with pytest.raises(T5g2Error, match=what) as caught:
        converted(OTHERS[what](nano()), tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer.json"))
    assert str(caught.value).endswith("; keep the tokenizer.json of the base model") and "\n" not in str(caught.value)
    assert not (tmp_path / "tokenizer.bin").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b"version https://git-lfs", None])
def test_damaged_tokenizer_json(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(T5g2Error, match="tokenizer.json: .*; copy tokenizer.json from the checkpoint again"):
        write_tokenizer(file, tmp_path / "tokenizer.bin")
