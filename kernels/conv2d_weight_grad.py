# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Weight gradient of a convolution as a split-K matrix product, the same in every run.

    dW[o, c, i, j] = sum over n, y, x of x[n, c, y s - p + i, x s - p + j] grad[n, o, y, x]

The pixels are cut into parts; each program sums the products of one part, for one tap, and writes the sum in float32. A
second kernel adds the parts in a fixed order. There is no atomic addition, so two runs give the same bits.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups; in the kernel M input
channels, N output channels of a tile, K pixels. Layout: channels last; everything is addressed by strides.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.configs import ELEMENTS, Tile, cdiv, num_splits, weight_grad_tile
from fastgan.kernels.conv2d_weight_grad_tma import launch_tma, prefers_tma
from fastgan.kernels.implicit_gemm import locate, tile_numbers
from fastgan.kernels.launch import INT32_MAX, MAX_REGISTERS, finished, input_precision, on_its_gpu, readable, upcasts
from fastgan.kernels.spec import Geometry


@triton.jit
def partial_sums_kernel(
    x_ptr, grad_ptr, part_ptr,
    num_images, num_in, num_out, height, width, out_height, out_width, pad_y, pad_x, blocks_per_split,
    x_n, x_c, x_y, x_x, grad_n, grad_c, grad_y, grad_x, part_split, part_o, part_tap, part_c,
    STRIDE: tl.constexpr, TAPS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one part. Grid: (blocks of input channels * of output channels, groups * taps, parts)."""
    block_m, block_n = tile_numbers(tl.program_id(0), num_out, BLOCK_N)
    group, tap = tl.program_id(1) // (TAPS * TAPS), tl.program_id(1) % (TAPS * TAPS)
    split = tl.program_id(2)
    c = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    o = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    c_ok, o_ok = c < num_in, o < num_out
    x_group = x_ptr + group * num_in * x_c
    grad_group = grad_ptr + group * num_out * grad_c

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for block in range(split * blocks_per_split, (split + 1) * blocks_per_split):
        n, row, column, exists = locate(block, num_images, out_height, out_width, BLOCK_K, WIDE)
        y, x = row * STRIDE - pad_y + tap // TAPS, column * STRIDE - pad_x + tap % TAPS
        inside = exists & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        x_rows = x_group + n * x_n + y.to(tl.int64) * x_y + x.to(tl.int64) * x_x
        grad_rows = grad_group + n * grad_n + row.to(tl.int64) * grad_y + column.to(tl.int64) * grad_x
        a = tl.load(x_rows[:, None] + (c * x_c)[None, :], mask=inside[:, None] & c_ok[None, :], other=0.0)
        b = tl.load(grad_rows[:, None] + (o * grad_c)[None, :], mask=exists[:, None] & o_ok[None, :], other=0.0)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        acc = tl.dot(tl.trans(a), b, acc, input_precision=PRECISION)

    out_o = (group.to(tl.int64) * num_out + o) * part_o
    offset = split.to(tl.int64) * part_split + tap * part_tap + (c * part_c)[:, None] + out_o[None, :]
    tl.store(part_ptr + offset, acc, mask=c_ok[:, None] & o_ok[None, :])


@triton.jit
def add_parts_kernel(part_ptr, out_ptr, num_splits, num_elements, BLOCK: tl.constexpr):
    """out = part[0] + part[1] + ..., in this order. Grid: (blocks of elements,)."""
    offset = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ok = offset < num_elements
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in range(num_splits):
        part = part_ptr + tl.cast(split, tl.int64) * num_elements
        total += tl.load(part + offset, mask=ok, other=0.0)
    tl.store(out_ptr + offset, total, mask=ok)


@on_its_gpu
def conv2d_weight_grad(
    x: Tensor,
    grad: Tensor,
    kernel: tuple[int, int],
    geometry: Geometry,
    *,
    tile: Tile | None = None,
    splits: int | None = None,
    out: Tensor | None = None,
    use_tma: bool | None = None,
) -> Tensor:
    """[O, C / G, K, K] in channels_last; arguments as in `fastgan.ops.conv2d_weight_grad`.

    Args:
        tile, splits: configuration, by default picked by shape. out: memory for the parts, for tests.
        use_tma: whether the GPU's copy engine fetches the tiles, by default where there is one that can.
    """
    groups, taps = geometry.groups, kernel[0] * kernel[1]
    num_in, num_out = x.shape[1] // groups, grad.shape[1] // groups
    shape = (grad.shape[1], num_in, *kernel)
    num_pixels = grad.shape[0] * grad.shape[2] * grad.shape[3]
    tile = weight_grad_tile(num_in, num_out) if tile is None else tile
    num_tiles = cdiv(num_in, tile.m) * cdiv(num_out, tile.n)
    splits = num_splits(num_tiles * groups * taps, num_pixels, tile) if splits is None else splits
    # Each part is a weight in channels_last: [parts, O, K, K, C / G].
    if out is None:
        out = torch.empty((splits, shape[0], *kernel, num_in), dtype=torch.float32, device=x.device)
    x, grad = readable(x), readable(grad)
    if prefers_tma(x, grad, geometry) if use_tma is None else use_tma:
        launch_tma(x, grad, out, geometry, tile=tile)
    else:
        _launch(x, grad, out, geometry, tile=tile)
    return finished(_add_parts(out, shape, torch.float32 if upcasts(x) else x.dtype), x)


def _launch(x: Tensor, grad: Tensor, parts: Tensor, geometry: Geometry, *, tile: Tile) -> None:
    """The kernel that addresses memory by pointers."""
    groups, (splits, _, taps, _, num_in) = geometry.groups, parts.shape
    num_out, block_k = grad.shape[1] // groups, tile.block_k(x.element_size())
    num_pixels = grad.shape[0] * grad.shape[2] * grad.shape[3]
    partial_sums_kernel[cdiv(num_in, tile.m) * cdiv(num_out, tile.n), groups * taps**2, splits](
        x, grad, parts, grad.shape[0], num_in, num_out, *x.shape[2:], *grad.shape[2:], *geometry.padding,
        cdiv(cdiv(num_pixels, block_k), splits),
        *x.stride(), *grad.stride(), parts.stride(0), parts.stride(1), parts.stride(3), 1,
        STRIDE=geometry.stride, TAPS=taps, BLOCK_M=tile.m, BLOCK_N=tile.n, BLOCK_K=block_k,
        WIDE=num_pixels + splits * block_k > INT32_MAX, UPCAST=upcasts(x), PRECISION=input_precision(x),
        num_warps=tile.num_warps, num_stages=tile.num_stages, maxnreg=MAX_REGISTERS,
    )  # fmt: skip


def _add_parts(parts: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """The sum over the first dimension, a weight of this shape in channels_last."""
    weight = torch.empty(shape, dtype=dtype, device=parts.device, memory_format=torch.channels_last)
    size = weight.numel()
    add_parts_kernel[(cdiv(size, ELEMENTS),)](parts, weight, parts.shape[0], size, BLOCK=ELEMENTS)
    return weight
