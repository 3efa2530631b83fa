"""Runs the programs of a LiteRT bundle for the engine: t5g2_programs of t5g2.h over ai-edge-litert's CompiledModel.

The engine does the rest: text, pictures, sampling, beams, sessions. Its caches are the model's own input and output buffers.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import json
import os
import tempfile
import threading
from collections import OrderedDict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from t5g2.runtime import bindings
from t5g2.runtime.bundle import FORMAT_VERSION, PROGRAMS
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.quiet import quiet

_TEXT_PROGRAM, _VISION_PROGRAM = PROGRAMS["litert"]
# int8, uint8, products of two activations (a third faster encoding), latest operators; never 0x4, all in float16
_XNNPACK_FLAGS = 0x1 | 0x2 | 0x8 | 0x40
_KEPT = 32  # sets of caches whose buffers are kept: beams, and some sessions in turn


def programs_of(
    bundle: str | os.PathLike, threads: int | None, cache_folder: str | os.PathLike | None
) -> LiteRtPrograms | None:
    """Those of a LiteRT bundle, not loaded yet; None for any other, also where the manifest is damaged: the engine says so.

    Raises T5g2Error where the extra is missing.
    """
    folder = Path(os.fsdecode(bundle))
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["backend"] != "litert" or manifest["format_version"] != FORMAT_VERSION:
            return None
        if not importlib.util.find_spec("ai_edge_litert"):
            raise T5g2Error(f"{folder}: its programs are LiteRT's, which are not installed; pip install 't5g2[litert]'")
        return LiteRtPrograms(folder, manifest, threads, _cache_folder(cache_folder))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cache_folder(given: str | os.PathLike | None) -> str:
    """As the engine has it: None for $XDG_CACHE_HOME/t5g2 or ~/.cache/t5g2, and "" for none."""
    if given is not None:
        return os.fsdecode(given)
    folder, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    if folder.startswith("/"):
        return f"{folder}/t5g2"
    return f"{home}/.cache/t5g2" if home.startswith("/") else ""


class LiteRtPrograms:
    """The programs of an opened bundle. `functions` are what the engine calls; one call at a time.

    threads: of LiteRT, for this bundle alone; None: one for each CPU. cache_folder: where the packed weights are kept, which
    signatures and processes then share; "": nowhere, and each signature packs its own.
    """

    def __init__(self, folder: Path, manifest: dict, threads: int | None, cache_folder: str) -> None:
        self._folder = folder
        self._files = manifest["files"]
        self._threads = threads or _cpus()
        self._cache_folder = cache_folder
        config = manifest["model"]["config"]
        self._hidden = config["encoder"]["hidden_size"]
        self._layers = config["decoder"]["num_layers"]
        self._buckets: list[int] = manifest["source_buckets"]
        self._text = self._vision = None
        self._raised = threading.local()
        self._encoders: dict[int, _Encoder] = {}
        self._decoders: dict[int, _Decoder] = {}
        self.functions = bindings.Programs(
            size=ctypes.sizeof(bindings.Programs),
            encode=bindings.Programs.ENCODE(self._guarded(self._encode)),
            step=bindings.Programs.STEP(self._guarded(self._step)),
            vision=bindings.Programs.VISION(self._guarded(self._run_vision)),
            error=bindings.Programs.ERROR(self._error),
        )

    def load(self) -> None:
        """Loads the text program; the vision tower follows with the first picture. Raises T5g2Error naming the file."""
        self._text = self._open(_TEXT_PROGRAM)

    def _open(self, name: str):
        from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Options

        path = self._folder / name
        with self._weight_cache(name) as weight_cache, quiet():
            cpu = CpuOptions(num_threads=self._threads, xnnpack_flags=_XNNPACK_FLAGS, xnnpack_weight_cache_path=weight_cache)
            try:
                return CompiledModel.from_file(str(path), environment=_environment(), options=Options(cpu_options=cpu))
            except RuntimeError as error:
                raise T5g2Error(f"{path}: LiteRT does not load it ({_line(error)}); export the bundle again") from error

    @contextlib.contextmanager
    def _weight_cache(self, name: str):
        """The path of the file of packed weights, or "". XNNPACK does not compare it with the model: its name does."""
        if not self._cache_folder:
            yield ""
            return
        folder = Path(self._cache_folder) / "litert"
        kept = folder / f"{self._files[name]['sha256']}-{version('ai-edge-litert')}.xnnpack"
        if kept.is_file():
            yield str(kept)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix=f".{kept.stem[:8]}.", dir=folder)) / kept.name
        except OSError:  # a folder that cannot be written is no folder
            yield ""
            return
        try:
            yield str(made)
            made.replace(kept)
        except FileNotFoundError:  # nothing was packed
            pass
        finally:
            made.unlink(missing_ok=True)
            made.parent.rmdir()

    def _guarded(self, call):
        """Nothing is raised through C: the status says that it was, and `bindings.check` raises it again."""

        def guarded(_context, *arguments) -> int:
            try:
                call(*arguments)
                return 0
            except BaseException as error:
                bindings.raised.error = self._raised.error = error
                return 1

        return guarded

    def _error(self, _context) -> int:
        self._raised.message = ctypes.create_string_buffer(_line(self._raised.error).encode())
        return ctypes.addressof(self._raised.message)

    def _bucket(self, count: int) -> int:
        return next(bucket for bucket in self._buckets if bucket >= count)

    def _encode(self, ids, count: int, features, cross: int, states: int) -> None:
        bucket = self._bucket(count)
        if bucket not in self._encoders:
            self._encoders[bucket] = _Encoder(self._text, bucket, self._layers)
        encoder = self._encoders[bucket]
        found = encoder.run(_view(ids, (count,), np.int32), _view(features, (count, self._hidden), np.float32), cross)
        _view(states, (count, self._hidden), np.float32)[:] = found[:count]

    def _step(self, id: int, position: int, source_count: int, cross: int, cache: int, logits: int) -> None:
        bucket = self._bucket(source_count)
        if bucket not in self._decoders:
            self._decoders[bucket] = _Decoder(self._text, bucket, self._layers)
        self._decoders[bucket].run(id, position, source_count, cross, cache, logits)

    def _run_vision(self, pixels: int, features: int) -> None:
        if self._vision is None:
            self._vision = _Vision(self._open(_VISION_PROGRAM))
        self._vision.run(pixels, features)


class _Memory:
    """The buffers of several tensors that lie one after another in memory of the engine, by its address."""

    def __init__(self, buffers, names: list[str]) -> None:
        self._buffers = buffers
        self._names = names
        self._kept: OrderedDict[int, dict] = OrderedDict()

    def at(self, address: int) -> dict:
        """By name. Memory that was freed and given out again at an address is of the same size, so they still fit."""
        if found := self._kept.get(address):
            self._kept.move_to_end(address)
            return found
        starts = itertools.accumulate((self._buffers.bytes(name) for name in self._names), initial=address)
        found = self._kept[address] = {name: self._buffers.over(name, start) for name, start in zip(self._names, starts)}
        if len(self._kept) > _KEPT:
            for buffer in self._kept.popitem(last=False)[1].values():
                buffer.destroy()
        return found


class _Call:
    """One signature of a model, with memory of its own for its small inputs."""

    def __init__(self, model, signature: str) -> None:
        from t5g2.runtime.litert_buffers import Buffers

        self._model, self._signature = model, signature
        self.buffers = Buffers(model, signature)

    def run(self, inputs: dict, outputs: dict) -> None:
        try:
            with _first_run():
                self._model.run_by_name(self._signature, inputs, outputs)
        except RuntimeError as error:
            raise T5g2Error(f"{self._signature} failed ({_line(error)}); export the bundle again, or report it") from error


class _Encoder:
    def __init__(self, model, bucket: int, layers: int) -> None:
        self._call = _Call(model, f"encode_{bucket}")
        buffers = self._call.buffers
        self._ids, ids = buffers.new("ids", np.int32)
        self._length, length = buffers.new("length", np.int32)
        self._inputs = {"ids": ids, "length": length}
        self._features = None
        if "features" in buffers.inputs:
            self._features, self._inputs["features"] = buffers.new("features", np.float32)
        self._states, self._states_buffer = buffers.new("states", np.float32)
        self._cross = _Memory(buffers, cross_names(layers))

    def run(self, ids: np.ndarray, features: np.ndarray | None, cross: int) -> np.ndarray:
        """Returns the encoder states, float32 [bucket, hidden], which the next call overwrites."""
        count = len(ids)
        self._ids[:count], self._ids[count:], self._length[0] = ids, 0, count
        if self._features is not None:
            self._features[:count] = features
        self._call.run(self._inputs, self._cross.at(cross) | {"states": self._states_buffer})
        return self._states


class _Decoder:
    def __init__(self, model, bucket: int, layers: int) -> None:
        self._call = _Call(model, f"decode_{bucket}")
        buffers = self._call.buffers
        self._id, id = buffers.new("id", np.int32)
        self._position, position = buffers.new("position", np.int32)
        self._length, length = buffers.new("length", np.int32)
        self._inputs = {"id": id, "position": position, "length": length}
        self._cross = _Memory(buffers, cross_names(layers))
        self._cache = _Memory(buffers, self_names(layers))
        self._logits = _Memory(buffers, ["logits"])

    def run(self, id: int, position: int, source_count: int, cross: int, cache: int, logits: int) -> None:
        self._id[0], self._position[0], self._length[0] = id, position, source_count
        in_place = self._cache.at(cache)
        self._call.run(self._inputs | self._cross.at(cross) | in_place, in_place | self._logits.at(logits))


class _Vision:
    def __init__(self, model) -> None:
        self._call = _Call(model, "vision")
        buffers = self._call.buffers
        self._pixels, self._pixels_buffer = buffers.new("pixels", np.float32)
        self._features, self._features_buffer = buffers.new("features", np.float32)

    def run(self, pixels: int, features: int) -> None:
        self._pixels[:] = _view(pixels, self._pixels.shape, np.float32)
        self._call.run({"pixels": self._pixels_buffer}, {"features": self._features_buffer})
        _view(features, self._features.shape, np.float32)[:] = self._features


_ran = threading.Event()


def _first_run() -> contextlib.AbstractContextManager:
    """The first run in a process prints what accelerators there are."""
    if _ran.is_set():
        return contextlib.nullcontext()
    _ran.set()
    return quiet()


def cross_names(layers: int) -> list[str]:
    """The tensors of a source's cross K/V in the order in which they lie in memory."""
    return [f"cross_{kind}_{layer}" for layer in range(layers) for kind in "kv"]


def self_names(layers: int) -> list[str]:
    return [f"self_{kind}_{layer}" for layer in range(layers) for kind in "kv"]


@cache
def _environment():
    """LiteRT's, which all models of the process share, and which is never freed: it prints when it goes."""
    import ai_edge_litert
    from ai_edge_litert.environment import Environment, EnvironmentOptions

    made = Environment.create(options=EnvironmentOptions(runtime_path=str(Path(ai_edge_litert.__file__).parent)))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    return made


def _view(address, shape: tuple[int, ...], dtype: type) -> np.ndarray | None:
    """The engine's memory as an array; None for NULL."""
    if not address:
        return None
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
