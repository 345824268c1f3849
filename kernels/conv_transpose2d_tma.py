# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Transposed convolution for GPUs that copy tiles themselves (TMA, compute capability 9.0 and above).

The same sum and the same phases as `fastgan.kernels.conv_transpose2d`. A tile's pixels are a box of images, rows and
columns, which the copy engine fetches for each tap; it fills with zeros what lies outside of the image, so there are no
masks and no pointers in the loop.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size; in the kernel M output pixels of
a phase, N output channels of a tile. Layout: channels last, weight [C, K, K, O] in memory.
"""

import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.boxes import (
    box_of,
    corner,
    fills_steps,
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
def conv_transpose2d_tma_kernel(
    x_desc, gate_desc, w_desc, scale_ptr, bias_ptr, noise_ptr, out_ptr,
    num_images, num_in, num_out, out_height, out_width, pad_y, pad_x,
    scale_n, scale_c, noise_n, noise_c, noise_y, noise_x, out_n, out_c, out_y, out_x,
    gain, clamp, gate_gain, gate_clamp,
    STRIDE: tl.constexpr, TAPS: tl.constexpr, ACTIVATION: tl.constexpr, GATE: tl.constexpr,
    BOX_N: tl.constexpr, BOX_Y: tl.constexpr, BOX_X: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of one phase. Grid: (boxes * blocks of output channels, phases)."""
    BLOCK_M: tl.constexpr = BOX_N * BOX_Y * BOX_X
    tiles_o = tl.cdiv(num_out, BLOCK_N)
    first_o = (tl.program_id(0) % tiles_o) * BLOCK_N
    box = tl.program_id(0) // tiles_o
    phase_y, phase_x = tl.program_id(1) // STRIDE, tl.program_id(1) % STRIDE
    rows, columns = tl.cdiv(out_height, STRIDE), tl.cdiv(out_width, STRIDE)
    box_n, box_y, box_x = corner(box, rows, columns, BOX_N, BOX_Y, BOX_X)
    # The phase's first tap, how many it has, and the input pixel of the first, relative to the place in the phase.
    first_i, first_j = (phase_y + pad_y) % STRIDE, (phase_x + pad_x) % STRIDE
    first_y, first_x = (phase_y + pad_y) // STRIDE, (phase_x + pad_x) // STRIDE
    num_i, num_j = tl.cdiv(TAPS - first_i, STRIDE), tl.cdiv(TAPS - first_j, STRIDE)

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    step_i, step_j, c0 = 0, 0, 0
    for _ in range(num_i * num_j * tl.cdiv(num_in, BLOCK_K)):
        y, x = first_y - step_i, first_x - step_j
        i, j = first_i + step_i * STRIDE, first_j + step_j * STRIDE
        a = load_pixels(x_desc, box_n, box_y, box_x, c0, num_in, y, x, 1, BLOCK_M, BLOCK_K)
        b = w_desc.load([c0, i, j, first_o]).reshape(BLOCK_K, BLOCK_N)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        if gate_desc is not None:
            gate = load_pixels(gate_desc, box_n, box_y, box_x, c0, num_in, y, x, 1, BLOCK_M, BLOCK_K).to(tl.float32)
            a = (a.to(tl.float32) * slope(gate, gate_gain, gate_clamp, GATE)).to(a.dtype)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        step_i, step_j, c0 = following(step_i, step_j, c0, num_j, num_in, 1, 1, BLOCK_K)

    m = tl.arange(0, BLOCK_M)
    n = (box_n + m // (BOX_Y * BOX_X)).to(tl.int64)
    row = (box_y + m // BOX_X % BOX_Y) * STRIDE + phase_y
    column = (box_x + m % BOX_X) * STRIDE + phase_x
    row_ok = (n < num_images) & (row < out_height) & (column < out_width)
    o = first_o + tl.arange(0, BLOCK_N)
    o_ok = o < num_out
    ok = row_ok[:, None] & o_ok[None, :]
    result = apply_epilogue(
        acc, n, row, column, o, o_ok, ok, scale_ptr, scale_n, scale_c, bias_ptr,
        noise_ptr, noise_n, noise_c, noise_y, noise_x, gain, clamp, ACTIVATION,
    )  # fmt: skip
    pixel = n * out_n + row.to(tl.int64) * out_y + column.to(tl.int64) * out_x
    tl.store(out_ptr + pixel[:, None] + (o * out_c)[None, :], result, mask=ok)


def prefers_tma(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether these operands lie on a GPU with a copy engine that can read them."""
    return has_copy_engine(x) and fits_tma(x, weight, geometry)


def fits_tma(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the copy engine can read these operands: one group, and channels of both in whole steps."""
    return geometry.groups == 1 and fits_boxes(x, 1) and fills_steps(weight.shape[1], weight)


def launch_tma(
    call: Call, out: Tensor, geometry: Geometry, activation: Activation, gate_activation: Activation, *, tile: Tile
) -> None:
    """Writes the transposed convolution of the operands of `call` into `out`; see `fits_tma`."""
    stride, (num_images, num_out, *size) = geometry.stride, out.shape
    rows, columns = cdiv(size[0], stride), cdiv(size[1], stride)
    box = box_of(tile.m, rows, columns)
    boxes = cdiv(num_images, box[0]) * cdiv(rows, box[1]) * cdiv(columns, box[2])
    constants = call.constants(tile)
    block_k = constants["BLOCK_K"]
    conv_transpose2d_tma_kernel[boxes * cdiv(num_out, tile.n), stride**2](
        image_descriptor(call.x, box, block_k),
        None if call.gate is None else image_descriptor(call.gate, box, block_k),
        weight_descriptor(call.weight, block_k, tile.n),
        call.scale, call.bias, call.noise, out,
        num_images, call.x.shape[1], num_out, *size, *geometry.padding,
        *call.strides(out, transposed=True)[8:],
        *call.numbers(activation, gate_activation),
        STRIDE=stride, TAPS=call.weight.shape[2], ACTIVATION=activation.name, GATE=gate_activation.name,
        BOX_N=box[0], BOX_Y=box[1], BOX_X=box[2],
        **constants,
    )  # fmt: skip
