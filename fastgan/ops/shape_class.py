"""What the choice of an implementation depends on: limits of the kernels, and the class of shapes that share a choice.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

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
        limit=lambda: _convolution_limit(x, tuple(weight.shape[2:]), stride, padding, dilation),
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
        limit=lambda: _convolution_limit(x, tuple(size[2:]), stride, padding, dilation),
        shape_class=lambda: f"{_size_class(x)} {_weight_class(size)} s{pair(stride)[0]} g{groups} {_dtype(x)}",
    )


def _convolution_limit(
    x: Tensor, kernel: Sequence[int], stride: Size2, padding: Size2 | str, dilation: Size2
) -> str | None:
    """Why the kernels cannot serve, or None."""
    if x.dim() != 4:
        return f"x has shape {list(x.shape)} without a batch; the kernels take [N, C, H, W]"
    if isinstance(padding, str):
        return f"padding={padding!r}; the kernels take numbers"
    if pair(dilation) != (1, 1):
        return f"dilation={dilation}; the kernels take 1"
    if pair(stride) not in [(step, step) for step in STRIDES]:
        return f"stride={stride}; the kernels take {' and '.join(map(str, STRIDES))}"
    if kernel[0] != kernel[1] or kernel[0] not in KERNEL_SIZES:
        rule = ", ".join(f"{size}x{size}" for size in KERNEL_SIZES)
        return f"weight is {kernel[0]}x{kernel[1]}; the kernels take {rule}"
    return _dtype_limit(x) or _size_limit(x)


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
