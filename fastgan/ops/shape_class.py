"""What the choice of an implementation depends on: limits of the kernels, and the class of shapes that share a choice.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from fastgan.kernels.spec import Activation
from fastgan.ops.choice import Case
from fastgan.ops.contract import Size2, pair

STRIDES = (1, 2)
KERNEL_SIZES = (1, 3, 4, 6)
DTYPES = ("float16", "bfloat16", "float32")

# Offsets between images are computed in int64, those within an image in int32 rows of pixels.
MAX_PIXELS = 2**31 - 2**16

# Offsets within a weight are int32, and its groups times its taps lie on a grid's second axis, which ends at 65,535.
MAX_WEIGHT_NUMBERS = 2**31 - 1
MAX_GROUPS = 65535 // max(KERNEL_SIZES) ** 2


def elementwise_case(op: str, x: Tensor, activation: Activation) -> Case:
    """The case of an element-wise op on `x`."""
    return Case(
        op,
        (x,),
        limit=lambda: _dtype_limit(x) or _size_limit(x),
        shape_class=lambda: f"{_size_class(x)} c{x.shape[1]} {activation.name} {_dtype(x)}",
    )


def convolution_case(
    op: str,
    x: Tensor,
    weight: Tensor,
    *,
    stride: Size2,
    padding: Size2 | str,
    dilation: Size2,
    groups: int,
    activation: Activation,
) -> Case:
    """The case of conv2d or conv_transpose2d."""
    return Case(
        op,
        (x, weight),
        limit=lambda: _convolution_limit(x, weight.shape, stride, padding, dilation, groups),
        shape_class=lambda: (
            f"{_size_class(x)} {_weight_class(weight.shape)} s{pair(stride)[0]} g{groups} {activation.name} {_dtype(x)}"
        ),
    )


def weight_grad_case(
    x: Tensor, size: Sequence[int], grad: Tensor, *, stride: Size2, padding: Size2, dilation: Size2, groups: int
) -> Case:
    """The case of conv2d_weight_grad."""
    return Case(
        "conv2d_weight_grad",
        (x, grad),
        limit=lambda: _convolution_limit(x, size, stride, padding, dilation, groups),
        shape_class=lambda: f"{_size_class(x)} {_weight_class(size)} s{pair(stride)[0]} g{groups} {_dtype(x)}",
    )


def _convolution_limit(  # noqa: PLR0917
    x: Tensor, size: Sequence[int], stride: Size2, padding: Size2 | str, dilation: Size2, groups: int
) -> str | None:
    """Why the kernels cannot serve a weight of this size, or None."""
    if x.dim() != 4:
        return f"x has shape {list(x.shape)} without a batch; the kernels take [N, C, H, W]"
    if isinstance(padding, str):
        return f"padding={padding!r}; the kernels take numbers"
    if pair(dilation) != (1, 1):
        return f"dilation={dilation}; the kernels take 1"
    if pair(stride) not in [(step, step) for step in STRIDES]:
        return f"stride={stride}; the kernels take {' and '.join(map(str, STRIDES))}"
    return _weight_limit(size, groups) or _dtype_limit(x) or _size_limit(x)


def _weight_limit(size: Sequence[int], groups: int) -> str | None:
    kernel = size[2:]
    if kernel[0] != kernel[1] or kernel[0] not in KERNEL_SIZES:
        rule = ", ".join(f"{size}x{size}" for size in KERNEL_SIZES)
        return f"weight is {kernel[0]}x{kernel[1]}; the kernels take {rule}"
    if groups > MAX_GROUPS:
        return f"groups={groups}; the kernels take up to {MAX_GROUPS}"
    if math.prod(size) > MAX_WEIGHT_NUMBERS:
        return f"weight has {math.prod(size)} numbers; the kernels take up to {MAX_WEIGHT_NUMBERS}"
    return None


def _dtype_limit(x: Tensor) -> str | None:
    return None if _dtype(x) in DTYPES else f"x has dtype {x.dtype}; the kernels take {', '.join(DTYPES)}"


def _size_limit(x: Tensor) -> str | None:
    pixels = x.shape[2] * x.shape[3]
    return None if pixels < MAX_PIXELS else f"x has {pixels} pixels per image; the kernels take up to {MAX_PIXELS}"


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _size_class(x: Tensor) -> str:
    """Pixels of the whole batch, rounded up to a power of two, and memory format."""
    pixels = x.numel() // max(x.shape[1], 1)
    layout = "nhwc" if x.stride(1) == 1 else "nchw"
    return f"2^{max(pixels - 1, 0).bit_length()} {layout}"


def _weight_class(size: Sequence[int]) -> str:
    return "x".join(str(int(number)) for number in size)
