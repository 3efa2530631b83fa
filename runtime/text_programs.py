"""The encoder and the decoder step of a bundle, by backend: how each keeps its cross K/V and its self cache.

Both have `encode(ids, features) -> cross, states`, `new_cache() -> cache` and
`step(cross, cache, ids, position) -> logits`; what a cross and a cache are is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from t5g2.runtime.bundle import Bundle
from t5g2.runtime.cache import SelfCache
from t5g2.runtime.errors import T5g2Error
from t5g2.runtime.program import Program


class NativeText:
    """Programs over our own operators. cross: [layers, 2, kv heads, S, head_dim]; cache: one flat tensor, which the decoder
    step writes in place (see `t5g2.export.native.stacks`)."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        self._program = Program(bundle.text_program, native=True)
        self._dtype = getattr(torch, manifest["quantization"]["kv_cache"])
        self._cache_elements = manifest["memory"]["self_cache_bytes"] // self._dtype.itemsize

    def encode(self, ids: torch.Tensor, features: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """ids: int64 [S]; features: float32 [S, hidden], or None for a bundle without vision. Returns the cross K/V and the
        encoder states, float32 [S, hidden]."""
        inputs = (ids,) if features is None else (ids, features)
        cross, states = self._program.method("encoder")(*inputs)
        return cross.clone(), states.clone()

    def new_cache(self) -> torch.Tensor:
        return torch.zeros(self._cache_elements, dtype=self._dtype)

    def step(self, cross: torch.Tensor, cache: torch.Tensor, ids: torch.Tensor, position: int) -> np.ndarray:
        """Feeds ids [M] that start at `position`; returns logits float32 [M, vocab]."""
        (logits,) = self._program.method("decoder_step")(ids, torch.tensor([position]), cache, cross)
        return logits.clone().numpy()


@dataclass(frozen=True)
class _Cross:
    keys: list[torch.Tensor]  # [kv heads, head_dim, S] a layer
    values: list[torch.Tensor]  # [kv heads, S, head_dim] a layer


class StockText:
    """Programs of stock operators, which take the cache as inputs and return the new keys and values."""

    def __init__(self, bundle: Bundle) -> None:
        self._program = Program(bundle.text_program)
        self._slots: list[int] = bundle.manifest["cache_slots"]
        self._decoder = bundle.manifest["model"]["config"]["decoder"]

    def encode(self, ids: torch.Tensor, features: torch.Tensor | None) -> tuple[_Cross, torch.Tensor]:
        inputs = (ids,) if features is None else (ids, features)
        outputs = [t.clone() for t in self._program.method("encoder")(*inputs)]
        layers = len(self._slots)
        return _Cross(outputs[:layers], outputs[layers:-1]), outputs[-1]

    def new_cache(self) -> SelfCache:
        return SelfCache(self._slots, self._decoder["num_kv_heads"], self._decoder["head_dim"])

    def step(self, cross: _Cross, cache: SelfCache, ids: torch.Tensor, position: int) -> np.ndarray:
        outputs = self._program.method("decoder_step")(
            ids, torch.tensor([position]), *cache.keys, *cache.values, *cross.keys, *cross.values
        )
        layers = len(self._slots)
        cache.write(position, outputs[1 : 1 + layers], outputs[1 + layers :])
        return outputs[0].clone().numpy()


def open_text(bundle: Bundle) -> NativeText | StockText:
    if bundle.backend == "litert":
        raise T5g2Error(f"{bundle.path}: its programs are LiteRT's, and this runner calls ExecuTorch's; use t5g2.load")
    return NativeText(bundle) if bundle.backend == "native" else StockText(bundle)
