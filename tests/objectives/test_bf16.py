"""What a network in bf16 costs a penalty: little in its value, and in its gradient what torch's autocast costs."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from fastgan.models import DCGANDiscriminator
from fastgan.objectives import DiscriminatorObjective, PenaltyMode, adversarial_loss

KINDS = ["r1", "r2", "wgan_gp", "zero_centered"]
BATCH = 8


def penalty_and_gradient(
    dtype: torch.dtype, kind: str, mode: str, *, seed: int, autocast: bool = False, sigma: float = 0.01
) -> tuple[Tensor, Tensor]:
    """The penalty and its gradient in all parameters, of one network that computes in `dtype`."""
    torch.manual_seed(seed)
    network = DCGANDiscriminator(resolution=32, image_channels=1, channels=8, max_channels=32, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    network.to(wide)
    images = torch.rand(BATCH, 1, 32, 32, dtype=torch.float64).mul(2).sub(1).to(wide)
    loss = adversarial_loss("wasserstein")  # with real and fake the same, it is zero and so is its gradient
    objective = DiscriminatorObjective(network, loss=loss, modes={kind: PenaltyMode(mode, sigma)})
    draw = torch.Generator().manual_seed(seed)
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        output = objective(
            images,
            images,
            penalties={kind: 1.0},
            interpolation=torch.full((BATCH,), 0.5, dtype=wide),
            noise=lambda: torch.randn(images.shape, dtype=torch.float64, generator=draw).to(wide),
        )
    output.loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    return output.statistics[f"penalty_{kind}"].double(), gradient.double()


def errors(
    dtype: torch.dtype, kind: str, mode: str, *, seed: int, autocast: bool = False, sigma: float = 0.01
) -> tuple[float, float]:
    """Relative errors of value and gradient against float64."""
    exact, exact_gradient = penalty_and_gradient(torch.float64, kind, mode, seed=seed, sigma=sigma)
    value, gradient = penalty_and_gradient(dtype, kind, mode, seed=seed, autocast=autocast, sigma=sigma)
    difference = (gradient - exact_gradient).norm() / exact_gradient.norm()
    return ((value - exact).abs() / exact).item(), difference.item()


@pytest.mark.parametrize("mode", ["double", "dual"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_float32(kind: str, mode: str) -> None:
    value, gradient = errors(torch.float32, kind, mode, seed=0)
    assert value < 2e-6
    assert gradient < 2e-5


@pytest.mark.parametrize("mode", ["double", "dual"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16(kind: str, mode: str) -> None:
    # bf16 rounds by up to 0.4%, and a rounding that moves a number across zero changes a leaky ReLU's slope fivefold:
    # hence the gradient's error, which a mixed precision of torch's own shares.
    for seed in range(3):
        value, gradient = errors(torch.bfloat16, kind, mode, seed=seed)
        _, torchs = errors(torch.float32, kind, mode, seed=seed, autocast=True)
        assert value < 0.01
        assert gradient < 1.5 * torchs


def test_the_step_that_an_estimate_needs_in_bf16() -> None:
    """As the mode's description says: a smaller step drowns in the rounding of the two logits."""
    wide, narrow = (errors(torch.bfloat16, "r1", "approximate", seed=0, sigma=sigma)[0] for sigma in (0.1, 0.003))
    assert wide < 0.05
    assert narrow > 0.4
