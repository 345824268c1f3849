# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Convolution as implicit GEMM, with a gate before it and the epilogue behind it.

    y[n, y, x, o] = epilogue(sum over i, j, c of u[n, y s - p + i, x s - p + j, c] w[o, c, i, j]),   u = x * slope(gate)

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups; in the kernel M output
pixels, N output channels of a tile. Layout: channels last; everything is addressed by strides.
"""

import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.configs import Tile, cdiv, conv_tile
from fastgan.kernels.conv2d_tma import launch_tma, prefers_tma
from fastgan.kernels.epilogue import apply_epilogue
from fastgan.kernels.implicit_gemm import add_tap, locate, tile_numbers
from fastgan.kernels.launch import Call, finished, new_output, on_its_gpu
from fastgan.kernels.spec import Activation, Geometry


@triton.jit
def conv2d_kernel(
    x_ptr, gate_ptr, w_ptr, scale_ptr, bias_ptr, noise_ptr, out_ptr,
    num_images, num_in, num_out, height, width, out_height, out_width, pad_y, pad_x,
    x_n, x_c, x_y, x_x, w_o, w_c, w_y, w_x, scale_n, scale_c, noise_n, noise_c, noise_y, noise_x,
    out_n, out_c, out_y, out_x,
    gain, clamp, gate_gain, gate_clamp,
    STRIDE: tl.constexpr, TAPS: tl.constexpr, ACTIVATION: tl.constexpr, GATE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of output. Grid: (blocks of pixels * blocks of output channels, groups)."""
    block_m, block_n = tile_numbers(tl.program_id(0), num_out, BLOCK_N)
    group = tl.program_id(1)
    n, out_row, out_column, row_ok = locate(block_m, num_images, out_height, out_width, BLOCK_M, WIDE)
    o = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    o_ok = o < num_out
    o_offsets = o * w_o
    w_group = w_ptr + group.to(tl.int64) * num_out * w_o
    x_image = n * x_n + group * num_in * x_c

    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for i in range(TAPS):
        for j in range(TAPS):
            y = out_row * STRIDE - pad_y + i
            x = out_column * STRIDE - pad_x + j
            exists = row_ok & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            offset = x_image + y.to(tl.int64) * x_y + x.to(tl.int64) * x_x
            gate_rows = None
            if gate_ptr is not None:
                gate_rows = gate_ptr + offset
            acc = add_tap(
                acc, x_ptr + offset, gate_rows, w_group + i * w_y + j * w_x, exists, x_c, w_c, o_offsets, o_ok, num_in,
                gate_gain, gate_clamp, GATE, BLOCK_K, UPCAST, PRECISION,
            )  # fmt: skip

    ok = row_ok[:, None] & o_ok[None, :]
    c = group * num_out + o
    result = apply_epilogue(
        acc, n, out_row, out_column, c, o_ok, ok, scale_ptr, scale_n, scale_c, bias_ptr,
        noise_ptr, noise_n, noise_c, noise_y, noise_x, gain, clamp, ACTIVATION,
    )  # fmt: skip
    pixel = n * out_n + out_row.to(tl.int64) * out_y + out_column.to(tl.int64) * out_x
    tl.store(out_ptr + pixel[:, None] + (c * out_c)[None, :], result, mask=ok)


@on_its_gpu
def conv2d(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    bias: Tensor | None,
    noise: Tensor | None,
    geometry: Geometry,
    activation: Activation,
    gate_activation: Activation,
    *,
    tile: Tile | None = None,
    out: Tensor | None = None,
    use_tma: bool | None = None,
) -> Tensor:
    """[N, O, H', W'] in channels_last; arguments as in `fastgan.ops.convolution`.

    Args:
        tile: configuration, by default picked by shape. out: memory for the result, for tests.
        use_tma: whether the GPU's copy engine fetches the tiles, by default where there is one that can.
    """
    call = Call(x, weight, gate, scale, bias, noise)
    size = geometry.conv_size((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]))
    shape = (x.shape[0], weight.shape[0], *size)
    out = new_output(shape, x) if out is None else out
    num_pixels = shape[0] * size[0] * size[1]
    if num_pixels == 0:
        return finished(out, x)
    if tile is None:
        tile = conv_tile(num_pixels, weight.shape[0] // geometry.groups, scales_and_adds=call.scales_and_adds)
    if prefers_tma(call.x, geometry, tile.block_k(x.element_size())) if use_tma is None else use_tma:
        launch_tma(call, out, geometry, activation, gate_activation, tile=tile)
    else:
        _launch(call, out, geometry, activation, gate_activation, tile=tile, num_pixels=num_pixels)
    return finished(out, x)


def _launch(
    call: Call,
    out: Tensor,
    geometry: Geometry,
    activation: Activation,
    gate_activation: Activation,
    *,
    tile: Tile,
    num_pixels: int,
) -> None:
    """The kernel that addresses memory by pointers."""
    x, weight, size = call.x, call.weight, out.shape[2:]
    groups, num_out = geometry.groups, weight.shape[0] // geometry.groups
    grid = (cdiv(num_pixels, tile.m) * cdiv(num_out, tile.n), groups)
    conv2d_kernel[grid](
        *call.pointers(out),
        x.shape[0], weight.shape[1], num_out, x.shape[2], x.shape[3], *size, *geometry.padding,
        *call.strides(out, transposed=False),
        *call.numbers(activation, gate_activation),
        STRIDE=geometry.stride, TAPS=weight.shape[2], ACTIVATION=activation.name, GATE=gate_activation.name,
        **call.pointer_constants(tile, num_pixels=num_pixels),
    )  # fmt: skip
