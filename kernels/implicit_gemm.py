# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Parts of the convolution kernels: where a tile's pixels lie, and the sum of products over one tap.

Shape legend: an implicit GEMM multiplies [M, K] by [K, N]: M output pixels, N output channels, K input channels, once
per tap of the convolution kernel. n y x are the pixels' batch numbers, rows and columns. Strides address memory.
"""

import triton
import triton.language as tl

from fastgan.kernels.epilogue import slope


@triton.jit
def tile_numbers(tile, num_out, BLOCK_N: tl.constexpr):
    """(number of the block of pixels, number of the block of output channels): channels vary fastest, for the cache."""
    tiles_n = tl.cdiv(num_out, BLOCK_N)
    return tile // tiles_n, tile % tiles_n


@triton.jit
def locate(block, num_images, rows, columns, BLOCK_M: tl.constexpr, WIDE: tl.constexpr):
    """(n int64, y, x, exists), each [BLOCK_M], of the pixels of a block in an [images, rows, columns] grid.

    Args:
        WIDE: whether the grid has more pixels than int32 can count.
    """
    if WIDE:
        block = block.to(tl.int64)
    pixel = block * BLOCK_M + tl.arange(0, BLOCK_M)
    row = pixel // columns
    n = row // rows
    return n.to(tl.int64), (row % rows).to(tl.int32), (pixel % columns).to(tl.int32), n < num_images


@triton.jit
def add_tap(
    acc,
    x_rows,
    gate_rows,
    w_tap,
    row_ok,
    c_stride,
    w_stride,
    o_offsets,
    o_ok,
    num_in,
    gate_gain,
    gate_clamp,
    GATE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """acc + the product of [M, K] inputs and [K, N] weights for one tap, in blocks of BLOCK_K input channels.

    Args:
        acc: [M, N] float32.
        x_rows: [M] pointers to input channel 0 of each pixel's input at this tap; gate_rows: likewise, or None.
        w_tap: pointer to this tap's weight of input channel 0. o_offsets: [N], offsets of the output channels.
        row_ok, o_ok: [M] and [N], what exists. c_stride, w_stride: strides of input channels in inputs and weight.
        GATE: the activation whose slope the gate holds. UPCAST: see `fastgan.kernels.launch`.
    """
    for c0 in range(0, num_in, BLOCK_K):
        c = c0 + tl.arange(0, BLOCK_K)
        c_ok = c < num_in
        a_ok = row_ok[:, None] & c_ok[None, :]
        a_offsets = (c * c_stride)[None, :]
        a = tl.load(x_rows[:, None] + a_offsets, mask=a_ok, other=0.0)
        b = tl.load(w_tap + (c * w_stride)[:, None] + o_offsets[None, :], mask=c_ok[:, None] & o_ok[None, :], other=0.0)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        if gate_rows is not None:
            gate = tl.load(gate_rows[:, None] + a_offsets, mask=a_ok, other=0.0).to(tl.float32)
            a = (a.to(tl.float32) * slope(gate, gate_gain, gate_clamp, GATE)).to(a.dtype)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc
