# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Convolution for GPUs that copy tiles themselves (TMA, compute capability 9.0 and above).

The same sum as `fastgan.kernels.conv2d`, of tiles that `fastgan.kernels.boxes` fetches.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size; in the kernel M output pixels,
N output channels of a tile. Layout: channels last, weight [O, K, K, C] in memory.
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
    weight_descriptor,
)
from fastgan.kernels.configs import Tile, cdiv
from fastgan.kernels.epilogue import apply_epilogue, slope
from fastgan.kernels.launch import Call
from fastgan.kernels.spec import Activation, Geometry


@triton.jit
def conv2d_tma_kernel(
    x_desc, gate_desc, w_desc, scale_ptr, bias_ptr, noise_ptr, out_ptr,
    num_images, num_in, num_out, out_height, out_width, pad_y, pad_x,
    scale_n, scale_c, noise_n, noise_c, noise_y, noise_x, out_n, out_c, out_y, out_x,
    gain, clamp, gate_gain, gate_clamp,
    STRIDE: tl.constexpr, TAPS: tl.constexpr, ACTIVATION: tl.constexpr, GATE: tl.constexpr,
    BOX_N: tl.constexpr, BOX_Y: tl.constexpr, BOX_X: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of output. Grid: (boxes * blocks of output channels,)."""
    BLOCK_M: tl.constexpr = BOX_N * BOX_Y * BOX_X
    tiles_o = tl.cdiv(num_out, BLOCK_N)
    first_o = (tl.program_id(0) % tiles_o) * BLOCK_N
    n, y, x = corner(tl.program_id(0) // tiles_o, out_height, out_width, BOX_N, BOX_Y, BOX_X)

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    i, j, c0 = 0, 0, 0
    for _ in range(TAPS * TAPS * tl.cdiv(num_in, BLOCK_K)):
        a = load_pixels(x_desc, n, y, x, c0, num_in, i - pad_y, j - pad_x, STRIDE, BLOCK_M, BLOCK_K)
        b = w_desc.load([first_o, i, j, c0]).reshape(BLOCK_N, BLOCK_K)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        if gate_desc is not None:
            gate = load_pixels(gate_desc, n, y, x, c0, num_in, i - pad_y, j - pad_x, STRIDE, BLOCK_M, BLOCK_K)
            gate = gate.to(tl.float32)
            a = (a.to(tl.float32) * slope(gate, gate_gain, gate_clamp, GATE)).to(a.dtype)
        acc = tl.dot(a, b.T, acc, input_precision=PRECISION)
        i, j, c0 = following(i, j, c0, TAPS, num_in, 1, 1, BLOCK_K)

    m = tl.arange(0, BLOCK_M)
    image = (n + m // (BOX_Y * BOX_X)).to(tl.int64)
    row, column = y + m // BOX_X % BOX_Y, x + m % BOX_X
    row_ok = (image < num_images) & (row < out_height) & (column < out_width)
    o = first_o + tl.arange(0, BLOCK_N)
    o_ok = o < num_out
    ok = row_ok[:, None] & o_ok[None, :]
    result = apply_epilogue(
        acc, image, row, column, o, o_ok, ok, scale_ptr, scale_n, scale_c, bias_ptr,
        noise_ptr, noise_n, noise_c, noise_y, noise_x, gain, clamp, ACTIVATION,
    )  # fmt: skip
    pixel = image * out_n + row.to(tl.int64) * out_y + column.to(tl.int64) * out_x
    tl.store(out_ptr + pixel[:, None] + (o * out_c)[None, :], result, mask=ok)


def prefers_tma(x: Tensor, geometry: Geometry, block_k: int) -> bool:
    """Whether these operands lie on a GPU with a copy engine that can read them."""
    return has_copy_engine(x) and fits_tma(x, geometry, block_k)


def fits_tma(x: Tensor, geometry: Geometry, block_k: int) -> bool:
    """Whether the copy engine can read these operands: one group, whole steps, and at stride 2 whole blocks.

    At stride 2 the channels of two columns lie side by side: what a last, broken block held beyond the first column's
    would not be zeros, but numbers of the second.
    """
    is_whole = geometry.stride == 1 or x.shape[1] % block_k == 0
    return geometry.groups == 1 and fits_boxes(x, geometry.stride) and is_whole


def launch_tma(
    call: Call, out: Tensor, geometry: Geometry, activation: Activation, gate_activation: Activation, *, tile: Tile
) -> None:
    """Writes the convolution of the operands of `call` into `out`; see `fits_tma`."""
    stride, (num_images, num_out, *size) = geometry.stride, out.shape
    box = box_of(tile.m, *size)
    boxes = cdiv(num_images, box[0]) * cdiv(size[0], box[1]) * cdiv(size[1], box[2])
    constants = call.constants(tile)
    block_k = constants["BLOCK_K"]
    conv2d_tma_kernel[(boxes * cdiv(num_out, tile.n),)](
        image_descriptor(call.x, box, block_k, stride=stride),
        None if call.gate is None else image_descriptor(call.gate, box, block_k, stride=stride),
        weight_descriptor(call.weight, tile.n, block_k),
        call.scale, call.bias, call.noise, out,
        num_images, call.x.shape[1], num_out, *size, *geometry.padding,
        *call.strides(out, transposed=False)[8:],
        *call.numbers(activation, gate_activation),
        STRIDE=stride, TAPS=call.weight.shape[2], ACTIVATION=activation.name, GATE=gate_activation.name,
        BOX_N=box[0], BOX_Y=box[1], BOX_X=box[2],
        **constants,
    )  # fmt: skip
