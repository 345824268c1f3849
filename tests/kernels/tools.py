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


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The numbers of `x` [N, C, H, W], of one of them for all, in other places in memory, with NaN between them."""
    padded = torch.full((x.shape[0], x.shape[1] + 2, x.shape[2] + 1, x.shape[3] * 2), torch.nan, device=x.device)
    spread = padded[:, 1:-1, 1:, ::2]
    channels_last = padded.contiguous(memory_format=torch.channels_last)[:, 1:-1, 1:, ::2]
    return {
        "contiguous": x.contiguous(),
        "spread": spread.copy_(x),
        "spread channels_last": channels_last.copy_(x),
        "one for all": x[:1].expand_as(x),
    }


LAYOUTS = ("contiguous", "spread", "spread channels_last", "one for all")


def far_apart(x: Tensor) -> Tensor:
    """The three images of `x`, each more than 2^30 numbers behind the one before, which are steps that fit into int32.

    Only the pages that are touched take memory.
    """
    far = 2**30 + 64
    memory = torch.empty(2 * far + x[0].numel(), dtype=x.dtype, device=x.device)
    return memory.as_strided(x.shape, (far, *x.stride()[1:])).copy_(x)


def derivatives(call: Callable[..., Tensor], operands: Sequence[Tensor | None]) -> list[Tensor]:
    """y, the gradients of sum(y^2) by all operands, and the gradients of their squares, as a penalty takes them."""
    leaves = [None if o is None else o.detach().requires_grad_() for o in operands]
    y = call(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None]
    first = torch.autograd.grad(y.square().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(g.float().square().sum() for g in first), wanted)
    return [y, *first, *second]


def all_close_to_reference(
    call: Callable[[str, Sequence[Any]], Sequence[Tensor]], operands: Sequence[Tensor | None], backend: str
) -> None:
    """Each result's error against float64 is at most twice that of PyTorch in the same dtype, plus a few roundings.

    Args:
        call: (backend, operands) -> results. operands: the first one's dtype decides what a rounding is.
    """
    assert operands[0] is not None
    eps = max(4 * torch.finfo(operands[0].dtype).eps, 3e-5)
    exact = call("reference", [None if o is None else o.double() for o in operands])
    rows = zip(call(backend, operands), call("reference", operands), exact, strict=True)
    for got, plain, truth in rows:
        allowed = 2 * (plain.double() - truth).abs().max().item() + eps * truth.abs().max().item()
        torch.testing.assert_close(got.double(), truth, rtol=0, atol=allowed)
