"""Ops: for each a contract, a reference in plain PyTorch, and a choice of implementation."""

from fastgan.ops.bias_act import bias_act
from fastgan.ops.choice import IMPLEMENTATIONS, implementations
from fastgan.ops.contract import ACTIVATIONS, LEAKY_RELU_SLOPE
from fastgan.ops.conv2d import conv2d
from fastgan.ops.conv_transpose2d import conv_transpose2d
from fastgan.ops.gradient_penalty import gradient_penalty, interpolate
from fastgan.ops.spectral_norm import NonFiniteMatrixError, power_iteration_, spectral_norm

__all__ = [
    "ACTIVATIONS",
    "IMPLEMENTATIONS",
    "LEAKY_RELU_SLOPE",
    "NonFiniteMatrixError",
    "bias_act",
    "conv2d",
    "conv_transpose2d",
    "gradient_penalty",
    "implementations",
    "interpolate",
    "power_iteration_",
    "spectral_norm",
]
