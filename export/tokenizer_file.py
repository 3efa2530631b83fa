"""The engine's tokenizer file, version 1: a tokenizer.json of the Gemma family, laid out to be used where it is mapped.

Numbers are little-endian and unsigned. Ids are 0 to tokens - 1; 2^32 - 1 stands for none. A header of 1072 bytes:

    0     8 bytes   T5G2TOK\\n
    8     uint32    version, 1
    12    uint32    flags. 1: neighbouring characters without a token become one unknown token, not one each.
                    2: no merge reaches from another character into a following ▁, so that words can be encoded singly
    16    uint32    tokens
    20    uint32    merges
    24    uint32    characters
    28    uint32    literal added tokens
    32    uint32    normalized added tokens
    36    uint32    unused tokens
    40    uint32    bytes of names
    44    uint32    id for characters without a token, or none
    48    uint32    [256] ids of the tokens that characters without one fall back to, by byte: <0x00> to <0xFF>; or none

Then, without gaps, 8-byte elements first, which aligns all of them:

    uint64 [merges]              right id << 44 | rank << 20 | merged id; grouped by the left token's id, ascending within
    uint64 [characters]          code point << 32 | id: the tokens of one character, ascending
    uint32 [tokens + 1]          where each left id's merges start, and where the last one's end
    uint32 [tokens + 1]          where each id's name starts, and where the last one ends
    uint32 [literal][2]          id; flags 1: special, 2: takes the whitespace before it, 4: takes the whitespace behind it
    uint32 [normalized][2]       the same. Both are sorted by name, as bytes
    uint32 [unused]              ids of every <unusedN>, ascending
    uint8  [bytes of names]      the names, UTF-8

How a text becomes ids: the literal added tokens are cut out of it, the leftmost first and the longest of those; in what is
between, every space becomes ▁, and the normalized ones are cut out likewise; what is left becomes tokens of one character, or
of one byte each, and the neighbours whose merge has the lowest rank are merged, the leftmost of equals first, until none is
left. How ids become text: names are joined with ▁ as a space, and runs of tokens named <0xXX> as bytes.
"""

from __future__ import annotations

import json
import re
import struct
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers

from t5g2.runtime.errors import T5g2Error

VERSION = 1
_MAGIC = b"T5G2TOK\n"
_ID_BITS, _RANK_BITS = 20, 24
_NONE = 2**32 - 1
_FUSE_UNKNOWN, _WORDS = 1, 2
_SPECIAL, _STRIP_LEFT, _STRIP_RIGHT = 1, 2, 4
_SPACE = "▁"
_UNUSED = re.compile(r"<unused\d+>")

