"""Penalties against hand-derived values, for a quadratic discriminator whose gradients are known."""

import math

import pytest
import torch
from torch import Tensor, nn

from fastgan.nn import Dual
from fastgan.objectives import (
    PENALTIES,
    DiscriminatorObjective,
    PenaltyMode,
    adversarial_loss,
    r1_penalty,
    r2_penalty,
    wgan_gp_penalty,
    wgan_lp_penalty,
    zero_centered_penalty,
)


class Quadratic(nn.Module):
    """D(x) = a / 2 |x|^2, so dD/dx = a x, |dD/dx|^2 = a^2 |x|^2, and its derivative in a is 2 a |x|^2."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return 0.5 * self.a * images.square().flatten(1).sum(dim=1)

    def dual(self, images: Dual, labels: Tensor | None = None) -> Dual:
        slopes = self.a * (images.value * images.tangent).flatten(1).sum(dim=1)
        return Dual(self(images.value), slopes)


def images_of_norms(*norms: float) -> Tensor:
    images = torch.zeros(len(norms), 1, 2, 2, dtype=torch.float64)
    images[:, 0, 0, 0], images[:, 0, 1, 1] = 0.6 * torch.tensor(norms), 0.8 * torch.tensor(norms)
    return images


@pytest.mark.parametrize("penalty", [r1_penalty, r2_penalty, zero_centered_penalty])
def test_zero_centred_penalties(penalty) -> None:  # type: ignore[no-untyped-def]
    network, images = Quadratic(3.0), images_of_norms(1.0, 2.0).requires_grad_()
    value = penalty(network(images), images)
    assert value.item() == pytest.approx(9 * (1 + 4) / 2)
    value.backward()
    assert network.a.grad is not None
    assert network.a.grad.item() == pytest.approx(2 * 3 * (1 + 4) / 2)


def test_wgan_gp_penalty() -> None:
    network, images = Quadratic(3.0), images_of_norms(1.0, 2.0).requires_grad_()
    value = wgan_gp_penalty(network(images), images)
    # Gradient norms 3 and 6: (3 - 1)^2 and (6 - 1)^2; d/da (a r - 1)^2 = 2 (a r - 1) r.
    assert value.item() == pytest.approx((4 + 25) / 2)
    value.backward()
    assert network.a.grad is not None
    assert network.a.grad.item() == pytest.approx((2 * 2 * 1 + 2 * 5 * 2) / 2)


def test_wgan_lp_penalty_is_one_sided() -> None:
    network, images = Quadratic(0.5), images_of_norms(1.0, 8.0).requires_grad_()
    value = wgan_lp_penalty(network(images), images)
    # Gradient norms 1/2, which costs nothing, and 4: (4 - 1)^2, d/da (a r - 1)^2 = 2 (a r - 1) r.
    assert value.item() == pytest.approx(9 / 2)
    value.backward()
    assert network.a.grad is not None
    assert network.a.grad.item() == pytest.approx(2 * 3 * 8 / 2)


@pytest.mark.parametrize("mode", ["double", "dual"])
def test_the_objective_knows_which_penalty_is_one_sided(mode: str) -> None:
    modes = {kind: PenaltyMode(mode) for kind in PENALTIES}
    objective = DiscriminatorObjective(Quadratic(0.5), loss=adversarial_loss("wasserstein"), modes=modes)
    images = images_of_norms(1.0, 8.0)
    due, here = {"wgan_gp": 1.0, "wgan_lp": 1.0}, torch.tensor([1.0, 1.0], dtype=torch.float64)
    output = objective(images, images, penalties=due, interpolation=here)
    assert output.statistics["penalty_wgan_gp"].item() == pytest.approx((0.5**2 + 3**2) / 2)
    assert output.statistics["penalty_wgan_lp"].item() == pytest.approx(3**2 / 2)


def test_images_must_require_grad() -> None:
    images = images_of_norms(1.0)
    with pytest.raises(ValueError, match=r"images\.requires_grad is False; set it before"):
        r1_penalty(Quadratic(1.0)(images), images)
    images.requires_grad_()
    with torch.no_grad(), pytest.raises(ValueError, match=r"judge the images outside of torch\.no_grad\(\)"):
        r1_penalty(Quadratic(1.0)(images), images)
    with pytest.raises(ValueError, match="logits do not depend on images; the discriminator must not detach them"):
        r1_penalty(Quadratic(1.0)(images.clone()), images.detach().requires_grad_())


PENALTY_ON_2_AND_1 = {
    # Real images of norm 2, fake ones of norm 1 on the same line, a = 3; a quarter of the way to real: norm 5/4.
    "r1": 9 * 4,
    "r2": 9 * 1,
    "zero_centered": 9 * 1.25**2,
    "wgan_gp": 2.75**2,
    "wgan_lp": 2.75**2,
}


@pytest.mark.parametrize(
    "due",
    [
        {"r1": 2.0},
        {"r2": 0.5},
        {"r1": 2.0, "r2": 0.5},
        {"wgan_gp": 10.0},
        {"wgan_lp": 2.0},
        {"r1": 1.0, "zero_centered": 4.0},
        {},
    ],
)
def test_objective_adds_what_is_due(due: dict[str, float]) -> None:
    loss = adversarial_loss("wasserstein")
    objective = DiscriminatorObjective(Quadratic(3.0), loss=loss)
    real, fake = images_of_norms(2.0, 2.0), images_of_norms(1.0, 1.0)
    quarter = torch.tensor([0.25, 0.25], dtype=torch.float64)
    output = objective(real, fake, penalties=due, interpolation=quarter)
    adversarial = 1.5 * (1 - 4)
    expected = adversarial + sum(weight * PENALTY_ON_2_AND_1[kind] for kind, weight in due.items())
    assert output.loss.item() == pytest.approx(expected)
    assert output.statistics["loss_discriminator"].item() == pytest.approx(adversarial)
    for kind, value in PENALTY_ON_2_AND_1.items():
        name = f"penalty_{kind}"
        assert (name in output.statistics) == (kind in due)
        if kind in due:
            assert output.statistics[name].item() == pytest.approx(value)


@pytest.mark.parametrize(
    ("due", "num_judged"), [([], [4]), (["r1", "r2"], [4]), (["r1"], [2, 2]), (["r1", "r2", "wgan_gp"], [4, 2])]
)
def test_real_and_fake_images_are_judged_in_one_pass_where_both_want_the_same(
    due: list[str], num_judged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, seen, judge = (
        DiscriminatorObjective(Quadratic(3.0), loss=adversarial_loss("hinge")),
        [],
        Quadratic.forward,
    )
    monkeypatch.setattr(Quadratic, "forward", lambda self, x, labels=None: seen.append(len(x)) or judge(self, x))
    images = images_of_norms(2.0, 1.0)
    objective(images, images, penalties=dict.fromkeys(due, 1.0), interpolation=torch.tensor([0.1, 0.9]))
    assert seen == num_judged


def test_unknown_penalty_and_missing_interpolation_are_refused() -> None:
    objective = DiscriminatorObjective(Quadratic(1.0), loss=adversarial_loss("hinge"))
    images = images_of_norms(1.0)
    with pytest.raises(ValueError, match="penalty 'r3' must be one of r1, r2, wgan_gp, wgan_lp, zero_centered"):
        objective(images, images, penalties={"r3": 1.0})
    with pytest.raises(ValueError, match="penalty 'wgan_gp' lies between real and fake images: give interpolation"):
        objective(images, images, penalties={"wgan_gp": 1.0})
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"penalty 'r1': weight={weight} must be finite and not negative"):
            objective(images, images, penalties={"r1": weight})
    with pytest.raises(TypeError, match=r"penalty on images of dtype torch\.uint8; they must be floating point"):
        objective(images.byte(), images, penalties={"r1": 1.0})
