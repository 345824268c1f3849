"""Ops as PyTorch users write them: eager calls, and the same under torch.compile.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, L matrices.
"""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fastgan.ops import LEAKY_RELU_SLOPE


def usual_conv2d(x: Tensor, weight: Tensor, bias: Tensor, *, stride: int, padding: int) -> Tensor:
    """leaky_relu(conv(x, weight) + bias), [N, C, H, W] to [N, O, H', W']."""
    return F.leaky_relu(F.conv2d(x, weight, bias, stride, padding), LEAKY_RELU_SLOPE)


def usual_conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor, *, stride: int, padding: int, output_padding: int = 0
) -> Tensor:
    """leaky_relu(conv_transpose(x, weight) + bias), [N, C, H, W] to [N, O, H', W']."""
    return F.leaky_relu(F.conv_transpose2d(x, weight, bias, stride, padding, output_padding), LEAKY_RELU_SLOPE)


def usual_bias_act(x: Tensor, bias: Tensor) -> Tensor:
    """leaky_relu(x + bias), [N, C, H, W]."""
    return F.leaky_relu(x + bias[:, None, None], LEAKY_RELU_SLOPE)


def usual_gradient_penalty(gradients: Tensor) -> Tensor:
    """|g_n|^2 for each sample, [N, ...] to [N]."""
    return gradients.reshape(gradients.shape[0], -1).pow(2).sum(dim=1)


class UsualSpectralNorm(nn.Module):
    """L weights [R, K] under torch's parametrization, which steps the power iteration at each access.

    Args:
        matrices: the weights. left, right: their u [R] and v [K].
    """

    def __init__(self, matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for matrix, u, v in zip(matrices, left, right, strict=True):
            rows, columns = matrix.shape
            layer = nn.Linear(columns, rows, bias=False, device=matrix.device)
            layer.weight = nn.Parameter(matrix.detach().clone())
            parametrizations.spectral_norm(layer)
            layer.parametrizations.weight[0]._u.copy_(u)
            layer.parametrizations.weight[0]._v.copy_(v)
            self.layers.append(layer)

    def forward(self) -> list[Tensor]:
        """L normalised weights [R, K], after one power iteration of each in training mode."""
        return [layer.weight for layer in self.layers]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` under torch.compile for fixed shapes.

    Raises:
        RuntimeError: if what it needs is missing: Triton on a GPU, a C++ compiler on a CPU.
    """
    if torch.cuda.is_available():
        from torch.utils._triton import has_triton

        if not has_triton():
            raise RuntimeError("torch.compile needs Triton on a GPU")
    elif shutil.which("g++") is None and shutil.which("clang++") is None:
        raise RuntimeError("torch.compile needs a C++ compiler")
    return torch.compile(function, dynamic=False)
