"""The usual networks and the usual step are the same mathematics as fastgan's: a benchmark compares like with like."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from benchmarks.baselines.usual_networks import (
    UsualDiscriminator,
    UsualGenerator,
    copy_vectors,
    network_convolutions,
    trained_parameters,
)
from benchmarks.baselines.usual_step import UsualStep, Variant
from fastgan import rng
from fastgan.data import Batch
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.nn import SpectrallyNormalized
from fastgan.train.build import build_networks, build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import RunConfig, load_config
from fastgan.train.step import TrainStep

SPECTRAL_NORM = ["generator.spectral_norm=true", "discriminator.spectral_norm=true"]
SMALL = ["generator.channels=8", "discriminator.channels=8", "batch_images=4", *SPECTRAL_NORM]


def networks(*overrides: str) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    """In float64, where the order of additions does not show."""
    pair = build_networks(load_config("digits", overrides=[*SMALL, *overrides]), dtype=torch.float64)
    return pair[0].double(), pair[1].double()


def random(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, input gradient, and the gradients of all parameters, for a random cotangent."""
    x = x.clone().requires_grad_()
    y = network(x)
    (y * random(*y.shape, seed=1)).sum().backward()
    weights = network.parameters() if isinstance(network, SpectrallyNormalized) else trained_parameters(network)
    return [y.detach(), x.grad, *(parameter.grad for parameter in weights)]


@pytest.mark.parametrize("spectral_norm", ["true", "false"])
def test_both_networks_agree_at_equal_vectors(spectral_norm: str) -> None:
    overrides = [f"{network}.spectral_norm={spectral_norm}" for network in ("generator", "discriminator")]
    generator, discriminator = networks(*overrides)
    pairs = [
        (generator, UsualGenerator(generator).eval(), random(4, 64)),
        (discriminator, UsualDiscriminator(discriminator).eval(), random(4, 1, 32, 32)),
    ]
    for ours, usual, x in pairs:
        expected, found = gradients(ours, x), gradients(usual, x)
        assert len(expected) == len(list(ours.parameters())) + 2
        for tensor, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, tensor, rtol=1e-9, atol=1e-9)


def test_the_power_iteration_is_torchs() -> None:
    """One step of fastgan's group is what torch does before a forward pass in training mode."""
    _, discriminator = networks()
    usual = UsualDiscriminator(discriminator)
    assert discriminator.spectral_norm is not None
    with torch.no_grad():
        for index in range(discriminator.spectral_norm.num_layers):
            for side in "uv":
                vector = discriminator.spectral_norm.get_buffer(f"{side}{index}")
                vector.copy_(nn.functional.normalize(random(vector.numel(), seed=index), dim=0))
        copy_vectors(network_convolutions(usual), discriminator.spectral_norm)
        before = discriminator(random(4, 1, 32, 32))
        discriminator.step_spectral_norm()
        after = discriminator(random(4, 1, 32, 32))
        logits = usual.train()(random(4, 1, 32, 32))
    torch.testing.assert_close(logits, after, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(logits, before, rtol=1e-2)


class FixedBatches:
    """Random images by sample number, as a loader gives them."""

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        images = random(num_samples, 1, 32, 32, seed=first_sample, dtype=torch.float32).tanh()
        return Batch(images, None, first_sample)


def draws(config: RunConfig) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """The images and latents that `TrainStep` draws, in its order."""
    size = config.batch_images
    images = (FixedBatches().batch(i * size, size).images for i in range(100))
    latents = (
        torch.from_numpy(rng.normal(config.seed, "latent", i * size, size, config.generator.latent_dim))
        for i in range(100)
    )
    return images, latents


@pytest.mark.parametrize("loss", ["relativistic", "hinge"])
@pytest.mark.parametrize(
    "variant", [Variant(), Variant(freeze_and_share=True), Variant(freeze_and_share=True, channels_last=True)]
)
def test_both_steps_train_the_same(variant: Variant, loss: str) -> None:
    """Without spectral norm, whose vectors torch updates more often. A large eps keeps Adam smooth in the gradient."""
    overrides = [*SMALL, "generator.spectral_norm=false", "discriminator.spectral_norm=false", f"objective.loss={loss}"]
    for network in ("generator", "discriminator"):
        # The bounds below hold for this rate, whatever the preset's.
        overrides += [f"optimizer.{network}.eps=0.1", f"optimizer.{network}.learning_rate=5e-4"]
    overrides += ["penalties=[{kind: r1, weight: 1.0, every: 2}, {kind: r2, weight: 0.5, every: 3}]"]
    overrides += [f"schedule.share_fakes={str(variant.freeze_and_share).lower()}"]
    config = load_config("digits", overrides=overrides)
    state = build_state(config, num_classes=0, dtype=torch.float32, device="cpu")
    images, latents = draws(config)
    usual = UsualStep(
        config,
        state.generator,
        state.discriminator,
        draw_images=lambda: next(images),
        draw_latents=lambda: next(latents),
        variant=variant,
    )
    start = copy.deepcopy(state.generator)
    step = TrainStep(state, loader=FixedBatches(), seed=config.seed, latent_dim=64, ema=config.ema, device="cpu")
    schedule = build_schedule(config)
    for _ in range(4):
        step.run(schedule.plan(state.schedule))
        state.schedule = schedule.advance(state.schedule)
        usual.run()
    for network, other in (
        (state.generator, usual.generator),
        (state.discriminator, usual.discriminator),
        (state.generator_ema, usual.average),
    ):
        for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=2e-6)
    moved = [(a - b).abs().max() for a, b in zip(start.parameters(), state.generator.parameters(), strict=True)]
    assert min(moved) > 1e-5


def test_the_usual_step_lets_gradients_into_the_discriminator_unless_frozen() -> None:
    config = load_config("digits", overrides=SMALL)
    for variant, expected in ((Variant(), True), (Variant(freeze_and_share=True), False)):
        images, latents = draws(config)
        usual = UsualStep(
            config,
            *build_networks(config),
            draw_images=lambda images=images: next(images),
            draw_latents=lambda latents=latents: next(latents),
            variant=variant,
        )
        real = usual.draw_images()
        usual.discriminator.zero_grad()
        usual._differentiate_generator(real, usual._generate())
        has_gradients = all(p.grad is not None for p in usual.discriminator.parameters())
        assert has_gradients == expected


@pytest.mark.parametrize(
    ("overrides", "text"),
    [(["penalties=[{kind: wgan_gp, weight: 1.0}]"], "wgan_gp"), (["schedule.discriminator_updates=2"], r"\(2, 1\)")],
)
def test_what_the_usual_step_cannot_do_is_refused(overrides: list[str], text: str) -> None:
    config = load_config("digits", overrides=[*SMALL, *overrides])
    with pytest.raises(ValueError, match=text):
        UsualStep(config, *build_networks(config), draw_images=torch.empty, draw_latents=torch.empty)
