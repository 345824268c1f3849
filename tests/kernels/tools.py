"""What the tests of kernels share: where they run, random tensors, and the comparison with the reference."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# On a machine without a GPU the interpreter runs the kernels; tests/conftest.py has switched it on.
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def randn(*size: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers in `dtype` on the device under test, in channels_last where there are four dimensions."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def prefilled(like: Tensor) -> Tensor:
    """Memory for a result, full of NaN: a number that a kernel does not write shows."""
    return torch.full_like(like, torch.nan, memory_format=torch.channels_last)


def kernels_of(op: str) -> Callable[..., Tensor]:
    """The host function of a convolution kernel."""
    from fastgan.kernels.conv2d import conv2d
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    return {"conv2d": conv2d, "conv_transpose2d": conv_transpose2d}[op]


def close_to_reference(call: Callable[[str, Sequence[Any]], Tensor], operands: Sequence[Tensor | None]) -> None:
    """The kernel's error against float64 is at most twice that of PyTorch in the same dtype, plus one rounding.

    Args:
        call: (backend, operands) -> result.
    """
    exact = call("reference", [None if o is None else o.double() for o in operands])
    plain, got = call("reference", operands), call("triton", operands)
    assert got.dtype == plain.dtype
    assert got.shape == exact.shape
    if got.numel() == 0:
        return
    rounding = torch.finfo(got.dtype).eps * exact.abs().max().item()
    allowed = 2 * (plain.double() - exact).abs().max().item() + rounding
    error = (got.double() - exact).abs().max().item()
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"
