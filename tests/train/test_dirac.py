"""Dirac-GAN: the smallest GAN, whose steps converge or not as is known, shows which version each update read.

D(x) = psi x, G(z) = theta, data at 0, loss f with f(0)' = -1/2 (non-saturating), R1 with weight g / 2 on psi. Near 0 a
step is linear in (theta, psi):

    discriminator   psi   <- psi + h (- theta_read / 2 - g psi)      loss softplus(psi theta) + g / 2 psi^2
    generator       theta <- theta + h psi_read / 2                  loss softplus(-psi theta)

so that convergence is the spectral radius of a matrix, which depends on what is read. Mescheder et al. 2018,
arXiv:1801.04406.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastgan.data import Batch
from fastgan.objectives import DiscriminatorObjective, GeneratorObjective, ObjectiveOutput, adversarial_loss
from fastgan.parallel import SingleEngine
from fastgan.schedule import Alternate, Joint, LazyPenalty, Policy, ScheduleState, Split
from fastgan.train.config import EmaConfig
from fastgan.train.state import TrainState
from fastgan.train.step_choice import step_class

G = 0.1
STEPS = 3000


class Theta(nn.Module):
    """All images are the one pixel theta."""

    spectral_norm = None

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.01, dtype=torch.float64))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        del labels
        return self.theta.expand(len(latents), 1, 1, 1)


class Psi(nn.Module):
    """The logit is psi times the pixel."""

    spectral_norm = None

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(0.01, dtype=torch.float64))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        del labels
        return self.psi * images.flatten(1).sum(dim=1)


class Zeros:
    """The data: one pixel, always 0."""

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        return Batch(torch.zeros(num_samples, 1, 1, 1, dtype=torch.float64), None, first_sample)


class Pulled(GeneratorObjective):
    """Adds a loss of the generator's own, whose gradient by theta is 1."""

    def forward(self, latents: Tensor, labels: Tensor | None = None, **given: Any) -> ObjectiveOutput:
        own = self.generator(latents, labels).mean()
        if not given.pop("adversarial", True):
            return ObjectiveOutput(own, {})
        return ObjectiveOutput(own + super().forward(latents, labels, **given).loss, {})


def trained(
    policy: Policy, *, rate: float, num_steps: int, objective: type[GeneratorObjective] = GeneratorObjective
) -> np.ndarray:
    """[num_steps, 2]: theta and psi after each step of the training step of the package."""
    torch.manual_seed(0)
    generator, discriminator, loss = Theta(), Psi(), adversarial_loss("non_saturating")
    objectives = (
        objective(generator, discriminator=discriminator, loss=loss),
        DiscriminatorObjective(discriminator, loss=loss),
    )
    engines = [SingleEngine(o, optimizer=torch.optim.SGD(o.parameters(), lr=rate)) for o in objectives]
    state = TrainState(generator, discriminator, copy.deepcopy(generator), *engines, ScheduleState())  # type: ignore[arg-type]
    step = step_class(policy)(
        state,
        loader=Zeros(),  # type: ignore[arg-type]
        seed=0,
        latent_dim=1,
        ema=EmaConfig(),
        device="cpu",
    )
    path = []
    for _ in range(num_steps):
        step.run(policy.plan(state.schedule))
        state.schedule = policy.advance(state.schedule)
        path.append([generator.theta.item(), discriminator.psi.item()])
    return np.array(path)


def by_hand(policy: Policy, *, rate: float, num_steps: int, g: float = G) -> np.ndarray:
    """The same by the linear recursion alone, with the versions that the policy's updates read."""
    versions = {"generator": [0.01], "discriminator": [0.01]}
    state, path = ScheduleState(), []
    for _ in range(num_steps):
        for update in policy.step(state).updates:
            mine = versions[update.network]
            assert update.version == len(mine)
            other = versions["generator" if update.network == "discriminator" else "discriminator"][update.reads]
            if update.network == "discriminator":
                mine.append(mine[-1] + rate * (-other / 2 - g * mine[-1]))
            else:
                mine.append(mine[-1] + rate * other / 2)
        state = policy.advance(state)
        path.append([versions["generator"][-1], versions["discriminator"][-1]])
    return np.array(path)


def largest_rate(staleness: int, *, g: float = G) -> float:
    """Below about this step size simultaneous descent converges: g / (f'(0)^2 (2 tau + 1)), f'(0) = 1/2."""
    return g / (0.25 * (2 * staleness + 1))


def shrinks(path: np.ndarray) -> bool:
    """Whether the last tenth is closer to 0 than the first."""
    distance = np.linalg.norm(path, axis=1)
    part = len(distance) // 10
    return bool(distance[-part:].max() < distance[:part].max())


PENALTY = (LazyPenalty("r1", G / 2),)
ALTERNATE = Alternate(batch_images=1, penalties=PENALTY)
JOINT = Joint(batch_images=1, penalties=PENALTY)


@pytest.mark.parametrize("policy", [ALTERNATE, JOINT], ids=lambda policy: policy.name)
def test_the_trained_path_is_that_of_the_versions_read(policy: Policy) -> None:
    """Up to terms of third order, at 0.01^3; a version too old would be off by about 0.2^2 / 4 x 0.01."""
    found = trained(policy, rate=0.2, num_steps=40)
    assert found == pytest.approx(by_hand(policy, rate=0.2, num_steps=40), abs=5e-6)


def test_joint_converges_and_diverges_on_the_two_sides_of_its_largest_rate() -> None:
    rate = largest_rate(0)
    assert shrinks(trained(JOINT, rate=0.8 * rate, num_steps=400))
    assert not shrinks(trained(JOINT, rate=1.2 * rate, num_steps=400))


def test_alternate_converges_far_above_the_largest_rate_of_joint() -> None:
    """The matrix of a step has trace 2 - h g - h^2 / 4 and determinant 1 - h g: |trace| < 1 + determinant below h."""
    rate = -4 * G + (16 * G**2 + 16) ** 0.5
    assert rate > 9 * largest_rate(0)
    assert shrinks(trained(ALTERNATE, rate=0.95 * rate, num_steps=400))
    assert not shrinks(trained(ALTERNATE, rate=1.05 * rate, num_steps=60))


def test_before_its_adversarial_part_the_generator_follows_its_own_loss() -> None:
    policy = Alternate(batch_images=1, adversarial_start_images=3)
    theta, psi = trained(policy, rate=0.1, num_steps=5, objective=Pulled).T
    assert theta[:3] == pytest.approx([0.01 - 0.1, 0.01 - 0.2, 0.01 - 0.3])
    # From then on the discriminator, which has learned meanwhile, pulls, too: theta + h psi / 2.
    assert theta[3] == pytest.approx(theta[2] - 0.1 + 0.1 * psi[3] / 2, abs=1e-4)
    assert abs(psi[3]) > 0.01
    with pytest.raises(ValueError, match="adversarial=False leaves no loss; subclass it"):
        trained(policy, rate=0.1, num_steps=1)


@pytest.mark.parametrize("staleness", [0, 1, 2, 4])
def test_the_versions_of_split_have_the_largest_rate_of_their_staleness(staleness: int) -> None:
    policy = Split(batch_images=2, num_ranks=2, discriminator_ranks=1, delay_steps=staleness)
    rate = largest_rate(staleness)
    assert shrinks(by_hand(policy, rate=0.8 * rate, num_steps=STEPS))
    assert not shrinks(by_hand(policy, rate=1.2 * rate, num_steps=STEPS))
