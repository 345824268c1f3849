"""Checks shared by the convolution ops: each error names the argument, its value and the rule.

Shape legend: N batch, C channels, H W pixels, O output channels, K kernel size, G groups.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import did_you_mean
from fastgan.kernels.spec import ACTIVATIONS, Activation

Size2 = int | tuple[int, int]

_LEAST = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
# While torch.compile traces with sizes left open, they are numbers of this other kind.
_WHOLE = (int, torch.SymInt)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shape(x: Tensor) -> list[int]:
    """The sizes as a list, which prints as [2, 3]."""
    return list(x.shape)


def pair(size: Size2) -> tuple[int, int]:
    """(y, x) of a size that may stand for both."""
    return (size, size) if isinstance(size, _WHOLE) else (size[0], size[1])


def whole(value: Any) -> Any:
    """A number, or several, where whole ones of other kinds, e.g. numpy's, become Python's; the checks see the rest."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple([_whole_number(number) for number in value])
    return _whole_number(value)


def _whole_number(value: Any) -> Any:
    if isinstance(value, _WHOLE):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def is_whole(value: object) -> bool:
    """Whether `value` is a whole number, which True is not."""
    return isinstance(value, _WHOLE) and not isinstance(value, bool)


def check_counts(op: str, **counts: int) -> None:
    """Each is a whole number and at least 1."""
    for name, value in counts.items():
        if not is_whole(value):
            raise TypeError(f"{op}: {name}={value} must be a whole number")
        if value < 1:
            raise ValueError(f"{op}: {name}={value} must be at least 1")


