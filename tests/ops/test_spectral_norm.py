"""The power iteration against the singular value decomposition and against torch's parametrization."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastgan.errors import ImplementationError
from fastgan.ops import NonFiniteMatrixError, power_iteration_, spectral_norm
from fastgan.ops.bilinear import bilinear, outer

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


def test_first_and_second_order_closed_forms_equal_autograd_to_1e_12() -> None:
    """W^ = W / s: dW = G / s - <G, W> / s^2 uv'; with cotangent H of dW the formulas below, all through the op pair."""
    matrices, left, right = make([(5, 7)])
    weight, u, v = matrices[0].requires_grad_(), left[0], right[0]
    power_iteration_([weight.detach()], left, right, num_iterations=2)
    generator = torch.Generator().manual_seed(5)
    g, h = (torch.randn(5, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    g = g.requires_grad_()
    uv = torch.outer(u, v)
    s = bilinear([weight], left, right, "reference")[0]
    (first,) = torch.autograd.grad(weight / s, weight, g, create_graph=True)
    got_g, got_w = torch.autograd.grad(first, (g, weight), h)
    with torch.no_grad():
        gw, hg, huv = (g * weight).sum(), (h * g).sum(), (h * uv).sum()
        expected = [
            g / s - gw / s**2 * uv,
            h / s - huv * weight / s**2,
            -hg * uv / s**2 - huv * g / s**2 + 2 * huv * gw * uv / s**3,
        ]
    for got, want in zip((first, got_g, got_w), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_bilinear_and_outer_are_closed_under_differentiation() -> None:
    matrices, left, right = make([(3, 2), (2, 4), (1, 3)])
    weights = [matrix.requires_grad_() for matrix in matrices]

    def form(*weights: Tensor) -> Tensor:
        return bilinear(list(weights), left, right, "reference")

    def product(coefficients: Tensor) -> Tensor:
        made = outer(coefficients, left, right, torch.float64, "reference")
        return torch.cat([matrix.flatten() for matrix in made])

    coefficients = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(form, weights)
    assert torch.autograd.gradgradcheck(lambda *weights: form(*weights).square(), weights)
    assert torch.autograd.gradcheck(product, (coefficients,))
    assert torch.autograd.gradgradcheck(lambda c: product(c).square(), (coefficients,))
    torch.library.opcheck(bilinear, ([w.detach().requires_grad_() for w in weights], left, right, "reference"))
    torch.library.opcheck(outer, (coefficients, left, right, torch.float64, "reference"))


def test_many_shapes_equal_torchs_parametrization_over_30_steps() -> None:
    """One row, one column, one element, huge aspect ratios: all layers in one call, weights that change."""
    shapes = [(1, 9), (9, 1), (1, 1), (6, 4), (2, 700), (700, 2)]
    layers = [nn.utils.parametrizations.spectral_norm(nn.Linear(k, r, dtype=torch.float64)) for r, k in shapes]
    theirs = [layer.parametrizations.weight for layer in layers]
    left, right = [p[0]._u.clone() for p in theirs], [p[0]._v.clone() for p in theirs]
    generator = torch.Generator().manual_seed(3)
    for _ in range(30):
        with torch.no_grad():
            for p in theirs:
                p.original.add_(0.1 * torch.randn(p.original.shape, generator=generator, dtype=torch.float64))
        weights = [p.original for p in theirs]
        power_iteration_([w.detach() for w in weights], left, right)
        sigma = spectral_norm(weights, left, right)
        for layer, weight, s in zip(layers, weights, sigma, strict=True):
            torch.testing.assert_close(weight / s, layer.weight, rtol=1e-11, atol=1e-12)


def test_bfloat16_matrices_have_float32_sums() -> None:
    matrices, left, right = make([(40, 300)], torch.float32)
    exact = matrices[0].bfloat16().double()
    power_iteration_([matrices[0].bfloat16()], left, right, num_iterations=20)
    sigma = spectral_norm([matrices[0].bfloat16()], left, right)
    assert sigma.dtype == torch.float32
    expected = left[0].double() @ exact @ right[0].double()
    assert sigma.item() == pytest.approx(expected.item(), rel=1e-6)


def test_nan_reaches_sigma() -> None:
    sigma = spectral_norm([torch.full((2, 3), float("nan"))], [torch.ones(2)], [torch.ones(3)])
    assert sigma.isnan().all()


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
            "dtypes torch.float16, torch.float32, torch.float32; matrices must be all float32, all float64 or all",
        ),
        (
            lambda: spectral_norm([torch.zeros(2, 0)], [torch.zeros(2)], [torch.zeros(0)]),
            ValueError,
            "number 0 has matrix [2, 0]; R and K must be at least 1",
        ),
        (
            lambda: power_iteration_([torch.full((2, 3), float("nan"))], [torch.ones(2)], [torch.ones(3)]),
            NonFiniteMatrixError,
            "power_iteration_: matrices[0] holds numbers that are not finite; they must all be finite",
        ),
        (
            lambda: power_iteration_([torch.ones(2, 3)], [torch.ones(2)], [torch.ones(3)], impl="native"),
            ImplementationError,
            "impl=native cannot serve: the tensors are on cpu, and it needs a GPU; or use impl=auto",
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


def test_checkpointing_changes_nothing() -> None:
    matrix, left, right = torch.eye(3, 2).add(0.5).requires_grad_(), torch.ones(3), torch.ones(2)

    def sigma(matrix: torch.Tensor) -> torch.Tensor:
        return bilinear([matrix], [left], [right], "reference")

    (expected,) = torch.autograd.grad(sigma(matrix).square().sum(), matrix)
    (found,) = torch.autograd.grad(checkpoint(sigma, matrix, use_reentrant=False).square().sum(), matrix)
    assert torch.equal(found, expected)
