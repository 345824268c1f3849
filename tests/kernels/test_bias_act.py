"""The element-wise kernels in the interpreter, or on a GPU, against the reference in float64."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fastgan.kernels.spec import ACTIVATIONS, Activation
from fastgan.ops.bias_act import bias_act_op
from fastgan.ops.bias_act_grad import bias_act_grad_op
from tests.kernels.tools import (
    DEVICE,
    LAYOUTS,
    all_close_to_reference,
    close_to_reference,
    derivatives,
    far_apart,
    layouts,
    prefilled,
    randn,
)

pytestmark = pytest.mark.gpu

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 17, 33, 31), (2, 131, 2, 3), (0, 4, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_odd_shapes(shape: tuple[int, ...], dtype: torch.dtype, activation: str) -> None:
    spec = Activation(activation, -1.3, 1.1)
    batch, channels, _, width = shape
    optional = randn(batch, channels, seed=1), randn(channels, seed=2), randn(1, channels, 1, width, seed=3)
    x, grad = randn(*shape, seed=0, dtype=dtype), randn(*shape, seed=4, dtype=dtype)
    close_to_reference(lambda backend, o: bias_act_op(*o, spec, backend), (x, *optional))
    # A gate that is not near the clamp, which float64 and the dtype may see on different sides.
    close_to_reference(lambda backend, o: bias_act_grad_op(*o, spec._replace(clamp=None), backend), (grad, x))


@pytest.mark.parametrize("activation", ["leaky_relu", "silu"])
def test_the_gradient_is_zero_where_clamped(activation: str) -> None:
    spec = Activation(activation, 1.3, 0.7)
    x, grad = randn(2, 3, 4, 4, seed=0, dtype=torch.bfloat16), randn(2, 3, 4, 4, seed=1, dtype=torch.bfloat16)
    saved = x if spec.keeps_input else bias_act_op(x, None, None, None, spec, "triton")
    got, expected = (bias_act_grad_op(grad, saved, spec, backend) for backend in ("triton", "reference"))
    assert 0 < (got == 0).sum() < got.numel()
    assert torch.equal(got == 0, expected == 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read_and_kept(layout: str) -> None:
    spec = Activation("leaky_relu", 1.3, 1.1)
    x, bias = layouts(randn(2, 5, 3, 4, seed=0))[layout], randn(5, seed=1).repeat_interleave(2)[::2]
    got, expected = (bias_act_op(x, None, bias, None, spec, backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(got, expected)
    assert got.stride() == torch.empty_like(x).stride()
    got, expected = (bias_act_grad_op(x, randn(2, 5, 3, 4, seed=2), spec, b) for b in ("triton", "reference"))
    torch.testing.assert_close(got, expected)


def test_offsets_beyond_int32() -> None:
    x, spec = randn(3, 3, 2, 2, seed=0, dtype=torch.float16), Activation("relu")
    assert torch.equal(bias_act_op(far_apart(x), None, None, None, spec, "triton"), x.relu())
    assert torch.equal(bias_act_grad_op(far_apart(x), x, spec, "triton"), x.relu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh", "silu"])
def test_first_and_second_derivatives(dtype: torch.dtype, activation: str) -> None:
    operands = randn(2, 3, 2, 4, seed=0, dtype=dtype), randn(2, 3, seed=1), randn(3, seed=2), randn(1, 3, 1, 4, seed=3)

    def call(backend: str, operands: Sequence[Tensor | None]) -> list[Tensor]:
        return derivatives(lambda *o: bias_act_op(*o, Activation(activation, -1.3), backend), operands)

    all_close_to_reference(call, operands, "triton")


def test_every_number_is_written() -> None:
    from fastgan.kernels.bias_act import bias_act, bias_act_grad

    x = randn(2, 131, 5, 3, seed=0)
    assert not bias_act(x, None, None, None, Activation("relu"), out=prefilled(x)).isnan().any()
    assert not bias_act_grad(x, x, Activation("relu"), out=prefilled(x)).isnan().any()


def test_numbers_that_are_not_finite_are_the_references() -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0], device=DEVICE).view(1, 1, 1, 4)
    for activation, clamp in itertools.product(("linear", "leaky_relu"), (None, 2.0)):
        spec = Activation(activation, 1.3, clamp)
        got, expected = (bias_act_op(x, None, None, None, spec, backend) for backend in ("triton", "reference"))
        torch.testing.assert_close(got, expected, equal_nan=True)
        got, expected = (bias_act_grad_op(torch.ones_like(x), x, spec, name) for name in ("triton", "reference"))
        torch.testing.assert_close(got, expected)
