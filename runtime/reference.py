"""The reference runner: a bundle opened in Python over ExecuTorch, small and meant to be obviously right.

The oracle that tests hold the engine to, and the place to read how a bundle is run. Programs use `t5g2.load`, the engine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from t5g2.runtime.bundle import Bundle, open_bundle
from t5g2.runtime.errors import T5g2Error, UsageError
from t5g2.runtime.images import load_image, to_pixels
from t5g2.runtime.program import Program, set_threads
from t5g2.runtime.sampler import make_sampler
from t5g2.runtime.text_programs import open_text
from t5g2.runtime.text_stop import TextStop
from t5g2.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class Token:
    """One generated token: its id and the text that it makes safe to show (often empty, never half a character).

    The last item of a stream may carry id None: text that was held back until the end.
    """

    id: int | None
    text: str


@dataclass(frozen=True)
class Result:
    """A generated target. ids: without BOS and without the id that stopped it. text: without the stop string.

    finish_reason: "stop" (a stop id or a stop string) or "length" (max_new_tokens).
    """

    text: str
    ids: list[int]
    finish_reason: str
    source_tokens: int


@dataclass(frozen=True)
class EncodedSource:
    """What the decoder reads of a source: its cross K/V, in the form of the bundle's backend; and the encoder states.

    states: float32 [source tokens, hidden].
    """

    cross: object
    states: np.ndarray


def load(path: str | os.PathLike, threads: int | None = None) -> Model:
    """Opens a bundle. threads: of ExecuTorch's pool, which the whole process shares; None keeps its default.

    Raises T5g2Error for a bundle that is missing, damaged, or of a newer format.
    """
    if threads is not None:
        set_threads(threads)
    return Model(open_bundle(path))


class Model:
    """An opened bundle. Programs are loaded on first use."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.limits = bundle.limits
        config = bundle.manifest["model"]["config"]
        self._decoder_config = config["decoder"]
        self._hidden_size = config["encoder"]["hidden_size"]
        tokens = bundle.manifest["tokens"]
        self.bos_id: int = tokens["bos"]
        self.stop_ids: frozenset[int] = frozenset(tokens["eos"])
        self._image_id: int | None = tokens["image"]
        self._image_tokens: int = tokens["tokens_per_image"]
        self.tokenizer = _open_tokenizer(bundle)
        unused = self.tokenizer.suppressed_ids() if self.tokenizer else []
        self.unused_ids: list[int] = [i for i in unused if i < self._decoder_config["vocab_size"]]
        self._text = open_text(bundle)
        self._vision = Program(bundle.vision_program, bundle.backend == "native") if bundle.vision_program else None

    def generate(self, source: str | Sequence[int], images: Sequence = (), **options) -> Result:
        """Encodes a source and generates its target. Takes the arguments of `stream`."""
        generation = _Generation(self, source, images, **options)
        text = "".join(token.text for token in generation)
        return Result(text, generation.ids, generation.finish_reason, generation.source_tokens)

    def stream(self, source: str | Sequence[int], images: Sequence = (), **options) -> Iterator[Token]:
        """Yields one `Token` as each is produced.

        source: text, with one `<start_of_image>` per image, or ids taken as they are (BOS included, image blocks
        expanded). images: paths, files or PIL images, in the order of their markers.
        max_new_tokens: at most the bundle's max_target, which is the default. min_new_tokens: no stop id before that many.
        temperature (0 is greedy), top_k, top_p, seed: see `t5g2.runtime.sampler.make_sampler`.
        stop: strings that end the text, or ids that end it beside EOS.
        suppress_unused: never choose the vocabulary's unused and image tokens (on by default).

        Raises T5g2Error for a source longer than the limit, images that do not match the markers, or an image that
        cannot be read; UsageError for an option out of range. Both before the first token.
        """
        return iter(_Generation(self, source, images, **options))

    def logits(
        self, source_ids: Sequence[int], target_ids: Sequence[int], pixels: np.ndarray | None = None
    ) -> np.ndarray:
        """Teacher-forced logits: float32 [len(target_ids), vocab], row i after reading target_ids[: i + 1].

        Ids are taken as given, no BOS added. pixels: float32 [images, 3, side, side], normalised, in the order of the
        image blocks in the source.
        """
        source = self._checked_ids("source_ids", source_ids, self.limits.max_source, "--max-source")
        target = self._checked_ids("target_ids", target_ids, self.limits.max_target, "--max-target")
        encoded = self.encode(source, pixels)
        cache = self._new_cache()
        rows = self.limits.max_rows
        blocks = [
            self._decoder_step(encoded, cache, target[at : at + rows], at) for at in range(0, len(target), rows)
        ]
        return np.concatenate(blocks)

    def encode(self, source_ids: list[int], pixels: np.ndarray | None = None) -> EncodedSource:
        """Runs the vision program for each image and the encoder once. Arguments as in `logits`."""
        pixels = () if pixels is None else pixels
        self._check_vision(len(pixels))
        self._check_image_blocks(source_ids, len(pixels))
        ids = torch.tensor(source_ids, dtype=torch.int64)  # [S]
        features = None
        if self._vision:
            features = torch.zeros(len(source_ids), self._hidden_size)  # [S, hidden], read at image tokens only
            if len(pixels):
                features[ids == self._image_id] = torch.cat([self._image_features(image) for image in pixels])
        cross, states = self._text.encode(ids, features)
        return EncodedSource(cross, states.numpy())

    def _check_vision(self, images: int) -> None:
        if images and not self._vision:
            raise T5g2Error(f"{self.bundle.path}: a bundle without vision cannot read images; export without --no-vision")

    def _check_image_blocks(self, source_ids: list[int], images: int) -> None:
        blocks = source_ids.count(self._image_id) / self._image_tokens
        if images != blocks:
            raise T5g2Error(
                f"the source has {blocks:g} image blocks of {self._image_tokens} tokens and {images} images were given; "
                "give one image per block"
            )

    def _image_features(self, pixels: np.ndarray) -> torch.Tensor:
        """pixels: float32 [3, side, side] -> [tokens, hidden]."""
        image = self.bundle.manifest["image"]
        expected = (image["channels"], image["side"], image["side"])
        if tuple(pixels.shape) != expected:
            raise T5g2Error(f"pixels of shape {list(pixels.shape)} where {list(expected)} is expected; resize the image")
        pixels = np.ascontiguousarray(pixels, dtype=np.float32)
        return self._vision.method("vision")(torch.from_numpy(pixels).unsqueeze(0))[0].clone()

    def _decoder_step(self, encoded: EncodedSource, cache, ids: Sequence[int], position: int) -> np.ndarray:
        """Feeds target ids that start at `position`; returns their logits, float32 [M, vocab]."""
        return self._text.step(encoded.cross, cache, torch.tensor(ids, dtype=torch.int64), position)

    def _new_cache(self):
        return self._text.new_cache()

    def _prepare(self, source: str | Sequence[int], images: Sequence) -> tuple[list[int], np.ndarray | None]:
        """Ids and pixels of a request, checked."""
        self._check_vision(len(images))
        if isinstance(source, str):
            if self.tokenizer is None:
                raise T5g2Error(
                    f"{self.bundle.path}: has no tokenizer (random weights), so it takes ids, not text; "
                    "give source ids (t5g2-run --ids)"
                )
            ids = self.tokenizer.encode_source(source, len(images))
        else:
            ids = list(source)
        ids = self._checked_ids("the source", ids, self.limits.max_source, "--max-source")
        self._check_image_blocks(ids, len(images))
        image = self.bundle.manifest["image"]
        pixels = [
            to_pixels(i if isinstance(i, Image.Image) else load_image(i), image["side"], image["mean"], image["std"])
            for i in images
        ]
        return ids, np.stack(pixels) if pixels else None

    def _checked_ids(self, name: str, ids: Sequence[int], limit: int, option: str) -> list[int]:
        vocab = self._decoder_config["vocab_size"]
        ids = [int(i) for i in ids]
        if not ids:
            raise T5g2Error(f"{name}: no tokens; give at least one")
        wrong = [i for i in ids if not 0 <= i < vocab]
        if wrong:
            raise T5g2Error(f"{name}: id {wrong[0]} is outside the vocabulary of {vocab}; use this model's tokenizer")
        if len(ids) > limit:
            raise T5g2Error(
                f"{name}: {len(ids)} tokens, and this bundle takes {limit}; shorten it, or export with {option} {len(ids)}"
            )
        return ids


