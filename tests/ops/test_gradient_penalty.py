"""gradient_penalty and interpolate against values worked out by hand, and the fused form against autograd."""

import pytest
import torch

from fastgan.errors import ImplementationError
from fastgan.ops import gradient_penalty, interpolate
from fastgan.ops.gradient_penalty import fused_penalty

# Norms 5 and 0.5.
GRADIENTS = torch.tensor([[3.0, 4.0, 0.0, 0.0], [0.3, 0.0, 0.4, 0.0]]).view(2, 1, 2, 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [25.0, 0.25]),
        ({"center": 1.0}, [16.0, 0.25]),
        ({"center": 1.0, "one_sided": True}, [16.0, 0.0]),
        ({"one_sided": True}, [25.0, 0.25]),
    ],
)
def test_values(options: dict[str, float], expected: list[float]) -> None:
    got = gradient_penalty(GRADIENTS, **options)
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"center": 1.0}, {"center": 1.0, "one_sided": True}])
def test_derivative(options: dict[str, float]) -> None:
    gradients = GRADIENTS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda g: gradient_penalty(g, **options), (gradients,))


def test_a_zero_gradient_has_a_finite_derivative() -> None:
    gradients = torch.zeros(1, 3, requires_grad=True)
    gradient_penalty(gradients, center=1.0).sum().backward()
    assert gradients.grad is not None
    assert gradients.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("one_sided", [True, False])
def test_the_derivatives_of_a_zero_gradient_are_zero(fused: bool, one_sided: bool) -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    if fused:
        penalty, _ = fused_penalty(rows, 1.0, one_sided, "reference")
    else:
        penalty = gradient_penalty(rows, center=1.0, one_sided=one_sided)
    value = penalty.sum()
    for _ in range(3):
        (derivative,) = torch.autograd.grad(value, rows, create_graph=True)
        assert derivative[0].tolist() == [0.0, 0.0]
        assert derivative[1].isfinite().all()
        assert derivative[1].any()
        value = (derivative * torch.tensor([1.0, 2.0])).sum()


def test_bf16_is_summed_in_float32() -> None:
    # 1 + 2^-10 is not a bf16 number: a bf16 sum would lose the small terms.
    gradients = torch.full((1, 4097), 2.0**-5)
    gradients[0, 0] = 1.0
    got = gradient_penalty(gradients.bfloat16())
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(1.0 + 4096 * 2.0**-10, rel=1e-6)


def test_bad_arguments_name_themselves() -> None:
    with pytest.raises(ValueError, match=r"gradients has shape \[3\]; it must be \[N, ...\]"):
        gradient_penalty(torch.zeros(3))
    with pytest.raises(TypeError, match=r"dtype torch.int64; it must be floating point"):
        gradient_penalty(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"center=-1.0 must be finite and not negative"):
        gradient_penalty(torch.zeros(3, 2), center=-1.0)


@pytest.mark.parametrize("options", [(0.0, False), (1.0, False), (1.0, True)])
def test_the_fused_forms_derivatives_are_autograds(options: tuple[float, bool]) -> None:
    rows = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[0] *= 0.1
    rows = rows.requires_grad_()
    cotangent = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    center, one_sided = options
    plain = gradient_penalty(rows, center=center, one_sided=one_sided, impl="reference")
    fused, _ = fused_penalty(rows, center, one_sided, "reference")
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad(plain, rows, cotangent, create_graph=True)
    (cheap,) = torch.autograd.grad(fused, rows, cotangent, retain_graph=True)
    (differentiable,) = torch.autograd.grad(fused, rows, cotangent, create_graph=True)
    for got in (cheap, differentiable):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    second = [torch.autograd.grad(g.square().sum(), rows)[0] for g in (differentiable, expected)]
    torch.testing.assert_close(second[0], second[1], rtol=1e-12, atol=1e-12)


def test_the_fused_form_passes_opcheck() -> None:
    rows = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(fused_penalty, (rows, 1.0, False, "reference"))


def test_interpolate() -> None:
    real, fake = torch.full((2, 1, 1, 1), 4.0), torch.zeros(2, 1, 1, 1)
    assert interpolate(real, fake, torch.tensor([0.25, 1.0])).flatten().tolist() == [1.0, 4.0]
    one = interpolate(real[:1], fake[:1], torch.tensor([0.5]))
    assert one.tolist() == [[[[2.0]]]]
    with pytest.raises(ValueError, match="real and fake must be equal in shape and weights be"):
        interpolate(real, fake, torch.tensor([0.5]))
    with pytest.raises(TypeError, match=r"got dtypes torch.float32 and torch.float64; they must be equal"):
        interpolate(real, fake.double(), torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="real on cpu, fake on cpu, weights on meta; they must be on one device"):
        interpolate(real, fake, torch.empty(2, device="meta"))


@pytest.mark.parametrize("impl", ["native", "triton"])
def test_a_forced_kernel_that_cannot_serve_says_why(impl: str) -> None:
    with pytest.raises(ImplementationError, match=f"impl={impl} cannot serve: dtype torch.float64 must be one of"):
        gradient_penalty(torch.zeros(2, 3, dtype=torch.float64), impl=impl)
    with pytest.raises(ValueError, match="impl='nativ' must be one of auto, native, triton, reference, did you mean"):
        gradient_penalty(torch.zeros(2, 3), impl="nativ")
