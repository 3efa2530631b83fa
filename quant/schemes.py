"""Weight quantization as data: what a scheme is, and the integers it makes of a weight.

Symmetric, weight only, along the input dimension: `weight[n, k] ~= values[n, k] * scales[n, k // group_size]`.
Scales are rounded to bfloat16 before the values are, so every backend that reads the same scales holds the same integers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from t5g2.runtime.errors import T5g2Error, UsageError

GROUP_SIZES = (32, 64, 128)

_MAX_VALUE = {4: 7, 8: 127}  # symmetric: -8 and -128 are not used
_MIN_SCALE = torch.finfo(torch.bfloat16).tiny  # the smallest normal one, so that dividing by a scale never overflows
_MAX_SCALE = torch.finfo(torch.bfloat16).max


@dataclass(frozen=True)
class QuantScheme:
    """How the weights of a group of linears are stored.

    bits: 32 (float32, not quantized), 8 or 4.
    group_size: how many consecutive weights of a row share one scale; None means the whole row (per channel).
    """

    bits: int
    group_size: int | None = None

    @property
    def quantized(self) -> bool:
        return self.bits < 32

    @property
    def name(self) -> str:
        """For example `float32`, `int4-g32`, `int8-channel`."""
        if not self.quantized:
            return "float32"
        return f"int{self.bits}-" + ("channel" if self.group_size is None else f"g{self.group_size}")

    def to_dict(self) -> dict:
        return asdict(self) | {"name": self.name}


FLOAT32 = QuantScheme(bits=32)
INT8_CHANNEL = QuantScheme(bits=8)


def scheme_for(quant: str, group_size: int | None = 32) -> QuantScheme:
    """The scheme of `--quant` and `--group-size`: none, int8 or int4; 32, 64, 128 or None (per channel)."""
    if quant == "none":
        return FLOAT32
    if quant not in ("int8", "int4"):
        raise UsageError(f"--quant {quant}: not one of none, int8, int4")
    if group_size is None and quant == "int4":
        raise UsageError("--group-size channel: one int4 scale for a whole row is too coarse; use 32, 64 or 128")
    if group_size is not None and group_size not in GROUP_SIZES:
        raise UsageError(f"--group-size {group_size}: not one of {', '.join(map(str, GROUP_SIZES))}, channel")
    return QuantScheme(bits={"int8": 8, "int4": 4}[quant], group_size=group_size)


def quantize_weight(weight: torch.Tensor, scheme: QuantScheme, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds a weight to the scheme's integers.

    weight: [N, K], any float dtype. name: the tensor's, for errors.
    Returns values int8 [N, K] within +-127 (int8) or +-7 (int4), and scales float32 [N, groups] that bfloat16 holds exactly;
    groups is K / group_size rounded up, so the last group may be short ([N, 1] per channel).
    Raises T5g2Error where the weight is not finite.
    """
    n, k = weight.shape
    group_size = scheme.group_size or k
    groups = -(-k // group_size)
    limit = _MAX_VALUE[scheme.bits]
    values = torch.empty(n, k, dtype=torch.int8)
    scales = torch.empty(n, groups, dtype=torch.float32)
    block = max(1, 2**22 // k)  # rows at a time, so that the float copy of a 168M-weight embedding is never whole
    for start in range(0, n, block):
        rows = weight[start : start + block].float()
        if groups * group_size != k:
            rows = torch.nn.functional.pad(rows, (0, groups * group_size - k))
        parts = rows.view(rows.shape[0], groups, group_size)
        largest = parts.abs().amax(-1)  # [rows, groups]
        if not torch.isfinite(largest).all():
            raise T5g2Error(f"{name}: holds values that are not finite numbers; check the checkpoint")
        scale = (largest / limit).clamp(_MIN_SCALE, _MAX_SCALE).to(torch.bfloat16).float()
        scale = torch.where(largest > 0, scale, 1.0)
        rounded = (parts / scale.unsqueeze(-1)).round_().clamp_(-limit, limit)
        values[start : start + block] = rounded.view(rows.shape)[:, :k].to(torch.int8)
        scales[start : start + block] = scale
    return values, scales
