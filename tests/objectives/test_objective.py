"""The objectives: whose parameters get gradients, and that penalties equal those of the plain formulas."""

import pytest
import torch
from torch import Tensor

from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import LOSSES, DiscriminatorObjective, GeneratorObjective, PenaltyMode, adversarial_loss


def networks() -> tuple[DCGANGenerator, DCGANDiscriminator]:
    torch.manual_seed(0)
    shared = {"resolution": 32, "image_channels": 1, "channels": 2, "max_channels": 8, "dtype": torch.float64}
    generator = DCGANGenerator(latent_dim=4, **shared)  # type: ignore[arg-type]
    discriminator = DCGANDiscriminator(**shared)  # type: ignore[arg-type]
    return generator.double(), discriminator.double()


def images(seed: int) -> Tensor:
    return torch.rand(3, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def gradients(loss: Tensor, network: torch.nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize("kinds", [("r1",), ("r2",), ("r1", "r2")])
def test_penalised_loss_equals_the_formula_written_out(kinds: tuple[str, ...]) -> None:
    """One pass or two, sums per half or per pass: value and gradient are those of the definition."""
    _, discriminator = networks()
    real, fake = images(1), images(2)
    objective = DiscriminatorObjective(discriminator, loss=adversarial_loss("relativistic"))
    got = objective(real, fake, penalties=dict.fromkeys(kinds, 5.0)).loss

    sides = {"r1": real.clone().requires_grad_(), "r2": fake.clone().requires_grad_()}
    logits = {kind: discriminator(side) for kind, side in sides.items()}
    expected = torch.nn.functional.softplus(logits["r2"] - logits["r1"]).mean()
    for kind in kinds:
        (slope,) = torch.autograd.grad(logits[kind].sum(), sides[kind], create_graph=True)
        expected = expected + 5.0 * slope.square().flatten(1).sum(dim=1).mean()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(got, discriminator), gradients(expected, discriminator), rtol=1e-9, atol=1e-12)


def test_discriminator_objective_sends_nothing_to_the_generator() -> None:
    generator, discriminator = networks()
    fake = generator(torch.randn(3, 4, dtype=torch.float64))
    objective = DiscriminatorObjective(discriminator, loss=adversarial_loss("hinge"))
    objective(images(1), fake, penalties={"r2": 1.0}).loss.backward()
    assert all(p.grad is not None for p in discriminator.parameters())
    assert all(p.grad is None for p in generator.parameters())


def test_generator_objective_owns_the_generator_only() -> None:
    generator, discriminator = networks()
    objective = GeneratorObjective(generator, discriminator=discriminator, loss=adversarial_loss("hinge"))
    assert {id(p) for p in objective.parameters()} == {id(p) for p in generator.parameters()}


@pytest.mark.parametrize("loss", ["non_saturating", "relativistic"])
def test_given_fakes_serve_as_well_as_made_ones(loss: str) -> None:
    generator, discriminator = networks()
    objective = GeneratorObjective(generator, discriminator=discriminator, loss=adversarial_loss(loss))
    latents = torch.randn(3, 4, dtype=torch.float64)
    made = objective(latents, real=images(1)).loss
    given = objective(latents, real=images(1), fake=generator(latents)).loss
    torch.testing.assert_close(given, made, rtol=0, atol=0)
    torch.testing.assert_close(gradients(given, generator), gradients(made, generator), rtol=0, atol=0)


def test_relativistic_generator_needs_real_images() -> None:
    generator, discriminator = networks()
    objective = GeneratorObjective(generator, discriminator=discriminator, loss=adversarial_loss("relativistic"))
    with pytest.raises(ValueError, match="real is None; Relativistic compares with real images"):
        objective(torch.randn(3, 4, dtype=torch.float64))


def test_sign_statistic() -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
            return x.mean(dim=(1, 2, 3))

    objective = DiscriminatorObjective(Mean(), loss=adversarial_loss("hinge"))
    real = torch.tensor([1.0, 2.0, -1.0, 4.0]).view(4, 1, 1, 1)
    assert objective(real, -real).statistics["sign_statistic"].item() == 0.5


def test_a_mode_without_a_graph_of_the_fakes_cannot_serve_the_generator() -> None:
    discriminator = DCGANDiscriminator(resolution=32, image_channels=1, channels=2, max_channels=4)
    modes = {"r2": PenaltyMode("dual")}
    objective = DiscriminatorObjective(discriminator, loss=adversarial_loss("hinge"), modes=modes)
    pixels = torch.zeros(2, 1, 32, 32)
    with pytest.raises(ValueError, match="penalty 'r2' with the mode 'dual' leaves no graph for the generator"):
        objective(pixels, pixels, penalties={"r1": 1.0, "r2": 1.0}, for_generator=True)
    # Where r2 is not due, its mode has judged nothing.
    assert objective(pixels, pixels, penalties={"r1": 1.0}, for_generator=True).fake_gradient is not None


def test_a_function_of_fakes_cannot_serve_the_generator() -> None:
    objective = DiscriminatorObjective(networks()[1], loss=adversarial_loss("hinge"))
    with pytest.raises(TypeError, match="takes a gradient by the fakes: give fake as images, not as a function"):
        objective(images(1), lambda: images(2), for_generator=True)


def test_a_loss_is_not_given_by_its_name() -> None:
    generator, discriminator = networks()
    with pytest.raises(TypeError, match=r"loss='hinge' must be an AdversarialLoss: give adversarial_loss\('hinge'\)"):
        DiscriminatorObjective(discriminator, loss="hinge")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"give adversarial_loss\('hinge'\)"):
        GeneratorObjective(generator, discriminator=discriminator, loss=LOSSES["hinge"])  # type: ignore[arg-type]


def test_penalties_are_kinds_with_their_weights() -> None:
    objective = DiscriminatorObjective(networks()[1], loss=adversarial_loss("hinge"))
    with pytest.raises(TypeError, match=r"penalties=\['r1'\] must map each penalty to its weight, such as {'r1': 1.0}"):
        objective(images(1), images(2), penalties=["r1"])
    with pytest.raises(TypeError, match="penalty 'r1': weight='1' must be a number"):
        objective(images(1), images(2), penalties={"r1": "1"})
