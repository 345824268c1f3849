# Triton's language has no types, and a kernel's pointers and sizes are positional.
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls, allow-incomplete-defs
# ruff: noqa: PLR0917
"""Boxes of pixels for GPUs that copy tiles themselves (TMA, compute capability 9.0 and above).

A descriptor tells the copy engine how a tensor lies in memory; a load names a corner and gets the box behind it, zeros
where it lies outside of the tensor. So a kernel's loop has no masks and no pointers.

Every second pixel is no box. But an image of even size is also one of [H / 2, 2, W / 2, 2 C] numbers, where the rows
and columns of one remainder lie side by side, and there it is one.

What the engine cannot fetch is read by pointers: several groups, whose channels end within a block; channels that do
not fill steps of 16 bytes, such as an image's three; odd sizes at stride 2; GPUs before 9.0.

Shape legend: N batch, C channels, H W pixels, K kernel size; in a kernel M pixels of a box, K channels of a block.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from fastgan.kernels.launch import INT32_MAX, dense_channels_last

Box = tuple[int, int, int]

# The copy engine addresses memory in steps of so many bytes.
_STEP_BYTES = 16
_MAX_BOX_WIDTH = 16


@triton.jit
def corner(box, rows, columns, BOX_N: tl.constexpr, BOX_Y: tl.constexpr, BOX_X: tl.constexpr):
    """(n, y, x) of the first pixel of a box, of those that cover a [rows, columns] grid for each image."""
    boxes_y, boxes_x = tl.cdiv(rows, BOX_Y), tl.cdiv(columns, BOX_X)
    return box // (boxes_x * boxes_y) * BOX_N, box // boxes_x % boxes_y * BOX_Y, box % boxes_x * BOX_X


@triton.jit
def load_pixels(
    desc,
    n,
    y,
    x,
    c,
    num_channels,
    shift_y,
    shift_x,
    STRIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """[M, K] numbers of the pixels (y STRIDE + shift_y, x STRIDE + shift_x) and those that follow in the box.

    Args:
        desc: from `image_descriptor` with the same stride, 1 or 2. c: the first channel.
    """
    if STRIDE == 1:
        box = desc.load([n, y + shift_y, x + shift_x, c])
    else:
        # A shift to the right rounds down, also below zero.
        column = x + (shift_x >> 1)
        box = desc.load([n, y + (shift_y >> 1), shift_y & 1, column, (shift_x & 1) * num_channels + c])
    return box.reshape(BLOCK_M, BLOCK_K)


@triton.jit
def following(
    outer, middle, inner, num_middle, num_inner, OUTER: tl.constexpr, MIDDLE: tl.constexpr, INNER: tl.constexpr
):
    """What three nested loops with these steps and bounds come to next.

    One loop instead of three fetches the next tap's tiles while the last of this tap are multiplied, and prepares the
    engine's barriers once. Its numbers are counted up and not divided out of a single one.
    """
    inner += INNER
    middle = tl.where(inner < num_inner, middle, middle + MIDDLE)
    inner = tl.where(inner < num_inner, inner, 0)
    outer = tl.where(middle < num_middle, outer, outer + OUTER)
    middle = tl.where(middle < num_middle, middle, 0)
    return outer, middle, inner


def has_copy_engine(x: Tensor) -> bool:
    """Whether `x` lies on a GPU that copies tiles itself."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device) >= (9, 0)


def fills_steps(num_channels: int, x: Tensor) -> bool:
    """Whether so many channels of the dtype of `x` end where one of the engine's steps does."""
    return num_channels * x.element_size() % _STEP_BYTES == 0


def fits_boxes(x: Tensor, stride: int) -> bool:
    """Whether the engine can fetch boxes of every `stride`-th pixel of the images `x`."""
    sizes_fit = max(x.shape) < INT32_MAX and x.data_ptr() % _STEP_BYTES == 0
    return sizes_fit and fills_steps(x.shape[1], x) and x.shape[2] % stride == 0 and x.shape[3] % stride == 0


def box_of(num_pixels: int, rows: int, columns: int) -> Box:
    """Images, rows and columns, powers of two, of a box of `num_pixels` that suits a [rows, columns] grid."""
    width = min(triton.next_power_of_2(columns), _MAX_BOX_WIDTH, num_pixels)
    height = min(triton.next_power_of_2(rows), num_pixels // width)
    return num_pixels // (width * height), height, width


def image_descriptor(x: Tensor, box: Box, block_k: int, *, stride: int = 1) -> Any:
    """Of `x` [N, C, H, W] for `load_pixels`: as [N, H, W, C], or for stride 2 as [N, H / 2, 2, W / 2, 2 C]."""
    images = _dense(x).permute(0, 2, 3, 1)
    if stride == 1:
        return TensorDescriptor.from_tensor(images, [*box, block_k])
    batch, height, width, channels = images.shape
    halves = images.view(batch, height // 2, 2, width // 2, 2 * channels)
    return TensorDescriptor.from_tensor(halves, [box[0], box[1], 1, box[2], block_k])


def weight_descriptor(weight: Tensor, first: int, second: int) -> Any:
    """Of a weight [A, B, K, K] as [A, K, K, B], in blocks of `first` x `second` for one tap."""
    return TensorDescriptor.from_tensor(_dense(weight).permute(0, 2, 3, 1), [first, 1, 1, second])


def _dense(x: Tensor) -> Tensor:
    """`x` where it lies as a new channels_last tensor does, and on a step, else a copy that does."""
    strides = torch.empty(x.shape, device="meta", memory_format=torch.channels_last).stride()
    lies_well = x.stride() == strides and x.data_ptr() % _STEP_BYTES == 0
    return x if lies_well else dense_channels_last(x)
