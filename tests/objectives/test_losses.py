"""Every loss against values worked out by hand."""

import math

import pytest
import torch

from fastgan.objectives import LOSSES, adversarial_loss

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


# name: (discriminator, generator), from the formulas with real logits 2, -1 and fake logits 1/2, 3.
HAND_VALUES = {
    "non_saturating": (
        (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(3)) / 2,
        (softplus(-0.5) + softplus(-3)) / 2,
    ),
    "hinge": ((0 + 2) / 2 + (1.5 + 4) / 2, -1.75),
    "wasserstein": (1.75 - 0.5, -1.75),
    "least_squares": (0.5 * (1 + 4) / 2 + 0.5 * (0.25 + 9) / 2, 0.5 * (0.25 + 4) / 2),
    "relativistic": ((softplus(-1.5) + softplus(4)) / 2, (softplus(1.5) + softplus(-4)) / 2),
}


def test_every_loss_has_a_hand_value() -> None:
    assert set(HAND_VALUES) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_values(name: str) -> None:
    loss = adversarial_loss(name)
    discriminator, generator = HAND_VALUES[name]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(FAKE, REAL).item() == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_means_are_in_float32_or_wider(name: str, dtype: torch.dtype) -> None:
    loss = adversarial_loss(name)
    # A square of 300 does not fit into float16, and bfloat16 has no 301.
    real, fake = torch.tensor([300.0, 2.0], dtype=dtype), torch.tensor([-300.0, 0.5], dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for found, expected in (
        (loss.discriminator(real, fake), loss.discriminator(real.to(wide), fake.to(wide))),
        (loss.generator_terms(fake, real), loss.generator_terms(fake.to(wide), real.to(wide))),
        (loss.margin(real, fake), loss.margin(real.to(wide), fake.to(wide))),
    ):
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_minimising_separates_and_joins(name: str) -> None:
    """D's loss falls with real logits and rises with fake ones; G's falls with fake ones. Hinge: inside its margin."""
    loss = adversarial_loss(name)
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    with torch.no_grad():
        fake.add_(0.5)  # least squares: between its two targets
    d_real, d_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (g_fake,) = torch.autograd.grad(loss.generator(fake, real.detach()), fake)
    assert (d_real < 0).all()
    assert (d_fake > 0).all()
    assert (g_fake < 0).all()


@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("non_saturating", [2.0, -1.0]),
        ("hinge", [2.0, -1.0]),
        ("wasserstein", [1.5, -4.0]),
        ("least_squares", [1.5, -1.5]),
        ("relativistic", [1.5, -4.0]),
    ],
)
def test_margin(name: str, margin: list[float]) -> None:
    assert adversarial_loss(name).margin(REAL, FAKE).tolist() == margin


def test_relativistic_needs_real_logits() -> None:
    with pytest.raises(ValueError, match="real is None; this loss compares fake logits with real ones"):
        adversarial_loss("relativistic").generator(FAKE)


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss='hing' must be one of .*, did you mean 'hinge'"):
        adversarial_loss("hing")