_NORMALIZER = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_PRE_TOKENIZER = {"type": "Split", "pattern": {"String": " "}, "invert": False}  # after the normalizer it finds nothing
_DECODER = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}
_MODEL = {
    "type": ("BPE",),
    "dropout": (None, 0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "ignore_merges": (False,),
}


def write_tokenizer(tokenizer_json: Path, output: Path) -> None:
    """Converts a tokenizer.json. Raises T5g2Error naming the file for one that is damaged, and for one whose ids the engine
    would not make exactly: only Gemma's kind of normalizer, model and decoder are implemented."""
    backend = _load(tokenizer_json)
    data = json.loads(backend.to_str())  # as the library understood it: merges as pairs, added tokens with their ids
    try:
        output.write_bytes(_pack(data, backend))
    except _Unsupported as error:
        raise T5g2Error(f"{tokenizer_json}: {error}; keep the tokenizer.json of the base model") from None


class _Unsupported(Exception):
    """What the tokenizer has that the engine does not implement."""


def _load(path: Path) -> tokenizers.Tokenizer:
    remedy = "copy tokenizer.json from the checkpoint again"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise T5g2Error(f"{path}: cannot read the tokenizer ({error.strerror}); {remedy}") from error
    except UnicodeDecodeError as error:
        raise T5g2Error(f"{path}: not a tokenizer.json (not UTF-8 text); {remedy}") from error
    try:
        return tokenizers.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the library is not an Exception
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise T5g2Error(f"{path}: not a valid tokenizer.json ({why}); {remedy}") from error


def _pack(data: dict, backend: tokenizers.Tokenizer) -> bytes:
    model, vocab = data["model"], backend.get_vocab(with_added_tokens=False)
    _check_kind(data)
    names = _names(vocab, data["added_tokens"])
    merges, starts = _merges(model["merges"], vocab, len(names))
    characters = sorted((ord(name), token_id) for name, token_id in vocab.items() if len(name) == 1)
    literal, normalized = (_added(data["added_tokens"], names, kind) for kind in (False, True))
    unused = [i for i, name in enumerate(names) if _UNUSED.fullmatch(name)]
    encoded = [name.encode() for name in names]
    unknown = model["unk_token"]
    byte_ids = [vocab.get(f"<0x{b:02X}>", _NONE) if model["byte_fallback"] else _NONE for b in range(256)]
    flags = _FUSE_UNKNOWN * model["fuse_unk"] | _WORDS * _has_words(model, vocab)
    counts = [len(names), len(merges), len(characters), len(literal), len(normalized), len(unused)]
    header = [VERSION, flags, *counts, sum(map(len, encoded)), _NONE if unknown is None else vocab[unknown], *byte_ids]
    return b"".join([
        _MAGIC,
        struct.pack(f"<{len(header)}I", *header),
        merges.astype("<u8").tobytes(),
        np.array([code << 32 | token_id for code, token_id in characters], "<u8").tobytes(),
        starts.astype("<u4").tobytes(),
        np.cumsum([0, *map(len, encoded)]).astype("<u4").tobytes(),
        np.array([*chain(*literal), *chain(*normalized), *unused], "<u4").tobytes(),
        *encoded,
    ])


def _check_kind(data: dict) -> None:
    """Raises _Unsupported unless the engine implements what these parts of the file do."""
    normalizer, pre_tokenizer, model = data["normalizer"], data["pre_tokenizer"], data["model"]
    for key, values in _MODEL.items():
        if model.get(key) not in values:
            raise _Unsupported(f"its model's {key} is {_short(model.get(key))}, and only {_short(values[0])} is supported")
    if model["unk_token"] is not None and model["unk_token"] not in model["vocab"]:
        raise _Unsupported(f"its unk_token {_short(model['unk_token'])} is not in its vocabulary")
    if normalizer and normalizer["type"] == "Sequence" and len(normalizer["normalizers"]) == 1:
        (normalizer,) = normalizer["normalizers"]
    if normalizer != _NORMALIZER:
        raise _Unsupported(f"its normalizer is {_short(normalizer)}, and only replacing ' ' by '▁' is supported")
    if pre_tokenizer is not None and any(pre_tokenizer.get(key) != value for key, value in _PRE_TOKENIZER.items()):
        raise _Unsupported(f"its pre_tokenizer is {_short(pre_tokenizer)}, and only none or Split at ' ' is supported")
    if data["decoder"] != _DECODER:
        raise _Unsupported(
            f"its decoder is {_short(data['decoder'])}, and only replacing '▁' by ' ', ByteFallback and Fuse is supported"
        )


def _names(vocab: dict[str, int], added: list[dict]) -> list[str]:
    """The name of every id, as the library gives it."""
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise _Unsupported(f"the ids of its vocabulary are not 0 to {len(vocab) - 1}, each once")
    names = dict(zip(vocab.values(), vocab.keys()))
    special = {token["content"] for token in added if token["special"]}
    for token in added:
        content = token["content"]
        if token["single_word"]:
            raise _Unsupported(f"its added token {_short(content)} is for whole words (single_word), which is not supported")
        name = content.replace(" ", _SPACE) if token["normalized"] else content
        # The library tells by the name whether to leave a token out as special, so that here it would be wrong.
        if name != content and (token["special"] or name in special):
            raise _Unsupported(f"its added token {_short(content)} is special or normalized to one, which is not supported")
        names[token["id"]] = name
    if len(names) > 2**_ID_BITS:
        raise _Unsupported(f"its vocabulary has {len(names)} tokens, and at most {2**_ID_BITS} are supported")
    return [names[i] for i in range(len(names))]


def _merges(pairs: list[list[str]], vocab: dict[str, int], tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """The merges grouped by left id, and where each group starts."""
    if len(pairs) > 2**_RANK_BITS:
        raise _Unsupported(f"it has {len(pairs)} merges, and at most {2**_RANK_BITS} are supported")
    left = np.array([vocab[a] for a, _ in pairs], np.uint64)
    right = np.array([vocab[b] for _, b in pairs], np.uint64)
    merged = np.array([vocab[a + b] for a, b in pairs], np.uint64)
    packed = right << (_RANK_BITS + _ID_BITS) | np.arange(len(pairs), dtype=np.uint64) << _ID_BITS | merged
    order = np.lexsort((right, left))
    return packed[order], np.searchsorted(left[order], np.arange(tokens + 1))


def _added(added: list[dict], names: list[str], normalized: bool) -> list[tuple[int, int]]:
    """Id and flags of the added tokens of one kind, sorted by name."""
    chosen = sorted((t for t in added if t["normalized"] == normalized), key=lambda t: names[t["id"]].encode())
    return [(t["id"], _SPECIAL * t["special"] | _STRIP_LEFT * t["lstrip"] | _STRIP_RIGHT * t["rstrip"]) for t in chosen]


def _has_words(model: dict, vocab: dict[str, int]) -> bool:
    """Whether what stands before a ▁, other than another ▁, is never merged with it."""
    if _SPACE not in vocab or (model["unk_token"] or "").endswith(_SPACE):
        return False
    return not any(b.startswith(_SPACE) and not a.endswith(_SPACE) for a, b in model["merges"])


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."
