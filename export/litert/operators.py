"""Operators that a LiteRT trace keeps whole, and what the converter makes of each.

An operator of torch's own would become many nodes, of which a trace handles some hundreds a second, four times over.
They have no implementation in torch: a module that calls them can only be traced.
"""

from __future__ import annotations

import functools

import torch

torch.library.define("t5g2_litert::rms_norm", "(Tensor x, Tensor weight, float eps) -> Tensor")
torch.library.define("t5g2_litert::rotate", "(Tensor x, Tensor cos, Tensor sin) -> Tensor")
_own = torch.ops.t5g2_litert


@torch.library.register_fake("t5g2_litert::rms_norm")
def _(x, weight, eps):
    return torch.empty_like(x)


@torch.library.register_fake("t5g2_litert::rotate")
def _(x, cos, sin):
    return torch.empty_like(x)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension. x: [..., hidden]; weight: [hidden]."""
    return _own.rms_norm(x, weight, eps)


def rotate(x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Applies rotary positions to x [rows, heads, head_dim]. rotary: cos and sin, [rows, 1, head_dim / 2]."""
    return _own.rotate(x, *rotary)


def matmul_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a [heads, M, K] times b [heads, N, K] -> [heads, M, N].

    LiteRT's own operator: of a product of torch's with one kv head the converter makes a fully connected layer, whose
    weights are not constant, and that XNNPACK takes only where it is told to.
    """
    return torch.ops.tfl.batch_matmul(a, b, adj_x=False, adj_y=True)


def write_rows(cache: torch.Tensor, rows: torch.Tensor, start: list[torch.Tensor]) -> torch.Tensor:
    """The cache with `rows` from index `start` on, int32 scalars; LiteRT writes them in place."""
    return torch.ops.litert_torch.dynamic_update_slice(cache, rows, start)


@functools.cache
def register() -> None:
    """Tells litert-torch what these operators are. Not done on import, so that an export can say that the extra is missing,
    and what its libraries print is silenced."""
    import litert_torch.generative.custom_ops.dynamic_update_slice  # noqa: F401  defines an operator
    from jax import lax
    from jax import numpy as jnp
    from litert_torch.backend import jax_bridge, lowerings

    def lowered_rms_norm(x, weight, eps):
        return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight

    def lowered_rotate(x, cos, sin):
        first, second = jnp.split(x, 2, axis=-1)
        if x.shape[0] > 1:  # the tables of a bucket's positions are constants in the file: not twice as wide
            return jnp.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
        swapped = jnp.concatenate((second, first), axis=-1)
        return x * jnp.concatenate((cos, cos), axis=-1) + swapped * jnp.concatenate((-sin, sin), axis=-1)

    lowerings.lower(_own.rms_norm)(jax_bridge.wrap(lowered_rms_norm))
    lowerings.lower(_own.rotate)(jax_bridge.wrap(lowered_rotate))
