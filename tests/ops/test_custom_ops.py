"""The custom ops' own derivative formulas, in float64 through the reference backend, where torch's are not used."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from fastgan.kernels.spec import ACTIVATIONS, Activation, Geometry
from fastgan.ops.bias_act import bias_act_op
from fastgan.ops.bias_act_grad import bias_act_grad_op, bias_act_grad_reference
from fastgan.ops.conv2d_weight_grad import conv2d_weight_grad_op
from fastgan.ops.convolution import Linear, Operands, Settings, convolution_op

LINEARS: tuple[Linear, ...] = ("conv2d", "conv_transpose2d")

# (kernel, stride, padding, output padding, groups): strides and paddings that leave a remainder among them.
GEOMETRIES = [(1, 1, 0, 0, 1), (3, 1, 1, 0, 2), (4, 2, 1, 0, 1), (3, 2, 1, 1, 1), (6, 2, 2, 0, 2), (1, 2, 0, 1, 1)]


def randn(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(linear: Linear, row: tuple[int, int, int, int, int]) -> tuple[Tensor, Tensor, Geometry]:
    """x [2, 2, 4, 3] and a weight with 2 output channels."""
    kernel, stride, padding, output_padding, groups = row
    extra = 0 if linear == "conv2d" else output_padding
    size = (4, 3) if linear == "conv_transpose2d" or kernel < 6 else (5, 4)
    weight = randn(2, 2 // groups, kernel, kernel, seed=1) / kernel
    return randn(2, 2, *size, seed=0), weight, Geometry(stride, (padding, padding), (extra, extra), groups)


def check_both(call: Callable[..., Tensor], *inputs: Tensor) -> None:
    """First and second derivatives, along random directions: every formula takes part, in a tenth of the time."""
    leaves = tuple(x.requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(call, leaves, fast_mode=True)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("row", GEOMETRIES, ids=str)
def test_derivatives_of_the_linear_part(linear: Linear, row: tuple[int, int, int, int, int]) -> None:
    x, weight, geometry = make(linear, row)
    check_both(lambda x, w: convolution_op(linear, Operands(x, w), Settings(geometry, "reference")), x, weight)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_of_the_epilogue(linear: Linear, activation: str) -> None:
    x, weight, geometry = make(linear, (3, 2, 1, 0, 1))
    settings = Settings(geometry, "reference", Activation(activation, 1.3, 1.1))
    plain = convolution_op(linear, Operands(x, weight), Settings(geometry, "reference"))
    scale, bias, noise = randn(2, 2, seed=2) + 2, randn(2, seed=3), randn(2, 1, *plain.shape[2:], seed=4)

    def call(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, noise: Tensor) -> Tensor:
        return convolution_op(linear, Operands(x, weight, None, scale, bias, noise), settings)

    y = call(x, weight, scale, bias, noise)
    assert activation == "tanh" or (y.abs() == 1.1).any()  # the clamp took part
    check_both(call, x, weight, scale, bias, noise)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_through_the_gate(linear: Linear, activation: str) -> None:
    x, weight, geometry = make(linear, (4, 2, 1, 0, 1))
    settings = Settings(geometry, "reference", gate_activation=Activation(activation, 1.3, 1.1))
    gate = randn(*x.shape, seed=5)

    def call(x: Tensor, weight: Tensor, gate: Tensor) -> Tensor:
        return convolution_op(linear, Operands(x, weight, gate), settings)

    product = bias_act_grad_reference(x, gate, settings.gate_activation)
    expected = convolution_op(linear, Operands(product, weight), Settings(geometry, "reference"))
    torch.testing.assert_close(call(x, weight, gate), expected)
    check_both(call, x, weight, gate)


@pytest.mark.parametrize("row", GEOMETRIES, ids=str)
def test_derivatives_of_the_weight_gradient(row: tuple[int, int, int, int, int]) -> None:
    x, weight, geometry = make("conv2d", row)
    grad = torch.randn_like(convolution_op("conv2d", Operands(x, weight), Settings(geometry, "reference")))
    check_both(lambda x, g: conv2d_weight_grad_op(x, g, (row[0], row[0]), geometry, "reference"), x, grad)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gain", [1.4, -0.7])
def test_derivatives_of_bias_act_and_its_gradient(activation: str, gain: float) -> None:
    spec = Activation(activation, gain, 1.0)
    x, bias, scale, noise = randn(2, 3, 2, 2, seed=6), randn(3, seed=7), randn(2, 3, seed=8), randn(1, 1, 2, 2, seed=9)
    check_both(lambda x, s, b, n: bias_act_op(x, s, b, n, spec, "reference"), x, scale, bias, noise)
    saved, grad = randn(2, 3, 2, 2, seed=10), randn(2, 3, 2, 2, seed=11)
    check_both(lambda g, s: bias_act_grad_op(g, s, spec, "reference"), grad, saved)


def test_the_derivative_knows_a_clamp_that_was_rounded_down() -> None:
    # 0.7 is 0.69921875 in bf16: compared with 0.7, a clamped number would look free.
    spec = Activation("linear", 1.0, 0.7)
    x = torch.tensor([0.5, 3.0], dtype=torch.bfloat16).view(1, 1, 1, 2).requires_grad_()
    bias_act_op(x, None, None, None, spec, "reference").sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 0.0]


def calls() -> Iterator[tuple[str, tuple[object, ...]]]:
    """(op, arguments) for opcheck: with all optional tensors and with none."""
    leaf = lambda *size: randn(*size, seed=12).requires_grad_()  # noqa: E731
    for linear, activation in itertools.product(LINEARS, ("leaky_relu", "silu")):
        out, extra = ((2, 2), [0, 0]) if linear == "conv2d" else ((9, 8), [1, 0])
        full = (leaf(2, 3), leaf(3), leaf(2, 1, *out))
        for gate, (scale, bias, noise) in (((leaf(2, 3, 4, 4)), full), (None, (None, None, None))):
            tail = (2, [1, 1], extra, 1, activation, 1.2, 0.9, "tanh", 1.0, None, "reference")
            yield linear, (leaf(2, 3, 4, 4), leaf(3, 3, 4, 4), gate, scale, bias, noise, *tail)
    yield "conv2d_weight_grad", (leaf(2, 4, 4, 4), leaf(2, 6, 2, 2), [4, 4], 2, [1, 1], 2, "reference")
    yield "bias_act", (leaf(2, 3, 4, 4), leaf(2, 3), leaf(3), leaf(2, 1, 1, 4), "silu", 1.2, 0.9, "reference")
    yield "bias_act", (leaf(2, 3, 4, 4), None, None, None, "relu", 1.0, None, "reference")
    yield "bias_act_grad", (leaf(2, 3, 4, 4), leaf(2, 3, 4, 4), "tanh", 1.2, 0.9, "reference")


@pytest.mark.parametrize(("op", "arguments"), list(calls()))
def test_opcheck(op: str, arguments: tuple[object, ...]) -> None:
    """Schema, autograd registration, fake tensors (shapes and strides) and AOT dispatch with dynamic shapes."""
    torch.library.opcheck(getattr(torch.ops.fastgan, op).default, arguments)
