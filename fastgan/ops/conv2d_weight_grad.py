"""The gradient of a convolution by its weight, which is linear in the input and in the gradient by the output.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.kernels.spec import Geometry
from fastgan.ops.choice import choose
from fastgan.ops.contract import Size2, check_weight_grad, pair, whole
from fastgan.ops.eager import register
from fastgan.ops.shape_class import weight_grad_case


def conv2d_weight_grad(  # noqa: PLR0917 - the positional arguments are torch's
    x: Tensor,
    weight_size: Sequence[int],
    grad: Tensor,
    stride: Size2 = 1,
    padding: Size2 = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    *,
    impl: str = "auto",
) -> Tensor:
    """dW[o, c, i, j] = sum over n, y, x of grad[n, o, y, x] * padded x[n, c, y * stride + i, x * stride + j].

    The arguments are those of `torch.nn.grad.conv2d_weight`. For a transposed convolution the roles change: `x` is
    the gradient by the output and `grad` the input.

    Args:
        x: [N, C, H, W], floating point.
        weight_size: [O, C / G, K, K].
        grad: [N, O, H', W'], dtype of `x`, the gradient by the convolution's output.
    Returns:
        `weight_size`, dtype of `x`; differentiable any number of times in `x` and `grad`.
    Raises:
        ValueError, TypeError, ImplementationError: naming the argument, its value and the rule.
    """
    weight_size, stride, padding = whole(weight_size), whole(stride), whole(padding)
    dilation, groups = whole(dilation), whole(groups)
    size = check_weight_grad(x, weight_size, grad, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def run(impl: str) -> Tensor:
        if impl == "reference":
            return _reference(x, size, grad, stride=stride, padding=padding, dilation=dilation, groups=groups)
        geometry = Geometry(pair(stride)[0], pair(padding), groups=groups)
        return conv2d_weight_grad_op(x, grad, (size[2], size[3]), geometry, impl)

    case = weight_grad_case(x, size, grad, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return run(choose(case, impl, run))


def _reference(  # noqa: PLR0917
    x: Tensor, size: Sequence[int], grad: Tensor, stride: Size2, padding: Size2, dilation: Size2, groups: int
) -> Tensor:
    """The definition of `conv2d_weight_grad`, in plain PyTorch."""
    sizes = (list(pair(stride)), list(pair(padding)), list(pair(dilation)))
    unread = grad.new_empty(1).expand(list(size))
    _, by_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, unread, None, *sizes, False, [0, 0], groups, [False, True, False]
    )
    result: Tensor = by_weight
    return result


def as_channels_last(x: Tensor) -> Tensor:
    """`x` with exactly the strides that a new channels_last tensor of its shape has."""
    _, channels, height, width = x.shape
    strides = (channels * height * width, 1, channels * width, channels)
    return x if x.stride() == strides else torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


def conv2d_weight_grad_op(x: Tensor, grad: Tensor, kernel: tuple[int, int], geometry: Geometry, backend: str) -> Tensor:
    """The custom op fastgan::conv2d_weight_grad: [O, C / G, K, K] in channels_last."""
    stride, padding, _, groups = geometry
    return _op(x, grad, kernel, stride, padding, groups, backend)


def _run(  # noqa: PLR0917
    x: Tensor, grad: Tensor, kernel: Sequence[int], stride: int, padding: Sequence[int], groups: int, backend: str
) -> Tensor:
    pad, taps = (padding[0], padding[1]), (kernel[0], kernel[1])
    if backend == "triton":
        from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad as run

        return as_channels_last(run(x, grad, taps, Geometry(stride, pad, groups=groups)))
    size = (grad.shape[1], x.shape[1] // groups, *taps)
    return as_channels_last(_reference(x, size, grad, stride, pad, 1, groups))


def _fake(  # noqa: PLR0917
    x: Tensor, grad: Tensor, kernel: Sequence[int], stride: int, padding: Sequence[int], groups: int, backend: str
) -> Tensor:
    size = (grad.shape[1], x.shape[1] // groups, *kernel)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, grad, _, stride, padding, groups, ctx.backend = inputs
    ctx.geometry = Geometry(stride, (padding[0], padding[1]), groups=groups)
    ctx.save_for_backward(x, grad)


def _backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """With h the cotangent, a weight: dx = conv_transpose(grad, h), d grad = conv(x, h)."""
    from fastgan.ops.convolution import Operands, Settings, convolution_op

    x, grad = ctx.saved_tensors
    geometry, kernel = ctx.geometry, (cotangent.shape[2], cotangent.shape[3])
    by_x = by_grad = None
    if ctx.needs_input_grad[0]:
        onto = geometry.transposed_onto((x.shape[2], x.shape[3]), (grad.shape[2], grad.shape[3]), kernel)
        by_x = convolution_op("conv_transpose2d", Operands(grad, cotangent), Settings(onto, ctx.backend))
    if ctx.needs_input_grad[1]:
        by_grad = convolution_op("conv2d", Operands(x, cotangent), Settings(geometry, ctx.backend))
    return by_x, by_grad, None, None, None, None, None


_op = register("conv2d_weight_grad", _run, fake=_fake, setup_context=_setup_context, backward=_backward)
