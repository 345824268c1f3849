"""What conv2d and conv_transpose2d do alike: check, choose, and run the reference or a custom op.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

from collections.abc import Hashable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.spec import Activation, Geometry
from fastgan.ops import contract
from fastgan.ops.bias_act import bias_act_reference
from fastgan.ops.choice import Case, choose
from fastgan.ops.contract import Size2, pair
from fastgan.ops.convolution import Linear, Operands, Settings, convolution_op
from fastgan.ops.eager import PLAIN, is_listened_to
from fastgan.ops.shape_class import convolution_case


class Sizes(NamedTuple):
    """Stride, padding, dilation, groups and output padding as torch takes them."""

    stride: Size2
    padding: Size2 | str
    dilation: Size2
    groups: int
    output_padding: Size2 = 0


class Epilogue(NamedTuple):
    """What follows the convolution: clamp(gain * activation(scale * y + noise + bias))."""

    bias: Tensor | None
    scale: Tensor | None
    noise: Tensor | None
    activation: Activation


class Facts(NamedTuple):
    """What depends on the signature of a call alone, as `Case` has it."""

    limit: str | None
    shape_class: str


# Of calls that passed the checks. The checks take longer than PyTorch takes to start a convolution.
_facts: dict[Hashable, Facts] = {}
_MAX_SIGNATURES = 4096


def fused_convolution(
    linear: Linear, x: Tensor, weight: Tensor, *, sizes: Sizes, epilogue: Epilogue, impl: str
) -> Tensor:
    """conv2d or conv_transpose2d of checked arguments by the implementation that `impl` leads to.

    Raises:
        ValueError, TypeError, ImplementationError: naming the argument, its value and the rule.
    """
    contract.check_tensor(linear, "x", x)
    contract.check_tensor(linear, "weight", weight)
    x, weight = as_autocast(x), as_autocast(weight)
    signature = _signature(linear, x, weight, sizes, epilogue)
    facts = None if signature is None else _facts.get(signature)
    if facts is None:
        sizes = Sizes(*[contract.whole(size) for size in sizes])
        _check(linear, x, weight, sizes, epilogue)
        stride, padding, dilation, groups = sizes[:4]
        case = convolution_case(
            linear,
            x,
            weight,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            activation=epilogue.activation,
        )
        _remember(signature, case)
    else:
        case = Case(linear, (x, weight), limit=lambda: facts.limit, shape_class=lambda: facts.shape_class)

    def run(impl: str) -> Tensor:
        if impl == "reference":
            return _reference(linear, x, weight, sizes, epilogue)
        return _by_op(linear, x, weight, sizes, epilogue=epilogue, impl=impl)

    return run(choose(case, impl, run))


def _remember(signature: Hashable | None, case: Case) -> None:
    if signature is None:
        return
    if len(_facts) >= _MAX_SIGNATURES:
        _facts.clear()
    _facts[signature] = Facts(case.limit(), case.shape_class())


def _signature(linear: Linear, x: Tensor, weight: Tensor, sizes: Sizes, epilogue: Epilogue) -> Hashable | None:
    """All that the checks and the choice read of a call; None where some of it is not plain numbers."""
    bias, scale, noise, activation = epilogue
    tensors = (x, weight, bias, scale, noise)
    if is_listened_to() or any(type(tensor) not in PLAIN for tensor in tensors if tensor is not None):
        return None
    # 1, 1.0 and True are equal, and only the first is a size.
    if x.dim() != 4 or not all(_is_plain(size) for size in sizes):
        return None
    name, gain, clamp = activation
    if type(name) is not str or type(gain) not in (int, float) or type(clamp) not in (int, float, type(None)):
        return None
    kinds = [None if tensor is None else (tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
    return linear, *kinds, x.stride(1) == 1, sizes, activation


def _is_plain(size: object) -> bool:
    return type(size) in (int, str) or (type(size) is tuple and all(type(number) is int for number in size))


def as_autocast(x: Tensor) -> Tensor:
    """`x` in the dtype that torch.autocast gives to torch's own convolutions, so that all implementations agree."""
    kind = x.device.type
    if not x.is_floating_point() or x.dtype == torch.float64 or kind == "meta" or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def _check(op: Linear, x: Tensor, weight: Tensor, sizes: Sizes, epilogue: Epilogue) -> None:
    transposed = op == "conv_transpose2d"
    stride, padding, dilation, groups, output_padding = sizes
    contract.check_images(op, x, unbatched=True)
    contract.check_weight(op, x, weight, groups, in_dim=0 if transposed else 1)
    contract.check_sizes(op, stride=stride, padding=padding, dilation=dilation, output_padding=output_padding)
    if transposed:
        contract.check_output_padding(op, output_padding, stride, dilation)
    size = contract.output_pixels(op, x, weight, *sizes)
    batch, channels = x.shape[0] if x.dim() == 4 else 1, weight.shape[1] * groups if transposed else weight.shape[0]
    bias, scale, noise, activation = epilogue
    out_shape = (batch, channels, *size)
    contract.check_epilogue(op, x, out_shape=out_shape, bias=bias, scale=scale, noise=noise, activation=activation)


