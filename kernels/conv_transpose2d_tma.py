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

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastgan.kernels.configs import Tile, cdiv
from fastgan.kernels.epilogue import apply_epilogue, slope
from fastgan.kernels.launch import INT32_MAX, Call, dense_channels_last
from fastgan.kernels.spec import Activation, Geometry

# The copy engine addresses memory in steps of so many bytes.
_ALIGNMENT = 16
_MAX_BOX_WIDTH = 16


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
    boxes_y = tl.cdiv(tl.cdiv(out_height, STRIDE), BOX_Y)
    boxes_x = tl.cdiv(tl.cdiv(out_width, STRIDE), BOX_X)
    box_x = (box % boxes_x) * BOX_X
    box_y = (box // boxes_x % boxes_y) * BOX_Y
    box_n = (box // (boxes_x * boxes_y)) * BOX_N
    # The phase's first tap, how many it has, and the input pixel of the first, relative to the place in the phase.
    first_i, first_j = (phase_y + pad_y) % STRIDE, (phase_x + pad_x) % STRIDE
    first_y, first_x = (phase_y + pad_y) // STRIDE, (phase_x + pad_x) // STRIDE
    num_i, num_j = tl.cdiv(TAPS - first_i, STRIDE), tl.cdiv(TAPS - first_j, STRIDE)

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step_i in range(num_i):
        for step_j in range(num_j):
            y, x = box_y + first_y - step_i, box_x + first_x - step_j
            i, j = first_i + step_i * STRIDE, first_j + step_j * STRIDE
            for c0 in range(0, num_in, BLOCK_K):
                a = x_desc.load([box_n, y, x, c0]).reshape(BLOCK_M, BLOCK_K)
                b = w_desc.load([c0, i, j, first_o]).reshape(BLOCK_K, BLOCK_N)
                if UPCAST:
                    a = a.to(tl.float32)
                    b = b.to(tl.float32)
                if gate_desc is not None:
                    gate = gate_desc.load([box_n, y, x, c0]).reshape(BLOCK_M, BLOCK_K).to(tl.float32)
                    a = (a.to(tl.float32) * slope(gate, gate_gain, gate_clamp, GATE)).to(a.dtype)
                acc = tl.dot(a, b, acc, input_precision=PRECISION)

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
    return x.is_cuda and torch.cuda.get_device_capability(x.device) >= (9, 0) and fits_tma(x, weight, geometry)


def fits_tma(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the copy engine can read these operands: one group, channels in whole steps, sizes that int32 counts."""
    step = _ALIGNMENT // x.element_size()
    sizes_fit = max(x.shape) < INT32_MAX and x.data_ptr() % _ALIGNMENT == 0
    return geometry.groups == 1 and weight.shape[0] % step == 0 and weight.shape[1] % step == 0 and sizes_fit


def launch_tma(
    call: Call, out: Tensor, geometry: Geometry, activation: Activation, gate_activation: Activation, *, tile: Tile
) -> None:
    """Writes the transposed convolution of the operands of `call` into `out`; see `fits_tma`."""
    stride, (num_images, num_out, *size) = geometry.stride, out.shape
    x, taps = _box_layout(call.x), call.weight.shape[2]
    gate = None if call.gate is None else _box_layout(call.gate)
    box = _box(tile.m, cdiv(size[0], stride), cdiv(size[1], stride))
    constants = call.constants(tile, num_pixels=0)
    block_k = constants["BLOCK_K"]
    boxes = cdiv(num_images, box[0]) * cdiv(cdiv(size[0], stride), box[1]) * cdiv(cdiv(size[1], stride), box[2])
    weight = _descriptor(_box_layout(call.weight), [block_k, 1, 1, tile.n])
    conv_transpose2d_tma_kernel[boxes * cdiv(num_out, tile.n), stride**2](
        _descriptor(x, [*box, block_k]), None if gate is None else _descriptor(gate, [*box, block_k]), weight,
        call.scale, call.bias, call.noise, out,
        num_images, x.shape[1], num_out, *size, *geometry.padding,
        *call.strides(out, transposed=True)[8:],
        *call.numbers(activation, gate_activation),
        STRIDE=stride, TAPS=taps, ACTIVATION=activation.name, GATE=gate_activation.name,
        BOX_N=box[0], BOX_Y=box[1], BOX_X=box[2],
        **{name: value for name, value in constants.items() if name not in ("BLOCK_M", "WIDE")},
    )  # fmt: skip


def _box_layout(x: Tensor) -> Tensor:
    """`x` where it lies with the strides of a new channels_last tensor, else a copy that does."""
    strides = torch.empty(x.shape, device="meta", memory_format=torch.channels_last).stride()
    return x if x.stride() == strides else dense_channels_last(x)


def _box(num_pixels: int, rows: int, columns: int) -> tuple[int, int, int]:
    """Images, rows and columns, powers of two, of a box of `num_pixels` that suits a [rows, columns] grid."""
    width = min(triton.next_power_of_2(columns), _MAX_BOX_WIDTH, num_pixels)
    height = min(triton.next_power_of_2(rows), num_pixels // width)
    return num_pixels // (width * height), height, width


def _descriptor(x: Tensor, block: list[int]) -> Any:
    """Of a channels_last tensor, as [N, H, W, C]."""
    return TensorDescriptor.from_tensor(x.permute(0, 2, 3, 1), block)
