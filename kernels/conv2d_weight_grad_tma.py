# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Weight gradient for GPUs that copy tiles themselves (TMA, compute capability 9.0 and above).

The same sum as `fastgan.kernels.conv2d_weight_grad`, of boxes of pixels that `fastgan.kernels.boxes` fetches. The sum
runs over pixels, so a box that overruns the gradient's grid multiplies numbers of x by the zeros behind the gradient:
x must be finite.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size; in the kernel M input channels,
N output channels of a tile, K pixels of a box.
"""

import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.boxes import (
    box_of,
    corner,
    fits_boxes,
    following,
    has_copy_engine,
    image_descriptor,
    load_pixels,
)
from fastgan.kernels.configs import Tile, cdiv
from fastgan.kernels.implicit_gemm import tile_numbers
from fastgan.kernels.launch import MAX_REGISTERS, input_precision, upcasts
from fastgan.kernels.spec import Geometry


@triton.jit
def partial_sums_tma_kernel(
    x_desc, grad_desc, part_ptr,
    num_in, num_out, out_height, out_width, pad_y, pad_x, boxes_per_split,
    part_split, part_o, part_tap, part_c,
    STRIDE: tl.constexpr, TAPS: tl.constexpr,
    BOX_N: tl.constexpr, BOX_Y: tl.constexpr, BOX_X: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one part. Grid: (blocks of input channels * of output channels, taps, parts)."""
    BLOCK_K: tl.constexpr = BOX_N * BOX_Y * BOX_X
    block_m, block_n = tile_numbers(tl.program_id(0), num_out, BLOCK_N)
    tap, split = tl.program_id(1), tl.program_id(2)
    shift_y, shift_x = tap // TAPS - pad_y, tap % TAPS - pad_x

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    n, y, x = corner(split * boxes_per_split, out_height, out_width, BOX_N, BOX_Y, BOX_X)
    # Boxes beyond the last image hold zeros.
    for _ in range(boxes_per_split):
        a = load_pixels(x_desc, n, y, x, block_m * BLOCK_M, num_in, shift_y, shift_x, STRIDE, BLOCK_K, BLOCK_M)
        b = load_pixels(grad_desc, n, y, x, block_n * BLOCK_N, num_out, 0, 0, 1, BLOCK_K, BLOCK_N)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        acc = tl.dot(a.T, b, acc, input_precision=PRECISION)
        n, y, x = following(n, y, x, out_height, out_width, BOX_N, BOX_Y, BOX_X)

    c = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    o = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    out_o = o.to(tl.int64) * part_o
    offset = split.to(tl.int64) * part_split + tap * part_tap + (c * part_c)[:, None] + out_o[None, :]
    tl.store(part_ptr + offset, acc, mask=(c < num_in)[:, None] & (o < num_out)[None, :])


def prefers_tma(x: Tensor, grad: Tensor, geometry: Geometry) -> bool:
    """Whether these operands lie on a GPU with a copy engine that can read them."""
    return has_copy_engine(x) and fits_tma(x, grad, geometry)


def fits_tma(x: Tensor, grad: Tensor, geometry: Geometry) -> bool:
    """Whether the copy engine can read these operands: one group, channels of both in whole steps, no empty batch."""
    return geometry.groups == 1 and min(x.shape) > 0 and fits_boxes(x, geometry.stride) and fits_boxes(grad, 1)


def launch_tma(x: Tensor, grad: Tensor, parts: Tensor, geometry: Geometry, *, tile: Tile) -> None:
    """Writes the partial sums [parts, O, K, K, C] of the weight gradient; see `fits_tma`."""
    num_images, num_out, *size = grad.shape
    num_in, taps, splits = x.shape[1], parts.shape[2], parts.shape[0]
    box = box_of(tile.block_k(x.element_size()), *size)
    boxes = cdiv(num_images, box[0]) * cdiv(size[0], box[1]) * cdiv(size[1], box[2])
    partial_sums_tma_kernel[cdiv(num_in, tile.m) * cdiv(num_out, tile.n), taps**2, splits](
        image_descriptor(x, box, tile.m, stride=geometry.stride), image_descriptor(grad, box, tile.n), parts,
        num_in, num_out, *size, *geometry.padding, cdiv(boxes, splits),
        parts.stride(0), parts.stride(1), parts.stride(3), 1,
        STRIDE=geometry.stride, TAPS=taps, BOX_N=box[0], BOX_Y=box[1], BOX_X=box[2], BLOCK_M=tile.m, BLOCK_N=tile.n,
        UPCAST=upcasts(x), PRECISION=input_precision(x),
        num_warps=tile.num_warps, num_stages=tile.num_stages, maxnreg=MAX_REGISTERS,
    )  # fmt: skip
