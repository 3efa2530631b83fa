"""t5g2.h, the engine's C header, in ctypes. What things mean is said there; here they only get their Python types."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterable
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path

from t5g2.runtime.errors import T5g2Error, UsageError

API_VERSION = 2
LIBRARY = Path(__file__).with_name("libt5g2.so")

OK, DONE, CANCELLED, ERROR, USAGE = 0, 1, 2, -1, -2  # t5g2_status
FINISH_REASONS = {0: None, 1: "stop", 2: "length", 3: "cancelled"}  # t5g2_finish


class Programs(ctypes.Structure):
    ENCODE = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p)
    STEP = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int32, c_size_t, c_size_t, c_void_p, c_void_p, c_void_p)
    VISION = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)
    ERROR = ctypes.CFUNCTYPE(c_void_p, c_void_p)
    _fields_ = [
        ("size", c_size_t),
        ("context", c_void_p),
        ("encode", ENCODE),
        ("step", STEP),
        ("vision", VISION),
        ("error", ERROR),
    ]


class EngineOptions(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("threads", c_int32), ("cache_folder", c_char_p), ("programs", POINTER(Programs))]


class EngineInfo(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("max_source", c_int32),
        ("max_target", c_int32),
        ("vocab_size", c_int32),
        ("hidden_size", c_int32),
        ("has_tokenizer", c_int32),
        ("has_vision", c_int32),
        ("image_side", c_int32),
        ("image_tokens", c_int32),
        ("bos_id", c_int32),
        ("eos_id", c_int32),
        ("threads", c_int32),
        ("read_seconds", c_double),
        ("load_seconds", c_double),
    ]


class Image(ctypes.Structure):
    _fields_ = [
        ("pixels", c_char_p),  # which keeps the bytes that it is set to
        ("width", c_int32),
        ("height", c_int32),
        ("channels", c_int32),
        ("stride", c_size_t),
    ]


class Source(ctypes.Structure):
    _fields_ = [
        ("text", c_char_p),
        ("text_length", c_size_t),
        ("ids", POINTER(c_int32)),
        ("id_count", c_size_t),
        ("images", POINTER(Image)),
        ("image_count", c_size_t),
        ("pixels", POINTER(c_float)),
    ]


class GenerationOptions(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("max_new_tokens", c_int32),
        ("min_new_tokens", c_int32),
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("no_repeat_ngram", c_int32),
        ("seed", c_int64),
        ("beams", c_int32),
        ("length_penalty", c_float),
        ("early_stopping", c_int32),
        ("prefix_text", c_char_p),
        ("prefix_text_length", c_size_t),
        ("prefix_ids", POINTER(c_int32)),
        ("prefix_id_count", c_size_t),
        ("stop_ids", POINTER(c_int32)),
        ("stop_id_count", c_size_t),
        ("stop_strings", POINTER(c_char_p)),
        ("stop_string_count", c_size_t),
        ("suppressed_ids", POINTER(c_int32)),
        ("suppressed_id_count", c_size_t),
        ("suppress_unused", c_int32),
        ("logprobs", c_int32),
    ]


class Token(ctypes.Structure):
    _fields_ = [
        ("id", c_int32),
        ("text", c_void_p),  # not c_char_p, which would end at a NUL
        ("text_length", c_size_t),
        ("logprob", c_float),
        ("top_count", c_size_t),
        ("top_ids", POINTER(c_int32)),
        ("top_logprobs", POINTER(c_float)),
    ]


class Result(ctypes.Structure):
    _fields_ = [
        ("text", c_void_p),
        ("text_length", c_size_t),
        ("ids", POINTER(c_int32)),
        ("id_count", c_size_t),
        ("finish", c_int32),
        ("score", c_double),
    ]


class Handle:
    """An engine, a session or a generation. Freed with its last reference, so that a call in progress keeps what it uses.

    made_from: kept as long: the handles that it was made from, and what runs its programs where that is not the engine.
    """

    def __init__(self, pointer: c_void_p, free, made_from: Iterable = ()) -> None:
        self._as_parameter_ = pointer
        self.made_from = list(made_from)
        weakref.finalize(self, free, pointer).atexit = False  # threads may still be using it there


_ENGINE = _SESSION = _GENERATION = c_void_p
_OUT = POINTER(c_void_p)
_COUNT = POINTER(c_size_t)
_IDS = POINTER(c_int32)
_FLOATS = POINTER(c_float)

# Name, result, arguments.
PROTOTYPES = {
    "t5g2_api_version": (c_uint32, []),
    "t5g2_version": (c_char_p, []),
    "t5g2_error": (c_char_p, []),
    "t5g2_engine_defaults": (None, [POINTER(EngineOptions)]),
    "t5g2_engine_open": (c_int32, [c_char_p, POINTER(EngineOptions), _OUT]),
    "t5g2_engine_free": (None, [_ENGINE]),
    "t5g2_engine_get_info": (c_int32, [_ENGINE, POINTER(EngineInfo)]),
    "t5g2_engine_manifest": (c_char_p, [_ENGINE]),
    "t5g2_engine_kernels": (c_char_p, [_ENGINE]),
    "t5g2_source_ids": (c_int32, [_ENGINE, c_char_p, c_size_t, c_size_t, _IDS, c_size_t, _COUNT]),
    "t5g2_target_ids": (c_int32, [_ENGINE, c_char_p, c_size_t, _IDS, c_size_t, _COUNT]),
    "t5g2_text_of_ids": (c_int32, [_ENGINE, _IDS, c_size_t, c_int32, c_char_p, c_size_t, _COUNT]),
    "t5g2_session_new": (c_int32, [_ENGINE, POINTER(Source), _OUT]),
    "t5g2_session_fork": (c_int32, [_SESSION, _OUT]),
    "t5g2_session_save": (c_int32, [_SESSION, c_char_p]),
    "t5g2_session_load": (c_int32, [_ENGINE, c_char_p, _OUT]),
    "t5g2_session_free": (None, [_SESSION]),
    "t5g2_session_ids": (c_int32, [_SESSION, _IDS, c_size_t, _COUNT]),
    "t5g2_session_states": (c_int32, [_SESSION, c_int32, _FLOATS, c_size_t, _COUNT]),
    "t5g2_session_logits": (c_int32, [_SESSION, _IDS, c_size_t, _FLOATS, c_size_t, _COUNT]),
    "t5g2_session_score": (c_int32, [_SESSION, _IDS, c_size_t, _FLOATS, c_size_t, _COUNT]),
    "t5g2_generation_defaults": (None, [POINTER(GenerationOptions)]),
    "t5g2_generation_start": (c_int32, [_SESSION, POINTER(GenerationOptions), _OUT]),
    "t5g2_generation_next": (c_int32, [_GENERATION, POINTER(Token)]),
    "t5g2_generation_cancel": (None, [_GENERATION]),
    "t5g2_generation_result": (c_int32, [_GENERATION, c_size_t, POINTER(Result)]),
    "t5g2_generation_free": (None, [_GENERATION]),
}


@cache
def library() -> ctypes.CDLL:
    """The engine; the environment variable T5G2_LIBRARY names another file. Raises T5g2Error where it is missing, does not
    load, or is of another version."""
    path = Path(os.environ.get("T5G2_LIBRARY") or LIBRARY)
    if not path.is_file():
        raise T5g2Error(f"{path}: missing; install t5g2 with pip on a machine with a C++ compiler, which builds it")
    try:
        engine = ctypes.CDLL(str(path))
        version = engine.t5g2_api_version()
    except (OSError, AttributeError) as error:
        raise T5g2Error(f"{path}: does not load ({error}); install t5g2 again beside its executorch") from None
    if version != API_VERSION:
        raise T5g2Error(f"{path}: of API version {version}, and this t5g2 needs {API_VERSION}; install t5g2 again")
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(engine, name)
        function.restype, function.argtypes = result, arguments
    return engine


raised = threading.local()  # .error: what a program that runs in Python raised in this thread


def check(status: int) -> int:
    """Raises what a failed call of this thread left in t5g2_error, or a program of ours in it; else returns the status."""
    if status >= 0:
        return status
    if error := raised.__dict__.pop("error", None):
        raise error
    message = library().t5g2_error().decode("utf-8", "replace")
    raise (UsageError if status == USAGE else T5g2Error)(message)


def new_handle(create: str, free: str, *arguments) -> Handle:
    """What the function named `create` makes of the arguments: it takes a place for the pointer after them."""
    engine, pointer = library(), c_void_p()
    check(getattr(engine, create)(*arguments, ctypes.byref(pointer)))
    return Handle(pointer, getattr(engine, free), (a for a in arguments if isinstance(a, Handle)))


def fill(function: str, element, *arguments) -> ctypes.Array:
    """The output buffer of the function: it takes buffer, capacity and count after the arguments, and is asked for the size
    first."""
    call, count = getattr(library(), function), c_size_t()
    check(call(*arguments, None, 0, ctypes.byref(count)))
    buffer = (element * count.value)()
    check(call(*arguments, buffer, len(buffer), ctypes.byref(count)))
    return buffer
