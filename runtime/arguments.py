"""What Python callers pass, checked and in the form that t5g2.h takes. Raises UsageError for what is of the wrong type."""

from __future__ import annotations

import ctypes
import operator
import os
import reprlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from t5g2.runtime import bindings
from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.images import load_image


def text_bytes(name: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise UsageError(f"{name}: {_shown(text)}; give a text")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise T5g2Error(
            f"{name}: has half of a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}, "
            "which is not valid Unicode; read the input as UTF-8, or with errors='replace'"
        ) from None


def path_bytes(name: str, path: str | os.PathLike) -> bytes:
    try:
        return _without_nul(name, os.fsencode(path))
    except (TypeError, UnicodeEncodeError):
        raise UsageError(f"{name}: {_shown(path)}; give a path") from None


def whole(name: str, value: int, bits: int = 32) -> int:
    """A whole number that a signed integer of that many bits holds."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name}: {_shown(value)}; give a whole number") from None
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise UsageError(f"{name}: {_shown(number)}; give a number of at most {bits} bits")
    return number


def real(name: str, value: float) -> float:
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name}: {_shown(value)}; give a number") from None


def flag(name: str, value: bool) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise UsageError(f"{name}: {_shown(value)}; give True or False")
    return bool(value)


def count(name: str, value: int) -> int:
    if (number := whole(name, value)) < 0:
        raise UsageError(f"{name}: {number}; give 0 or more")
    return number


def items(name: str, values: Iterable, of: str) -> list:
    """As a list. Texts, paths and files can be iterated over too, and are never meant so."""
    try:
        if isinstance(values, (str, bytes, os.PathLike)) or hasattr(values, "read"):
            raise TypeError
        return list(values)
    except TypeError:
        raise UsageError(f"{name}: {_shown(values)}; give a list of {of}") from None


def id_array(name: str, ids: Iterable[int]) -> ctypes.Array:
    """int32 [n]. Whether the vocabulary has them is the engine's to check."""
    return _array(ctypes.c_int32, [whole(name, i) for i in items(name, ids, "token ids")])


def engine_options(threads: int | None, cache_folder: str | os.PathLike | None) -> bindings.EngineOptions:
    options = bindings.EngineOptions()
    bindings.library().t5g2_engine_defaults(options)
    if threads is not None:
        options.threads = whole("threads", threads)
        if not options.threads:  # t5g2.h's way to say None
            raise UsageError("threads: 0; must be 1 to 256")
    if cache_folder is not None:
        options.cache_folder = path_bytes("cache_folder", cache_folder)
    return options


def source(text_or_ids: str | Iterable[int], images: Iterable, pixels: np.ndarray | None, side: int) -> bindings.Source:
    """side: of the bundle's pictures in pixels; 0 where it has no vision, which is the engine's to say."""
    found = bindings.Source()
    if isinstance(text_or_ids, str):
        found.text = text = text_bytes("the source", text_or_ids)
        found.text_length = len(text)
    else:
        found.ids = ids = id_array("the source", text_or_ids)
        found.id_count = len(ids)
    images = [_image(image) for image in items("images", images, "pictures")]
    if images and pixels is not None:
        raise UsageError("images and pixels: give one of them, not both")
    if images:
        found.images, found.image_count = _array(bindings.Image, images), len(images)
    if pixels is not None:
        pixels = _pixels(pixels, side)
        found.pixels, found.image_count = np.ctypeslib.as_ctypes(pixels.reshape(-1)), len(pixels)
    return found


def generation_options(
    *,
    max_new_tokens: int | None = None,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    seed: int | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    prefix: str | Iterable[int] = (),
    stop: str | int | Iterable[str | int] = (),
    suppressed: Iterable[int] = (),
    suppress_unused: bool = True,
    logprobs: int | None = None,
) -> bindings.GenerationOptions:
    """Those of `t5g2.runtime.model.Options`. Ranges are the engine's to check."""
    options = bindings.GenerationOptions()
    bindings.library().t5g2_generation_defaults(options)
    if max_new_tokens is not None:
        options.max_new_tokens = whole("max_new_tokens", max_new_tokens)
        if not options.max_new_tokens:  # t5g2.h's way to say None
            raise UsageError("max_new_tokens: 0; give 1 or more, or None for all that the bundle's --max-target leaves")
    options.min_new_tokens = whole("min_new_tokens", min_new_tokens)
    options.temperature = real("temperature", temperature)
    options.top_k = whole("top_k", top_k)
    options.top_p = real("top_p", top_p)
    options.min_p = real("min_p", min_p)
    options.repetition_penalty = real("repetition_penalty", repetition_penalty)
    options.no_repeat_ngram = whole("no_repeat_ngram", no_repeat_ngram)
    if seed is not None:
        options.seed = whole("seed", seed, bits=64)
        if options.seed < 0:
            raise UsageError(f"seed: {seed}; give 0 or more, or None for a new one each time")
    options.beams = whole("beams", beams)
    options.length_penalty = real("length_penalty", length_penalty)
    options.early_stopping = flag("early_stopping", early_stopping)
    if isinstance(prefix, str):
        options.prefix_text = text = text_bytes("prefix", prefix)
        options.prefix_text_length = len(text)
    else:
        options.prefix_ids = ids = id_array("prefix", prefix)
        options.prefix_id_count = len(ids)
    stops = [stop] if isinstance(stop, (str, int, np.integer)) else items("stop", stop, "strings or token ids")
    strings = [_without_nul("stop", text_bytes("stop", s)) for s in stops if isinstance(s, str)]
    options.stop_strings, options.stop_string_count = _array(ctypes.c_char_p, strings), len(strings)
    options.stop_ids = ids = id_array("stop", [s for s in stops if not isinstance(s, str)])
    options.stop_id_count = len(ids)
    options.suppressed_ids = ids = id_array("suppressed", suppressed)
    options.suppressed_id_count = len(ids)
    options.suppress_unused = flag("suppress_unused", suppress_unused)
    if logprobs is not None:
        options.logprobs = whole("logprobs", logprobs)
        if options.logprobs < 0:
            raise UsageError(f"logprobs: {logprobs}; give 0 (of the chosen token), n (of the n likeliest too), or None")
    return options


def _image(image) -> bindings.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise UsageError(
                f"images: an array of {image.dtype} {list(image.shape)}; give uint8 [height, width, 3 (RGB) or 4 (RGBA)]"
            )
        height, width, channels = image.shape
    else:
        if isinstance(image, (str, os.PathLike)) or hasattr(image, "read"):
            image = load_image(image)
        elif not isinstance(image, Image.Image):
            raise UsageError(f"images: {_shown(image)}; give paths, files, PIL images or arrays")
        image = _decoded(image)
        (width, height), channels = image.size, len(image.mode)
    return bindings.Image(pixels=image.tobytes(), width=width, height=height, channels=channels)


def _decoded(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where it is transparent. A file that was opened lazily fails only here."""
    try:
        transparent = "A" in image.getbands() or image.info.get("transparency") is not None
        return image.convert("RGBA" if transparent else "RGB")
    except MemoryError:
        raise
    except Exception as error:
        name = getattr(image, "filename", "") or "the image"
        raise T5g2Error(f"{name}: damaged image file ({_line(error)}); save it again as PNG or JPEG") from error


def _pixels(pixels: np.ndarray, side: int) -> np.ndarray:
    """float32 [images, 3, side, side] of its own."""
    try:
        pixels = np.array(pixels, dtype=np.float32, order="C")
    except (TypeError, ValueError):
        raise UsageError("pixels: not an array of numbers; give float32 [images, 3, side, side]") from None
    if pixels.ndim != 4 or (side and pixels.shape[1:] != (3, side, side)):
        found, expected = list(pixels.shape[1:]), [3, side, side]
        raise T5g2Error(f"pixels of shape {found} where {expected} is expected; resize the image")
    return pixels


def _array(element, values: list) -> ctypes.Array:
    return (element * len(values))(*values)


def _without_nul(name: str, content: bytes) -> bytes:
    if b"\0" in content:
        raise UsageError(f"{name}: {_shown(content)} holds a NUL; leave it out")
    return content


def _shown(value) -> str:
    return _line(reprlib.repr(value))


def _line(message) -> str:
    return " ".join(str(message).split())
