"""The power iteration against the singular value decomposition and against torch's parametrization."""

import pytest
import torch
from torch import Tensor, nn

from fastgan.ops import power_iteration_, spectral_norm

SHAPES = [(6, 4), (1, 9), (9, 1), (1, 1), (3, 200)]


def make(shapes: list[tuple[int, int]], dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], ...]:
    generator = torch.Generator().manual_seed(0)

    def unit(size: int) -> Tensor:
        vector = torch.randn(size, generator=generator, dtype=dtype)
        return vector / vector.norm()

    matrices = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return matrices, [unit(rows) for rows, _ in shapes], [unit(columns) for _, columns in shapes]


def test_converges_to_the_largest_singular_value() -> None:
    matrices, left, right = make(SHAPES)
    power_iteration_(matrices, left, right, num_iterations=500)
    exact = torch.stack([torch.linalg.matrix_norm(matrix, ord=2) for matrix in matrices])
    torch.testing.assert_close(spectral_norm(matrices, left, right), exact, rtol=1e-9, atol=0)


def test_equals_torchs_parametrization_over_30_steps_of_changing_weights() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(7, 5, dtype=torch.float64), n_power_iterations=1)
    theirs = layer.parametrizations.weight
    weight = theirs.original
    left, right = [theirs[0]._u.clone()], [theirs[0]._v.clone()]
    generator = torch.Generator().manual_seed(3)
    for _ in range(30):
        with torch.no_grad():
            weight.add_(0.1 * torch.randn(5, 7, generator=generator, dtype=torch.float64))
        power_iteration_([weight.detach()], left, right)
        normalised = layer.weight  # steps torch's own power iteration
        ours = weight / spectral_norm([weight], left, right)
        torch.testing.assert_close(ours, normalised, rtol=1e-12, atol=1e-13)


def test_derivative_is_the_closed_form() -> None:
    matrices, left, right = make([(6, 4)])
    weight, u, v = matrices[0].requires_grad_(), left[0], right[0]
    power_iteration_([weight.detach()], left, right, num_iterations=3)
    cotangent = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    sigma = spectral_norm([weight], left, right)
    (got,) = torch.autograd.grad((weight / sigma * cotangent).sum(), weight)
    # dW = G / s - <G, W> / s^2 u v'
    s = sigma.detach()
    expected = cotangent / s - (cotangent * weight.detach()).sum() / s**2 * torch.outer(u, v)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_first_and_second_derivatives() -> None:
    matrices, left, right = make([(3, 2), (2, 5)])
    power_iteration_(matrices, left, right, num_iterations=3)
    weights = [matrix.requires_grad_() for matrix in matrices]

    def normalised(a: Tensor, b: Tensor) -> Tensor:
        sigma = spectral_norm([a, b], left, right)
        return torch.cat([(a / sigma[0]).flatten(), (b / sigma[1]).flatten()])

    assert torch.autograd.gradcheck(normalised, weights)
    assert torch.autograd.gradgradcheck(normalised, weights)


def test_a_zero_matrix_stays_zero_and_finite() -> None:
    _, left, right = make([(3, 4)], torch.float32)
    before = left[0].clone(), right[0].clone()
    weight = torch.zeros(3, 4, requires_grad=True)
    power_iteration_([weight], left, right, num_iterations=2)
    torch.testing.assert_close((left[0], right[0]), before, rtol=0, atol=0)
    sigma = spectral_norm([weight], left, right)
    assert sigma.tolist() == [1.0]
    (weight / sigma).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.ones(3, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: spectral_norm([], [], []), ValueError, "got 0 matrices, 0 left and 0 right vectors"),
        (
            lambda: spectral_norm([torch.zeros(2, 3)], [torch.zeros(3)], [torch.zeros(3)]),
            ValueError,
            "number 0 has matrix [2, 3], left [3], right [3]; they must be [R, K], [R] and [K]",
        ),
        (
            lambda: spectral_norm([torch.zeros(2, 3).half()], [torch.zeros(2)], [torch.zeros(3)]),
            TypeError,
            "dtypes torch.float16, torch.float32, torch.float32; they must be all float32 or all float64",
        ),
        (
            lambda: power_iteration_([torch.zeros(2, 3)], [torch.zeros(2)], [torch.zeros(3)], num_iterations=0),
            ValueError,
            "num_iterations=0 must be at least 1",
        ),
    ],
)
def test_bad_arguments_name_themselves(call, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
