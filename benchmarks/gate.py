"""No time without a right result: providers are compared with float64 before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# An error this small is the order of additions, whatever the yardstick's is.
_ROUNDING = 2e-6
# Of long sums, whose rounding adds up: 16 roundings of TF32's 10 bits, and some hundred of float32's 23.
_TF32_SUM, _FLOAT32_SUM = 1.6e-2, 1e-4


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


def norm_error(y: Tensor, exact: Tensor) -> float:
    """|y - exact| / |exact| in the 2-norm; infinite where y is not finite."""
    error = (torch.linalg.vector_norm(y.double() - exact) / torch.linalg.vector_norm(exact)).item()
    return error if math.isfinite(error) else math.inf


def multiplies_in_tf32(device: torch.device) -> bool:
    """Whether torch rounds the factors of float32 products to TF32's 10 bits on `device`, as its settings stand."""
    settings = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    return device.type == "cuda" and "tf32" in settings


def limit_of_yardstick(dtype: torch.dtype, device: torch.device) -> float:
    """What torch's own error must stay below for the comparison to mean anything."""
    if dtype == torch.float32:
        return _TF32_SUM if multiplies_in_tf32(device) else _FLOAT32_SUM
    return 16 * torch.finfo(dtype).eps


def limit_of_others(yardstick_error: float, dtype: torch.dtype, *, factor: float = 2.0) -> float:
    """`factor` times the error of torch in the same dtype, but not less than rounding."""
    return max(factor * yardstick_error, torch.finfo(dtype).eps, _ROUNDING)


# How every complaint begins.
WRONG = "wrong result"


def complaint(error: float, limit: float) -> str | None:
    """Why the result is wrong, or None if it is right."""
    return None if error <= limit else f"{WRONG}: error {error:.2g} against float64 is above {limit:.2g}"
