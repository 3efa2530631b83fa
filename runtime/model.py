"""T5Gemma 2 in Python: generators, exceptions and numpy over the engine (t5g2.h).

    with t5g2.load("out/nano-int4") as model:
        print(model.generate("ISO date: the 3rd of March 2021").text)

        session = model.session("<start_of_image> What number is shown?", ["number.png"])  # encoded once, asked often
        for token in session.stream(temperature=0.7):
            print(token.text, end="", flush=True)
        print([score.total for score in session.score(["17", "71"])])

Models and sessions never change once made and may be used from several threads; calls into the engine leave the GIL to
others. Everything raises UsageError for an argument that no input could satisfy, and T5g2Error where a file or an input is
wrong.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import BinaryIO, Self, TypedDict, Unpack

import numpy as np
from PIL import Image

from t5g2.runtime import arguments, bindings, litert
from t5g2.runtime.bindings import Handle, check, fill, library, new_handle
from t5g2.runtime.bundle import Limits
from t5g2.runtime.errors import UsageError

# A text, with one <start_of_image> per picture; or ids taken as they are, BOS included and pictures' blocks expanded.
Source = str | Sequence[int]
# A path, a file opened for reading, a PIL image, or uint8 [height, width, 3 (RGB) or 4 (RGBA, laid over white)].
Picture = str | os.PathLike | BinaryIO | Image.Image | np.ndarray


class Options(TypedDict, total=False):
    """How a target is generated. The order in which options act: repetition_penalty, no_repeat_ngram, min_new_tokens,
    suppressed, temperature, top_k, top_p, min_p."""

    max_new_tokens: int | None  # None (default): all that the bundle's max_target leaves; never more
    min_new_tokens: int  # no stop id before that many; default 0
    temperature: float  # 0 (default): greedy, the likeliest token
    top_k: int  # sample from the k likeliest; 0 (default): all
    top_p: float  # of those, from the likeliest that together reach probability p; 1 (default): all
    min_p: float  # of those, from the ones at least min_p times as likely as the likeliest; 0 (default): all
    repetition_penalty: float  # > 1 makes tokens that the target already holds less likely; 1 (default): off
    no_repeat_ngram: int  # no run of that many tokens twice in a target; 0 (default): off
    seed: int | None  # the same seed gives the same tokens; None (default): a new one each time
    beams: int  # > 1: beam search over that many, at most 64, greedy and without stop texts; 1 (default): off
    length_penalty: float  # of beams, -10 to 10: log-probability is divided by length ** penalty; default 1
    early_stopping: bool  # of beams: stop when `beams` targets ended; False (default): when none can still become better
    prefix: str | Sequence[int]  # the target begins with this, which is not part of the result; default nothing
    stop: str | int | Sequence[str | int]  # texts that the target ends before, ids that end it beside the bundle's own
    suppressed: Sequence[int]  # ids that are never chosen
    suppress_unused: bool  # never choose the vocabulary's unused and image tokens either; default True
    logprobs: int | None  # 0: of the chosen token; n: of the n likeliest too, at most 100; None (default): none


@dataclass(frozen=True)
class Token:
    """A token, and the text that it makes safe to show: often empty, never part of a character or of a stop string.

    id: None in the last item of a stream that only brings text which had been held back.
    logprob: the natural log of the model's probability, before all options. top: (id, logprob), likeliest first.
    """

    id: int | None
    text: str
    logprob: float | None = None
    top: list[tuple[int, float]] | None = None


@dataclass(frozen=True)
class Result:
    """A target. text: without the stop string. ids: without BOS, prefix and the id that stopped it.

    finish_reason: "stop" (a stop id or a stop string), "length" (max_new_tokens), "cancelled"; None while a stream goes on.
    score: of beams, sum of log-probabilities / length ** length_penalty. logprobs, top: as in Token, for each of ids.
    """

    text: str
    ids: list[int]
    finish_reason: str | None
    source_tokens: int
    score: float | None = None
    logprobs: list[float] | None = None
    top: list[list[tuple[int, float]]] | None = None


@dataclass(frozen=True)
class Score:
    """How likely a given target is. logprobs: of each of its tokens after those before it; total: their sum."""

    total: float
    logprobs: list[float]


def load(
    path: str | os.PathLike,
    threads: int | None = None,
    cache_folder: str | os.PathLike | None = None,
    weight_cache: bool = True,
) -> Model:
    """Opens a bundle made by t5g2-export.

    threads: 1 to 256, of the one pool that the whole process shares; None: ExecuTorch's choice. Of a LiteRT bundle: its own,
    and one for each CPU.
    cache_folder: where it is remembered which files were checked against their hash; "": nowhere, so that every start
    hashes; None: $XDG_CACHE_HOME/t5g2 or ~/.cache/t5g2.
    weight_cache: whether the packed weights of a LiteRT bundle are kept in that folder too, about as large as the bundle, for
    a start that does not pack again and less memory; other bundles need no packing.

    Raises T5g2Error for a bundle that is missing, truncated, altered, or of another format, and for a LiteRT bundle without
    ai-edge-litert.
    """
    options = arguments.engine_options(threads, cache_folder)
    bundle = arguments.path_bytes("the bundle", path)
    keep_weights = arguments.flag("weight_cache", weight_cache)
    programs = litert.programs_of(path, threads, cache_folder if keep_weights else "")
    if programs:
        options.programs = ctypes.pointer(programs.functions)
    engine = new_handle("t5g2_engine_open", "t5g2_engine_free", bundle, options)
    if programs:
        programs.load()
        engine.made_from.append(programs)
    return Model(engine)


class _Closable:
    """The owner of a handle. Closing gives it up; memory goes with the last thing made from it."""

    _kind: str

    def __init__(self, handle: Handle) -> None:
        self._handle: Handle | None = handle

    def close(self) -> None:
        """Frees it; it cannot be used afterwards. What is not closed is freed with its last reference."""
        self._handle = None

    def _open(self) -> Handle:
        handle = self._handle  # another thread may close it
        if handle is None:
            raise UsageError(f"this {self._kind} was closed; make a new one")
        return handle

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Model(_Closable):
    """An opened bundle.

    limits: its longest source and target. manifest: what its manifest.json says. stop_ids: ids that end a target.
    vocab_size, hidden_size: widths of logits and of encoder states.
    """

    _kind = "model"

    def __init__(self, handle: Handle) -> None:
        """See `load`."""
        super().__init__(handle)
        self.manifest: dict = json.loads(library().t5g2_engine_manifest(handle))
        self.limits = Limits(**self.manifest["limits"])
        self.stop_ids: frozenset[int] = frozenset(self.manifest["tokens"]["eos"])
        info = bindings.EngineInfo(size=ctypes.sizeof(bindings.EngineInfo))
        check(library().t5g2_engine_get_info(handle, info))
        self.bos_id: int = info.bos_id
        self._eos_id: int = info.eos_id
        self.vocab_size: int = info.vocab_size
        self.hidden_size: int = info.hidden_size
        self._image_side: int = info.image_side

    @property
    def kernels(self) -> str:
        """Those in use: portable, avx2, avx512vnni, amx, neon, neon_dotprod or neon_i8mm; xnnpack or litert for a bundle of
        such programs."""
        return library().t5g2_engine_kernels(self._open()).decode()

    def session(self, source: Source, images: Iterable[Picture] = (), pixels: np.ndarray | None = None) -> Session:
        """Encodes a source, to generate from it, score against it or take its states.

        images: in the order of their markers. pixels: instead of images, float32 [images, 3, side, side], resized and
        normalised already. Raises T5g2Error for a source longer than the limit, images that do not match the markers, an
        image that cannot be read, and ids outside the vocabulary.
        """
        found = arguments.source(source, images, pixels, self._image_side)
        return self._session("t5g2_session_new", found)

    def load_session(self, path: str | os.PathLike) -> Session:
        """What Session.save wrote. Raises T5g2Error for a damaged file, and for one of another model or quantization."""
        file = arguments.path_bytes("the session", path)
        return self._session("t5g2_session_load", file)

    def generate(self, source: Source, images: Iterable[Picture] = (), **options: Unpack[Options]) -> Result:
        """Encodes a source and generates its target: see `session` and `Options`."""
        return self.session(source, images).generate(**options)

    def stream(self, source: Source, images: Iterable[Picture] = (), **options: Unpack[Options]) -> Stream:
        """Encodes a source and yields the tokens of its target as they are made: see `session` and `Options`."""
        return self.session(source, images).stream(**options)

    def beams(self, source: Source, images: Iterable[Picture] = (), beams: int = 4, **options: Unpack[Options]) -> list[Result]:
        """Encodes a source and searches its likeliest targets: see `Session.beams`."""
        return self.session(source, images).beams(beams, **options)

    def logits(self, source_ids: Sequence[int], target_ids: Sequence[int], pixels: np.ndarray | None = None) -> np.ndarray:
        """Teacher-forced logits, float32 [len(target_ids), vocab]: see `session` and `Session.logits`."""
        return self.session(source_ids, pixels=pixels).logits(target_ids)

    def source_ids(self, text: str, images: int = 0) -> list[int]:
        """Ids of a source text: BOS first, no EOS, each of its <start_of_image> expanded to a picture's block of tokens."""
        content = arguments.text_bytes("the source", text)
        count = arguments.count("images", images)
        return fill("t5g2_source_ids", ctypes.c_int32, self._open(), content, len(content), count)[:]

    def target_ids(self, text: str) -> list[int]:
        """Ids of a target text: no BOS, no EOS, nothing expanded."""
        return _target_ids(self._open(), text)

    def text(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ids. Bytes that are not UTF-8 give U+FFFD; unknown ids, and special ones unless asked for, nothing."""
        ids, skip = arguments.id_array("ids", ids), arguments.flag("skip_special", skip_special)
        return bytes(fill("t5g2_text_of_ids", ctypes.c_char, self._open(), ids, len(ids), skip)).decode()

    def _session(self, create: str, argument) -> Session:
        engine = self._open()
        return Session(engine, self._eos_id, new_handle(create, "t5g2_session_free", engine, argument))


class Session(_Closable):
    """An encoded source: ask it any number of targets. Made by `Model.session` and `Model.load_session`.

    ids: of the source, as they were encoded.
    """

    _kind = "session"

    def __init__(self, engine: Handle, eos_id: int, handle: Handle) -> None:
        super().__init__(handle)
        self._engine = engine
        self._eos_id = eos_id
        self.ids: list[int] = fill("t5g2_session_ids", ctypes.c_int32, handle)[:]

    def generate(self, **options: Unpack[Options]) -> Result:
        """Generates a target: see `Options`."""
        stream = self.stream(**options)
        for _ in stream:
            pass
        return stream.result()

    def stream(self, **options: Unpack[Options]) -> Stream:
        """Yields one `Token` as each is made: see `Options`. Options are refused here, before the first token."""
        return Stream(self._open(), arguments.generation_options(**options), len(self.ids))

    def beams(self, beams: int = 4, **options: Unpack[Options]) -> list[Result]:
        """What beam search finds, where `generate(beams=...)` gives only the best: as many targets as beams, 2 to 64, best
        first, with their score. See `Options`; instead of logprobs, `score` the ids of those that matter.
        """
        if arguments.whole("beams", beams) < 2:
            raise UsageError(f"beams: {beams}; give 2 to 64, or generate a single target")
        if options.get("logprobs") is not None:
            raise UsageError("logprobs: of the best beam only, by generate(beams=...); score the ids of the others")
        return self.stream(beams=beams, **options)._search(beams)

    def logits(self, target_ids: Sequence[int]) -> np.ndarray:
        """Teacher-forced logits, float32 [len(target_ids), vocab]: row i after reading target_ids[: i + 1], no BOS added."""
        ids = arguments.id_array("target_ids", target_ids)
        found = fill("t5g2_session_logits", ctypes.c_float, self._open(), ids, len(ids))
        return np.ctypeslib.as_array(found).reshape(len(ids), -1)

    def score(self, targets: Iterable[str | Sequence[int]], end: bool = True) -> list[Score]:
        """How likely the model finds each of the targets, texts or ids after BOS, whatever the options of generation.

        end: with the EOS that ends it, so that a target is scored as a whole answer and not as the start of a longer one.
        """
        ending = [self._eos_id] if arguments.flag("end", end) else []
        return [self._score(target, ending) for target in arguments.items("targets", targets, "texts or lists of ids")]

    def _score(self, target: str | Sequence[int], ending: list[int]) -> Score:
        handle = self._open()
        if isinstance(target, str):
            target = _target_ids(self._engine, target)
        ids = arguments.id_array("targets", [*arguments.items("targets", target, "token ids"), *ending])
        logprobs = fill("t5g2_session_score", ctypes.c_float, handle, ids, len(ids))[:]
        return Score(math.fsum(logprobs), logprobs)

    def states(self, pooled: bool = False) -> np.ndarray:
        """The encoder's output after its last norm, float32 [len(ids), hidden]; pooled: its mean over all tokens, [hidden]."""
        found = fill("t5g2_session_states", ctypes.c_float, self._open(), arguments.flag("pooled", pooled))
        states = np.ctypeslib.as_array(found)
        return states if pooled else states.reshape(len(self.ids), -1)

    def fork(self) -> Session:
        """Another session on the same encoded source, which both share: nothing is copied."""
        return Session(self._engine, self._eos_id, new_handle("t5g2_session_fork", "t5g2_session_free", self._open()))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the encoded source to a file for `Model.load_session`; it appears whole or not at all."""
        check(library().t5g2_session_save(self._open(), arguments.path_bytes("the session", path)))


class Stream(_Closable, Iterator[Token]):
    """The tokens of a target, each made when it is asked for. Made by `Model.stream` and `Session.stream`.

    It may be dropped half-way, closed, and cancelled from another thread.
    """

    _kind = "stream"

    def __init__(self, session: Handle, options: bindings.GenerationOptions, source_tokens: int) -> None:
        super().__init__(new_handle("t5g2_generation_start", "t5g2_generation_free", session, options))
        self._source_tokens = source_tokens
        self._beams = options.beams
        self._logprobs: list[float] | None = [] if options.logprobs >= 0 else None
        self._top: list[list[tuple[int, float]]] | None = [] if options.logprobs > 0 else None
        self._turn = threading.Lock()  # a generation belongs to one thread at a time

    def __next__(self) -> Token:
        with self._turn:
            if (generation := self._handle) is None:
                raise StopIteration
            made = bindings.Token()
            if check(library().t5g2_generation_next(generation, made)) != bindings.OK:
                raise StopIteration
            return self._token(made)

    def _token(self, made: bindings.Token) -> Token:
        text = ctypes.string_at(made.text, made.text_length).decode()
        if made.id < 0:
            return Token(None, text)
        logprob = top = None
        if self._logprobs is not None:
            logprob = made.logprob
            self._logprobs.append(logprob)
        if self._top is not None:
            top = list(zip(made.top_ids[: made.top_count], made.top_logprobs[: made.top_count]))
            self._top.append(top)
        return Token(made.id, text, logprob, top)

    def cancel(self) -> None:
        """From any thread: ends the stream once the program call in progress ends; its finish_reason is then "cancelled"."""
        if (generation := self._handle) is not None:
            library().t5g2_generation_cancel(generation)

    def result(self) -> Result:
        """What was generated so far."""
        with self._turn:
            return self._result(0)

    def _search(self, beams: int) -> list[Result]:
        next(self, None)
        return [result for index in range(beams) if (result := self._result(index))]

    def _result(self, index: int) -> Result | None:
        """None: suppressing tokens left fewer beams."""
        generation, found = self._open(), bindings.Result()  # held while its memory is read, should another thread close
        status = library().t5g2_generation_result(generation, index, found)
        if index and status == bindings.USAGE:
            return None
        check(status)
        return Result(
            text=ctypes.string_at(found.text, found.text_length).decode(),
            ids=found.ids[: found.id_count],
            finish_reason=bindings.FINISH_REASONS[found.finish],
            source_tokens=self._source_tokens,
            score=found.score if self._beams > 1 else None,
            logprobs=copy(self._logprobs),
            top=copy(self._top),
        )


def _target_ids(engine: Handle, text: str) -> list[int]:
    content = arguments.text_bytes("the target", text)
    return fill("t5g2_target_ids", ctypes.c_int32, engine, content, len(content))[:]
