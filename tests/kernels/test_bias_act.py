"""The element-wise kernels in the interpreter, or on a GPU, against the reference in float64."""

import pytest
import torch
from torch import Tensor

from fastgan.kernels.spec import ACTIVATIONS, Activation
from fastgan.ops.bias_act import bias_act_op
from fastgan.ops.bias_act_grad import bias_act_grad_op
from tests.kernels.tools import close_to_reference, prefilled, randn

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


def spread(x: Tensor) -> Tensor:
    """The numbers of `x` with gaps between them in memory."""
    return x.new_zeros(x.shape[0], x.shape[1] + 2, x.shape[2], 2 * x.shape[3])[:, 1:-1, :, ::2].copy_(x)


@pytest.mark.parametrize("layout", [spread, torch.Tensor.contiguous, lambda x: x[:1].expand_as(x)])
def test_any_layout_is_read_and_kept(layout) -> None:  # type: ignore[no-untyped-def]
    spec = Activation("leaky_relu", 1.3, 1.1)
    x, bias = layout(randn(2, 5, 3, 4, seed=0)), randn(5, seed=1)
    got, expected = (bias_act_op(x, None, bias, None, spec, backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(got, expected)
    assert got.stride() == torch.empty_like(x).stride()
    got, expected = (bias_act_grad_op(x, randn(2, 5, 3, 4, seed=2), spec, b) for b in ("triton", "reference"))
    torch.testing.assert_close(got, expected)


def test_every_number_is_written() -> None:
    from fastgan.kernels.bias_act import bias_act, bias_act_grad

    x = randn(2, 131, 5, 3, seed=0)
    assert not bias_act(x, None, None, None, Activation("relu"), out=prefilled(x)).isnan().any()
    assert not bias_act_grad(x, x, Activation("relu"), out=prefilled(x)).isnan().any()


def test_nan_stays_nan_under_a_clamp() -> None:
    x = torch.full_like(randn(1, 1, 1, 2, seed=0), torch.nan)
    assert bias_act_op(x, None, None, None, Activation("linear", 1.0, 1.0), "triton").isnan().all()
