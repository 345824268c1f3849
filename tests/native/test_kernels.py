"""The kernels of both kinds against the references: on a GPU, or Triton's in its interpreter where there is none."""

import os

import pytest
import torch
from torch import Tensor

from fastgan import native
from fastgan.ops import gradient_penalty, interpolate, power_iteration_, spectral_norm
from fastgan.ops.bilinear import bilinear, outer

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
SHAPES = [(1, 9), (9, 1), (1, 1), (15, 8), (17, 64), (40, 257), (2, 600)]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=["native", "triton"])
def impl(request: pytest.FixtureRequest) -> str:
    """Each kind of kernel that this machine can run."""
    name: str = request.param
    if name == "triton":
        pytest.importorskip("triton")
    elif DEVICE.type == "cpu":
        pytest.skip("the native library needs a GPU; its arithmetic is tested in test_host_functions.py")
    elif native.unavailable(DEVICE) is not None:
        pytest.skip(f"{native.unavailable(DEVICE)}")
    return name


def make(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def unit(size: int) -> Tensor:
        vector = torch.randn(size, generator=generator)
        return (vector / vector.norm()).to(DEVICE)

    matrices = [torch.randn(shape, generator=generator).to(DEVICE, dtype) for shape in SHAPES]
    matrices.append(torch.zeros(3, 4, device=DEVICE, dtype=dtype))
    shapes = [*SHAPES, (3, 4)]
    return matrices, [unit(rows) for rows, _ in shapes], [unit(columns) for _, columns in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_iteration_and_sigma(impl: str, dtype: torch.dtype) -> None:
    matrices, left, right = make(dtype)
    exact = [[t.double() for t in side] for side in (matrices, left, right)]
    power_iteration_(matrices, left, right, num_iterations=2, impl=impl)
    power_iteration_(*exact, num_iterations=2, impl="reference")
    for got, expected in zip([*left, *right], [*exact[1], *exact[2]], strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-6)
    sigma = spectral_norm(matrices, left, right, impl=impl)
    torch.testing.assert_close(sigma.double(), spectral_norm(*exact, impl="reference"), rtol=3e-6, atol=0)
    assert sigma[-1] == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_and_second_derivatives_of_sigma(impl: str, dtype: torch.dtype) -> None:
    matrices, left, right = make(dtype)
    power_iteration_(matrices, left, right, num_iterations=2, impl=impl)
    grown = [matrix.requires_grad_() for matrix in matrices]
    exact = [[t.detach().double() for t in side] for side in (matrices, left, right)]
    wide = [matrix.requires_grad_() for matrix in exact[0]]
    seconds = []
    for weights, sides, name in ((grown, (left, right), impl), (wide, exact[1:], "reference")):
        sigma = spectral_norm(weights, *sides, impl=name)
        first = torch.autograd.grad(sigma.reciprocal().square().sum(), weights, create_graph=True)
        second = torch.autograd.grad(sum(g.float().square().sum() for g in first), weights)
        seconds.append([*first, *second])
    for got, expected in zip(*seconds, strict=True):
        assert got.dtype == dtype
        tolerance = 2e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=tolerance)


def test_two_runs_give_the_same_bits(impl: str) -> None:
    runs = []
    for _ in range(2):
        matrices, left, right = make(torch.float32)
        power_iteration_(matrices, left, right, num_iterations=3, impl=impl)
        runs.append([*left, *right, bilinear(matrices, left, right, impl)])
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_outer_products(impl: str) -> None:
    _, left, right = make(torch.float32)
    coefficients = torch.arange(1.0, len(left) + 1, device=DEVICE)
    made = outer(coefficients, left, right, torch.float32, impl)
    for got, c, u, v in zip(made, coefficients, left, right, strict=True):
        torch.testing.assert_close(got, c * torch.outer(u, v))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 63, 5000])
@pytest.mark.parametrize(("center", "one_sided"), [(0.0, False), (1.0, False), (5.0, True)])
def test_gradient_penalty(impl: str, dtype: torch.dtype, size: int, center: float, one_sided: bool) -> None:
    rows = torch.randn(3, size, generator=torch.Generator().manual_seed(size)).to(DEVICE, dtype)
    rows[1] = 0
    options = {"center": center, "one_sided": one_sided}
    exact = rows.double().requires_grad_()
    rows.requires_grad_()
    got, expected = gradient_penalty(rows, **options, impl=impl), gradient_penalty(exact, **options, impl="reference")
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    cotangent = torch.tensor([0.5, 1.0, -2.0], device=DEVICE)
    got.backward(cotangent)
    expected.backward(cotangent.double())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(rows.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_a_gradient_that_is_not_finite_spoils_no_other_number(impl: str) -> None:
    rows = torch.tensor([[torch.inf, 1.0], [torch.nan, 1.0], [0.0, 3.0]], device=DEVICE).requires_grad_()
    got, expected = (gradient_penalty(rows, impl=name) for name in (impl, "reference"))
    torch.testing.assert_close(got, expected, equal_nan=True)
    pair = (torch.autograd.grad(penalty.sum(), rows)[0] for penalty in (got, expected))
    torch.testing.assert_close(*pair, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_interpolate(impl: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(3, 2, 5, 7, generator=generator).to(DEVICE, dtype) for _ in range(2))
    real = real.contiguous(memory_format=memory_format)
    weights = torch.tensor([0.0, 0.3, 1.0], device=DEVICE)
    got = interpolate(real, fake, weights, impl=impl)
    assert got.stride() == real.stride()
    expected = interpolate(real.double(), fake.double(), weights.double(), impl="reference")
    # The interpreter rounds to bfloat16 towards zero.
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 2e-2)
    torch.testing.assert_close(got[0], fake[0], rtol=0, atol=0)
    torch.testing.assert_close(got[2], real[2], rtol=0, atol=0)