def check_tensor(op: str, name: str, value: object) -> None:
    """What is called `name` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}; it must be a tensor")


def check_images(op: str, x: Tensor, *, name: str = "x", unbatched: bool = False) -> None:
    """`x` is [N, C, H, W], or with `unbatched` also [C, H, W], and floating point."""
    check_tensor(op, name, x)
    if x.dim() != 4 and not (unbatched and x.dim() == 3):
        rule = "[N, C, H, W] or [C, H, W]" if unbatched else "[N, C, H, W]"
        raise ValueError(f"{op}: {name} has shape {shape(x)}; it must be {rule}")
    if x.dtype not in _FLOATS:
        raise TypeError(f"{op}: {name} has dtype {x.dtype}; it must be one of {', '.join(map(str, _FLOATS))}")


def check_weight(op: str, x: Tensor, weight: Tensor, groups: int, *, in_dim: int) -> None:
    """`weight` is 4-D, of the dtype and on the device of `x`, and its channels fit those of `x` in `groups` groups.

    Args:
        in_dim: dimension of `weight` that holds input channels: 1 for conv2d, 0 for conv_transpose2d.
    """
    check_tensor(op, "weight", weight)
    if weight.dim() != 4:
        raise ValueError(f"{op}: weight has shape {shape(weight)}; it must have 4 dimensions")
    check_alike(op, "weight", weight, x)
    channels = x.shape[-3]
    check_groups(op, channels, groups)
    expected = channels if in_dim == 0 else channels // groups
    if weight.shape[in_dim] != expected:
        got = f"{op}: weight has shape {shape(weight)}, {weight.shape[in_dim]} input channels"
        raise ValueError(f"{got}; x has {channels} in {groups} groups, so dimension {in_dim} must be {expected}")
    if 0 in weight.shape[:2]:
        raise ValueError(f"{op}: weight has shape {shape(weight)}; it must have at least one channel each way")
    if in_dim == 1 and weight.shape[0] % groups:
        raise ValueError(f"{op}: groups={groups} must divide the {weight.shape[0]} output channels of weight")


def check_alike(op: str, name: str, tensor: Tensor, x: Tensor) -> None:
    """The tensor called `name` has the dtype and the device of `x`."""
    if tensor.dtype != x.dtype:
        raise TypeError(f"{op}: {name} has dtype {tensor.dtype} and x has {x.dtype}; they must be equal")
    check_device(op, name, tensor, x)


def check_device(op: str, name: str, tensor: Tensor, like: Tensor, *, like_name: str = "x") -> None:
    """The tensor called `name` lies on the device of the one called `like_name`."""
    if tensor.device != like.device:
        got = f"{name} is on {tensor.device} and {like_name} on {like.device}"
        raise ValueError(f"{op}: {got}; they must be on one device")


def check_groups(op: str, channels: int, groups: int) -> None:
    """`groups` divides the channels of x."""
    if not is_whole(groups):
        raise TypeError(f"{op}: groups={groups} must be a whole number")
    if groups < 1 or channels % groups:
        raise ValueError(f"{op}: groups={groups} must be positive and divide the {channels} channels of x")


def check_sizes(op: str, **sizes: Size2 | str) -> None:
    """Each size is a number or a pair of them and not below its least value; padding may be "same" or "valid"."""
    for name, value in sizes.items():
        if isinstance(value, str):
            if op != "conv2d" or name != "padding" or value not in ("same", "valid"):
                raise ValueError(f"{op}: {name}={value!r} must be a number, or two; conv2d's may be 'same' or 'valid'")
            continue
        numbers = value if isinstance(value, Sequence) else [value]
        if not all(is_whole(number) for number in numbers):
            raise TypeError(f"{op}: {name}={value} must be a whole number, or two for height and width")
        if not isinstance(value, _WHOLE) and len(value) != 2:
            raise ValueError(f"{op}: {name}={value} must be one number, or two for height and width")
        if min(pair(value)) < _LEAST[name]:
            raise ValueError(f"{op}: {name}={value} must not be below {_LEAST[name]}")


def conv_pixels(x: Tensor, kernel: Sequence[int], stride: Size2, padding: Size2, dilation: Size2) -> list[int]:
    """[H', W'] of a convolution of `x`: floor((H + 2 padding - dilation (K - 1) - 1) / stride) + 1."""
    rows = zip(x.shape[-2:], kernel, pair(stride), pair(padding), pair(dilation), strict=True)
    return [(pixels + 2 * pad - step * (taps - 1) - 1) // jump + 1 for pixels, taps, jump, pad, step in rows]


def output_pixels(  # noqa: PLR0917 - the sizes in torch's order
    op: str,
    x: Tensor,
    weight: Tensor,
    stride: Size2,
    padding: Size2 | str,
    dilation: Size2,
    groups: int,
    output_padding: Size2,
) -> list[int]:
    """[H', W'] of the result, of which each must be at least one."""
    kernel = weight.shape[2:]
    if padding == "same" and pair(stride) != (1, 1):
        raise ValueError(f"{op}: padding='same' goes with stride=1, and stride={stride}; give padding as a number")
    if isinstance(padding, str):
        size = list(x.shape[-2:]) if padding == "same" else conv_pixels(x, kernel, stride, 0, dilation)
    elif op == "conv2d":
        size = conv_pixels(x, kernel, stride, padding, dilation)
    else:
        rows = zip(x.shape[-2:], kernel, *map(pair, (stride, padding, dilation, output_padding)), strict=True)
        size = [
            (pixels - 1) * jump - 2 * pad + step * (taps - 1) + extra + 1
            for pixels, taps, jump, pad, step, extra in rows
        ]
    if min(size) < 1 or min(kernel) < 1:
        got = f"x {shape(x)} and weight {shape(weight)} give {size} pixels"
        raise ValueError(f"{op}: {got}; there must be at least one each way: enlarge x or padding, or shrink weight")
    return size


def check_epilogue(
    op: str,
    x: Tensor,
    *,
    out_shape: Sequence[int],
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    activation: Activation,
) -> None:
    """`bias` is [O]; `scale` holds 1 or O numbers, or is [N, O]; `noise` broadcasts to the output [N, O, H', W'].

    Each is floating point, of any precision, and lies on the device of `x`; the activation is one that exists.
    """
    batch, channels = out_shape[:2]
    for name, tensor in (("bias", bias), ("scale", scale), ("noise", noise)):
        if tensor is None:
            continue
        check_tensor(op, name, tensor)
        if not tensor.is_floating_point():
            raise TypeError(f"{op}: {name} has dtype {tensor.dtype}; it must be floating point")
        check_device(op, name, tensor, x)
    if bias is not None and shape(bias) != [channels]:
        raise ValueError(f"{op}: bias has shape {shape(bias)}; it must be [{channels}], one number per output channel")
    if scale is not None and shape(scale) not in ([], [1], [channels], [batch, channels]):
        rule = f"it must be [], [1], [{channels}] or [{batch}, {channels}]"
        raise ValueError(f"{op}: scale has shape {shape(scale)}; {rule}")
    if noise is not None:
        _check_noise(op, noise, out_shape)
    check_activation(op, activation)


def check_activation(op: str, activation: Activation) -> None:
    """The activation is known, `gain` finite and not 0, `clamp` positive."""
    name, gain, clamp = activation
    if name not in ACTIVATIONS:
        rule = f"must be one of {', '.join(ACTIVATIONS)}"
        raise ValueError(f"{op}: activation={name!r} {rule}{did_you_mean(name, ACTIVATIONS)}")
    # As comparisons, because torch.compile cannot trace math.isfinite of a number that it leaves open.
    if not -math.inf < gain < math.inf or gain == 0:
        raise ValueError(f"{op}: gain={gain} must be finite and not 0")
    if clamp is not None and not clamp > 0:
        raise ValueError(f"{op}: clamp={clamp} must be positive, or None for no clamp")


def _check_noise(op: str, noise: Tensor, out_shape: Sequence[int]) -> None:
    """`noise` broadcasts to the output without making it larger."""
    sizes = [1] * (len(out_shape) - noise.dim()) + shape(noise)
    if len(sizes) != len(out_shape) or any(got not in (1, out) for got, out in zip(sizes, out_shape, strict=True)):
        raise ValueError(f"{op}: noise has shape {shape(noise)}; it must broadcast to the output {list(out_shape)}")


def check_weight_grad(
    x: Tensor, weight_size: Sequence[int], grad: Tensor, *, stride: Size2, padding: Size2, dilation: Size2, groups: int
) -> tuple[int, int, int, int]:
    """All that conv2d_weight_grad asks of its arguments; `weight_size` as a tuple."""
    op = "conv2d_weight_grad"
    check_images(op, x)
    check_images(op, grad, name="grad")
    check_alike(op, "grad", grad, x)
    check_groups(op, x.shape[1], groups)
    check_sizes(op, stride=stride, padding=padding, dilation=dilation)
    if len(weight_size) != 4 or min(weight_size) < 1:
        raise ValueError(f"{op}: weight_size={list(weight_size)} must be four positive numbers [O, C / G, K, K]")
    out, channels, height, width = weight_size
    if out % groups or (out, channels * groups) != (grad.shape[1], x.shape[1]):
        rule = f"must be [{grad.shape[1]}, {x.shape[1]} / {groups}, K, K] by the channels of grad and x"
        raise ValueError(f"{op}: weight_size={list(weight_size)} {rule}")
    size = conv_pixels(x, (height, width), stride, padding, dilation)
    if [*grad.shape[2:]] != size or grad.shape[0] != x.shape[0]:
        rule = f"the convolution of x has [{x.shape[0]}, {out}, {size[0]}, {size[1]}]"
        raise ValueError(f"{op}: grad has shape {shape(grad)}; {rule}")
    return out, channels, height, width


def check_output_padding(op: str, output_padding: Size2, stride: Size2, dilation: Size2) -> None:
    """A transposed convolution's output padding is below its stride or its dilation, as torch asks."""
    for extra, *bounds in zip(pair(output_padding), pair(stride), pair(dilation), strict=True):
        if extra >= max(bounds):
            got = f"output_padding={output_padding} must be below the larger of"
            raise ValueError(f"{op}: {got} stride={stride} and dilation={dilation}")
