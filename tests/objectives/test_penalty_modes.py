"""dual equals double for every loss and network, approximate converges to them, and what cannot be is refused."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from fastgan.models import DCGANDiscriminator
from fastgan.nn import Conv2d, ConvTranspose2d, Dual, PixelNorm
from fastgan.objectives import LOSSES, MODES, DiscriminatorObjective, PenaltyMode, adversarial_loss
from fastgan.ops import ACTIVATIONS

DUE = [
    {"r1": 2.0},
    {"r2": 0.5},
    {"r1": 2.0, "r2": 0.5},
    {"wgan_gp": 10.0},
    {"wgan_lp": 10.0},
    {"zero_centered": 1.0, "r1": 1.0},
]


class Smooth(nn.Module):
    """A small network of every layer that has a dual, smooth everywhere."""

    def __init__(self, activation: str = "tanh") -> None:
        super().__init__()
        self.first = Conv2d(2, 4, kernel_size=3, padding=1, activation=activation)
        self.norm = PixelNorm()
        self.second = ConvTranspose2d(4, 3, kernel_size=4, stride=2, padding=1, activation=activation)
        self.last = Conv2d(3, 1, kernel_size=8)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.last(self.second(self.norm(self.first(images)))).flatten()
        return logits

    def dual(self, images: Dual, labels: Tensor | None = None) -> Dual:
        logits = self.last.dual(self.second.dual(self.norm.dual(self.first.dual(images))))
        return Dual(logits.value.flatten(), logits.tangent.flatten())


def network(name: str) -> tuple[nn.Module, tuple[int, ...], Tensor | None]:
    """A discriminator in float64, the shape of its images, and labels."""
    torch.manual_seed(0)
    if name in ACTIVATIONS:
        return Smooth(name).double(), (3, 2, 4, 4), None
    num_classes = 4 if name == "labels" else 0
    judge = DCGANDiscriminator(
        resolution=32, image_channels=1, channels=2, max_channels=4, num_classes=num_classes, dtype=torch.float64
    )
    return judge.double(), (3, 1, 32, 32), torch.tensor([0, 3, 1]) if num_classes else None


def gradients(
    name: str, loss: str, due: dict[str, float], mode: PenaltyMode, noise: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    judge, shape, labels = network(name)
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = torch.rand(shape[0], generator=generator, dtype=torch.float64)
    objective = DiscriminatorObjective(judge, loss=adversarial_loss(loss), modes=dict.fromkeys(due, mode))
    draw = None if noise is None else lambda: noise
    output = objective(real, fake, labels, penalties=due, interpolation=weights, noise=draw)
    output.loss.backward()
    return output.loss.detach(), [p.grad if p.grad is not None else torch.zeros_like(p) for p in judge.parameters()]


def assert_equal(name: str, loss: str, due: dict[str, float]) -> None:
    exact = gradients(name, loss, due, PenaltyMode("double"))
    dual = gradients(name, loss, due, PenaltyMode("dual"))
    torch.testing.assert_close(dual, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["plain", "labels"])
def test_dual_equals_double_for_every_loss(loss: str, name: str) -> None:
    assert_equal(name, loss, {"r1": 2.0, "r2": 0.5, "wgan_gp": 3.0})


@pytest.mark.parametrize("due", DUE, ids="+".join)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dual_equals_double_for_every_penalty_and_activation(due: dict[str, float], name: str) -> None:
    assert_equal(name, "non_saturating", due)


def test_approximate_converges_to_double_with_the_first_power_of_sigma() -> None:
    """Along e the limit is |e . g|^2; over an orthonormal basis, as in the mean over normal e, they add up to |g|^2."""
    due = {"r1": 2.0, "r2": 0.5}

    plain = gradients("tanh", "hinge", {}, PenaltyMode())

    def penalty(mode: PenaltyMode, noise: Tensor | None = None) -> Tensor:
        """Value and gradient of the penalties alone."""
        loss, found = gradients("tanh", "hinge", due, mode, noise)
        return torch.cat([loss[None] - plain[0], *((a - b).flatten() for a, b in zip(found, plain[1], strict=True))])

    basis = torch.eye(2 * 4 * 4, dtype=torch.float64).view(-1, 1, 2, 4, 4).expand(-1, 3, -1, -1, -1)
    exact = penalty(PenaltyMode("double"))
    errors = [
        (sum(penalty(PenaltyMode("approximate", sigma), e) for e in basis) - exact).norm() / exact.norm()
        for sigma in (0.02, 0.01, 0.005)
    ]
    assert errors[-1] < 0.01
    for coarse, fine in itertools.pairwise(errors):
        assert (coarse / fine).item() == pytest.approx(2.0, rel=0.05)


def test_r1_and_r2_in_different_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    due = {"r1": 2.0, "r2": 0.5}
    judge, shape, _ = network("silu")
    seen, dual = [], Smooth.dual
    monkeypatch.setattr(Smooth, "dual", lambda self, x, labels=None: seen.append(len(x.value)) or dual(self, x))
    real, fake = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    losses = []
    for modes in ({}, {"r1": PenaltyMode("dual")}):
        objective = DiscriminatorObjective(judge, loss=adversarial_loss("hinge"), modes=modes)
        losses.append(objective(real, fake, penalties=due).loss.detach())
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
    assert seen == [3]  # the real images alone


def test_what_cannot_be_is_refused_at_construction() -> None:
    loss = adversarial_loss("hinge")
    with pytest.raises(
        ValueError, match=r"penalty r1: mode='dual' needs a discriminator with a method dual, and Linear"
    ):
        DiscriminatorObjective(nn.Linear(1, 1), loss=loss, modes={"r1": PenaltyMode("dual")})
    with pytest.raises(
        ValueError, match=r"penalty wgan_gp: mode='approximate' estimates .* use mode='double' or 'dual'"
    ):
        DiscriminatorObjective(Smooth(), loss=loss, modes={"wgan_gp": PenaltyMode("approximate")})
    with pytest.raises(ValueError, match=f"mode='duel' must be one of {', '.join(MODES)}, did you mean 'dual'"):
        DiscriminatorObjective(Smooth(), loss=loss, modes={"r1": PenaltyMode("duel")})
    with pytest.raises(
        TypeError, match=r"penalty r1: mode='dual' must be a PenaltyMode, such as PenaltyMode\('dual'\)"
    ):
        DiscriminatorObjective(Smooth(), loss=loss, modes={"r1": "dual"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"penalty r1: sigma=0\.0 must be positive and finite"):
        DiscriminatorObjective(Smooth(), loss=loss, modes={"r1": PenaltyMode("approximate", 0.0)})
    objective = DiscriminatorObjective(Smooth(), loss=loss, modes={"r1": PenaltyMode("approximate")})
    with pytest.raises(ValueError, match="penalty 'r1' has the mode 'approximate': give noise"):
        objective(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), penalties={"r1": 1.0})
