# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""The epilogue as a kernel of its own, for the output of another library's convolution, and its derivative.

Shape legend: N batch, C channels, H W pixels; in the kernel M pixels, N channels of a tile.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.configs import ELEMENTS, cdiv
from fastgan.kernels.epilogue import apply_epilogue, slope
from fastgan.kernels.implicit_gemm import locate, tile_numbers
from fastgan.kernels.launch import INT32_MAX, finished, on_its_gpu, upcasts, with_strides_of
from fastgan.kernels.spec import Activation, saved_clamp

_MAX_CHANNELS = 128


@triton.jit
def bias_act_kernel(
    x_ptr, scale_ptr, bias_ptr, noise_ptr, out_ptr,
    num_images, num_channels, height, width,
    x_n, x_c, x_y, x_x, scale_n, scale_c, noise_n, noise_c, noise_y, noise_x, out_n, out_c, out_y, out_x,
    gain, clamp,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out = clamp(gain * activation(scale * x + noise + bias)), one tile. Grid: (blocks of pixels * of channels,)."""
    block_m, block_n = tile_numbers(tl.program_id(0), num_channels, BLOCK_N)
    n, row, column, row_ok = locate(block_m, num_images, height, width, BLOCK_M, WIDE)
    c = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    c_ok = c < num_channels
    ok = row_ok[:, None] & c_ok[None, :]
    wide_c = c.to(tl.int64)[None, :]
    pixel = n * x_n + row.to(tl.int64) * x_y + column.to(tl.int64) * x_x
    x = tl.load(x_ptr + pixel[:, None] + wide_c * x_c, mask=ok, other=0.0).to(tl.float32)
    result = apply_epilogue(
        x, n, row, column, c, c_ok, ok, scale_ptr, scale_n, scale_c, bias_ptr,
        noise_ptr, noise_n, noise_c, noise_y, noise_x, gain, clamp, ACTIVATION,
    )  # fmt: skip
    pixel = n * out_n + row.to(tl.int64) * out_y + column.to(tl.int64) * out_x
    tl.store(out_ptr + pixel[:, None] + wide_c * out_c, result, mask=ok)


@triton.jit
def bias_act_grad_kernel(
    grad_ptr, saved_ptr, out_ptr, num_elements, gain, clamp,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out = grad * slope(saved) on numbers that lie alike in all three. Grid: (blocks,)."""
    block = tl.program_id(0)
    if WIDE:
        block = block.to(tl.int64)
    offset = block * BLOCK + tl.arange(0, BLOCK)
    ok = offset < num_elements
    grad = tl.load(grad_ptr + offset, mask=ok, other=0.0).to(tl.float32)
    saved = tl.load(saved_ptr + offset, mask=ok, other=0.0).to(tl.float32)
    tl.store(out_ptr + offset, grad * slope(saved, gain, clamp, ACTIVATION), mask=ok)


@on_its_gpu
def bias_act(
    x: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    noise: Tensor | None,
    activation: Activation,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """clamp(gain * activation(scale * x + noise + bias)) with the dtype and strides of an `empty_like(x)`.

    Args:
        x: [N, C, H, W], any strides. scale: [N, C]. bias: [C]. noise: broadcastable to x. out: memory, for tests.
    """
    out = _new_like(x) if out is None else out
    if x.numel() == 0:
        return finished(out, x)
    batch, channels, height, width = x.shape
    block_n = min(triton.next_power_of_2(channels), _MAX_CHANNELS)
    block_m = ELEMENTS // block_n
    pixels = batch * height * width
    noise_strides = [0] * 4 if noise is None else noise.expand(x.shape).stride()
    bias_act_kernel[(cdiv(pixels, block_m) * cdiv(channels, block_n),)](
        x, scale, None if bias is None else bias.contiguous(), noise, out,
        batch, channels, height, width,
        *x.stride(), *([0, 0] if scale is None else scale.stride()), *noise_strides, *out.stride(),
        activation.gain, activation.clamp,
        ACTIVATION=activation.name, BLOCK_M=block_m, BLOCK_N=block_n, WIDE=pixels + block_m > INT32_MAX,
    )  # fmt: skip
    return finished(out, x)


@on_its_gpu
def bias_act_grad(grad: Tensor, saved: Tensor, activation: Activation, *, out: Tensor | None = None) -> Tensor:
    """grad * d bias_act / dz with the dtype and strides of an `empty_like(grad)`.

    Args:
        grad, saved: [N, C, H, W], any strides; `saved` is z for silu and the result otherwise. out: memory, for tests.
    """
    out = _new_like(grad) if out is None else out
    if grad.numel() == 0:
        return finished(out, grad)
    bias_act_grad_kernel[(cdiv(grad.numel(), ELEMENTS),)](
        with_strides_of(grad, out), with_strides_of(saved, out), out, grad.numel(),
        activation.gain, saved_clamp(activation, saved.dtype),
        ACTIVATION=activation.name, BLOCK=ELEMENTS, WIDE=grad.numel() + ELEMENTS > INT32_MAX,
    )  # fmt: skip
    return finished(out, grad)


def _new_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32 if upcasts(x) else x.dtype)
