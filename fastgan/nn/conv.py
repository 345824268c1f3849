"""Convolution layers: parameters plus one call to an op.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from fastgan.kernels.spec import Activation
from fastgan.nn.dual import Dual, activate
from fastgan.ops import LEAKY_RELU_SLOPE, conv2d, conv_transpose2d
from fastgan.ops.choice import check_name
from fastgan.ops.contract import Size2, check_activation, check_counts, check_sizes, pair, whole


class Conv2d(nn.Module):
    """Convolution with its epilogue: gain * activation(scale * conv(x, weight) + bias).

    Parameters stay in their own dtype (float32) and are cast to that of the input, which decides the precision.
    Weights start normal with the variance that keeps the size of activations (He et al. 2015, arXiv:1502.01852).

    Args:
        in_channels, out_channels, kernel_size: C, O and K, at least 1.
        stride, padding: as in the op.
        activation: linear, relu, leaky_relu, tanh or silu.
        bias: whether to learn a bias, which starts at zero.
        impl: implementation of the op.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    _op: ClassVar[Callable[..., Tensor]] = staticmethod(conv2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: Size2 = 1,
        padding: Size2 | str = 0,
        activation: str = "linear",
        bias: bool = True,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        in_channels, out_channels, kernel_size = whole(in_channels), whole(out_channels), whole(kernel_size)
        self.stride, self.padding, self.activation, self.impl = whole(stride), whole(padding), activation, impl
        op = self._op.__name__
        check_counts(op, in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        check_sizes(op, stride=self.stride, padding=self.padding)
        check_activation(op, Activation(activation))
        check_name(f"{op}: impl", impl)
        shape = self._weight_shape(in_channels, out_channels, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    @staticmethod
    def _weight_shape(in_channels: int, out_channels: int, kernel_size: int) -> tuple[int, int, int, int]:
        return (out_channels, in_channels, kernel_size, kernel_size)

    def _taps(self) -> float:
        """Products that sum to one output number: input channels times the kernel taps that meet an output pixel."""
        return self.weight[0].numel()

    def reset_parameters(self) -> None:
        """Draws new weights from torch's default generator; zeroes the bias."""
        nn.init.normal_(self.weight, std=activation_gain(self.activation) / math.sqrt(self._taps()))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def matrix(self) -> Tensor:
        """[O, K K C]: the weight as the matrix whose spectral norm Miyato et al. bound; a view in channels_last."""
        return self.weight.permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """[N, C, H, W] to [N, O, H', W'] in the dtype of `x`; `scale` as in `fastgan.ops.conv2d`."""
        return self._convolve(x, self.bias, scale, activation=self.activation)

    def dual(self, x: Dual, scale: Tensor | None = None) -> Dual:
        """`forward` on dual numbers; `scale` is [], [1] or [O]. One convolution serves value and tangent."""
        both = self._convolve(torch.cat(x), None, scale, activation="linear")
        value, tangent = both.chunk(2)
        if self.bias is not None:
            value = value + self.bias.to(value.dtype)[:, None, None]
        return activate(Dual(value, tangent), self.activation)

    def _convolve(self, x: Tensor, bias: Tensor | None, scale: Tensor | None, *, activation: str) -> Tensor:
        return self._op(
            x,
            self.weight.to(x.dtype),
            bias,
            stride=self.stride,
            padding=self.padding,
            scale=scale,
            activation=activation,
            impl=self.impl,
        )

    def extra_repr(self) -> str:
        shape = "x".join(map(str, self.weight.shape))
        return f"weight {shape}, stride={self.stride}, padding={self.padding}, activation={self.activation}"


class ConvTranspose2d(Conv2d):
    """Transposed convolution with its epilogue; arguments as `Conv2d`."""

    _op: ClassVar[Callable[..., Tensor]] = staticmethod(conv_transpose2d)

    @staticmethod
    def _weight_shape(in_channels: int, out_channels: int, kernel_size: int) -> tuple[int, int, int, int]:
        return (in_channels, out_channels, kernel_size, kernel_size)

    def _taps(self) -> float:
        # Each output pixel meets K^2 / stride^2 taps on average: the stride inserts zeros between input pixels.
        in_channels, _, height, width = self.weight.shape
        if pair(self.padding) == (0, 0) and pair(self.stride) == (1, 1):
            return in_channels  # a kernel that spreads one pixel: each output pixel meets one tap
        return in_channels * height * width / math.prod(pair(self.stride))

    def matrix(self) -> Tensor:
        """[O, K K C], as for `Conv2d`."""
        return self.weight.permute(1, 2, 3, 0).flatten(1)


def activation_gain(activation: str) -> float:
    """1 / sqrt(E[activation(x)^2]) for x standard normal: keeps the second moment from layer to layer.

    tanh has gain 1: it ends a network, where nothing is to be kept up. Source: He et al. 2015, arXiv:1502.01852.
    """
    match activation:
        case "relu":
            return math.sqrt(2.0)
        case "leaky_relu":
            return math.sqrt(2.0 / (1.0 + LEAKY_RELU_SLOPE**2))
        case "silu":
            return 1.6765  # 1 / sqrt(0.35580), by numerical integration
    return 1.0
