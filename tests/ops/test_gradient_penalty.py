"""gradient_penalty against values worked out by hand."""

import pytest
import torch

from fastgan.ops import gradient_penalty

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
