"""No time without a right result: providers are compared with float64 before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# An error this small is the order of additions, whatever the yardstick's is.
_ROUNDING = 2e-6


def relative_error(outputs: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """max |y - exact| / max |exact|, the largest over all outputs; infinite where y is not finite.

    Raises:
        ValueError: if the number of outputs or a shape differs.
    """
    if [y.shape for y in outputs] != [y.shape for y in exact]:
        got, expected = ([list(y.shape) for y in tensors] for tensors in (outputs, exact))
        raise ValueError(f"outputs have shapes {got}, expected {expected}")
    return max(_error(y.detach().double(), e.detach().double()) for y, e in zip(outputs, exact, strict=True))


def _error(y: Tensor, exact: Tensor) -> float:
    if y.numel() == 0:
        return 0.0
    difference = (y - exact).abs().max().item()
    if not math.isfinite(difference):
        return math.inf
    scale = exact.abs().max().item()
    return difference / scale if scale > 0 else (0.0 if difference == 0 else math.inf)


def limit_of_yardstick(dtype: torch.dtype) -> float:
    """What torch's own error must stay below, TF32 products included, for the comparison to mean anything."""
    return max(1e-2, 16 * torch.finfo(dtype).eps)


def limit_of_others(yardstick_error: float, dtype: torch.dtype, *, factor: float = 2.0) -> float:
    """`factor` times the error of torch in the same dtype, but not less than rounding."""
    return max(factor * yardstick_error, torch.finfo(dtype).eps, _ROUNDING)


def complaint(error: float, limit: float) -> str | None:
    """Why the result is wrong, or None if it is right."""
    return None if error <= limit else f"wrong result: error {error:.2g} against float64 is above {limit:.2g}"