class _Generation:
    """One run of the generation loop: iterate over it once for its tokens, then read ids and finish_reason."""

    def __init__(
        self,
        model: Model,
        source: str | Sequence[int],
        images: Sequence = (),
        *,
        max_new_tokens: int | None = None,
        min_new_tokens: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str | int] = (),
        suppress_unused: bool = True,
    ) -> None:
        limit = model.limits.max_target
        self.max_new_tokens = limit if max_new_tokens is None else max_new_tokens
        if not 1 <= self.max_new_tokens <= limit:
            raise UsageError(f"max_new_tokens: {max_new_tokens}; give 1 to {limit}, the bundle's --max-target")
        if not 0 <= min_new_tokens <= self.max_new_tokens:
            raise UsageError(f"min_new_tokens: {min_new_tokens}; give 0 to max_new_tokens ({self.max_new_tokens})")
        self.min_new_tokens = min_new_tokens
        stop = [stop] if isinstance(stop, (str, int)) else list(stop)
        self.stop_ids = model.stop_ids | {s for s in stop if not isinstance(s, str)}
        vocab = model._decoder_config["vocab_size"]
        if outside := [i for i in self.stop_ids if not 0 <= i < vocab]:
            raise UsageError(f"stop: id {outside[0]} is outside the vocabulary of {vocab}")
        self.text_stop = TextStop([s for s in stop if isinstance(s, str)])
        self.sample = make_sampler(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            suppressed=set(model.unused_ids) - self.stop_ids if suppress_unused else (),
        )
        self.model = model
        self.source_ids, self.pixels = model._prepare(source, images)
        self.source_tokens = len(self.source_ids)
        self.ids: list[int] = []
        self.finish_reason = "length"

    def __iter__(self) -> Iterator[Token]:
        model = self.model
        encoded = model.encode(self.source_ids, self.pixels)
        cache = model._new_cache()
        text_stream = model.tokenizer.stream() if model.tokenizer else None
        last = model.bos_id
        for position in range(self.max_new_tokens):
            logits = model._decoder_step(encoded, cache, [last], position)[0]
            last = self.sample(logits, self.stop_ids if position < self.min_new_tokens else ())
            if last in self.stop_ids:
                self.finish_reason = "stop"
                break
            self.ids.append(last)
            piece = text_stream.push(last) if text_stream else ""
            yield Token(last, self.text_stop.push(piece))
            if self.text_stop.stopped:
                self.finish_reason = "stop"
                return
        rest = self.text_stop.push(text_stream.flush() if text_stream else "") + self.text_stop.flush()
        if self.text_stop.stopped:
            self.finish_reason = "stop"
        if rest:
            yield Token(None, rest)


def _open_tokenizer(bundle: Bundle) -> Tokenizer | None:
    if bundle.tokenizer is None:
        return None
    return Tokenizer.for_manifest(bundle.tokenizer, bundle.manifest["tokens"])
