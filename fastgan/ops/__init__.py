"""Ops: for each a contract, a reference in plain PyTorch, and a choice of implementation."""

from fastgan.kernels.spec import ACTIVATIONS, LEAKY_RELU_SLOPE
from fastgan.ops.bias_act import bias_act
from fastgan.ops.bias_act_grad import bias_act_grad
from fastgan.ops.choice import IMPLEMENTATIONS, implementations
from fastgan.ops.conv2d import conv2d
from fastgan.ops.conv2d_weight_grad import conv2d_weight_grad
from fastgan.ops.conv_transpose2d import conv_transpose2d
from fastgan.ops.gradient_penalty import gradient_penalty, interpolate
from fastgan.ops.spectral_norm import NonFiniteMatrixError, power_iteration_, spectral_norm
from fastgan.ops.weight_gradients import no_weight_gradients

__all__ = [
    "ACTIVATIONS",
    "IMPLEMENTATIONS",
    "LEAKY_RELU_SLOPE",
    "NonFiniteMatrixError",
    "bias_act",
    "bias_act_grad",
    "conv2d",
    "conv2d_weight_grad",
    "conv_transpose2d",
    "gradient_penalty",
    "implementations",
    "interpolate",
    "no_weight_gradients",
    "power_iteration_",
    "spectral_norm",
]