def _reference(linear: Linear, x: Tensor, weight: Tensor, sizes: Sizes, epilogue: Epilogue) -> Tensor:
    """The definition of both ops, in plain PyTorch."""
    if x.dim() == 3:
        return _reference(linear, x[None], weight, sizes, epilogue)[0]
    bias, scale, noise, activation = epilogue
    stride, padding, dilation, groups, output_padding = sizes
    weight, scale = fold_scale(weight, scale, out_dim=0 if linear == "conv2d" else 1, groups=groups)
    # PyTorch's convolution adds the bias for free, unless something comes between the two.
    inner, outer = (bias, None) if scale is None else (None, bias)
    inner = None if inner is None else inner.to(x.dtype)
    if linear == "conv2d":
        y = F.conv2d(x, weight, inner, stride, padding, dilation, groups)
    else:
        assert not isinstance(padding, str)
        y = F.conv_transpose2d(x, weight, inner, stride, padding, output_padding, groups, dilation)
    y = y if scale is None else y * scale.to(y.dtype)[:, :, None, None]
    return bias_act_reference(y, outer, noise, activation)


def _by_op(linear: Linear, x: Tensor, weight: Tensor, sizes: Sizes, *, epilogue: Epilogue, impl: str) -> Tensor:
    """The custom op. A scale per channel goes into the weight: that is small, and its gradient then costs nothing."""
    bias, scale, noise, activation = epilogue
    assert not isinstance(sizes.padding, str)
    geometry = Geometry(pair(sizes.stride)[0], pair(sizes.padding), pair(sizes.output_padding), sizes.groups)
    weight, scale = fold_scale(weight, scale, out_dim=0 if linear == "conv2d" else 1, groups=sizes.groups)
    operands = Operands(x, weight, scale=scale, bias=bias, noise=noise)
    return convolution_op(linear, operands, Settings(geometry, impl, activation))


def fold_scale(weight: Tensor, scale: Tensor | None, *, out_dim: int, groups: int = 1) -> tuple[Tensor, Tensor | None]:
    """Multiplies a per-channel scale into the weight, which is smaller than the output; [N, O] is left over.

    Args:
        out_dim: dimension of `weight` that holds output channels: 0 for conv2d, 1 for conv_transpose2d.
        groups: with out_dim=1 and several groups, `weight` [C, O / G, K, K] holds group g's output channels in the
            rows of group g.
    Returns:
        The weight to convolve with, and the scale that remains to be applied to the output, or None.
    """
    if scale is None or scale.dim() == 2:
        return weight, scale
    dtype = torch.promote_types(weight.dtype, scale.dtype)
    if scale.numel() == 1:
        factor = scale.reshape(1, 1, 1, 1)
    elif out_dim == 0:
        factor = scale[:, None, None, None]
    else:
        rows = scale.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        factor = rows.reshape(weight.shape[0], -1)[:, :, None, None]
    return (weight.to(dtype) * factor).to(weight.dtype), None
