"""From a configuration to networks, engines and schedule."""

import copy

import torch
from torch import nn

from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import DiscriminatorObjective, GeneratorObjective, PenaltyMode, adversarial_loss
from fastgan.parallel import SingleEngine
from fastgan.schedule import Alternate, LazyPenalty, ScheduleState
from fastgan.train.config import AdamConfig, RunConfig
from fastgan.train.state import TrainState

# What the names in a configuration stand for.
ARCHITECTURES = {"dcgan": (DCGANGenerator, DCGANDiscriminator)}
POLICIES = {"alternate": Alternate}
ENGINES = {"single": SingleEngine}


def build_networks(
    config: RunConfig, *, num_classes: int = 0, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    """Generator and discriminator with fresh weights, which depend on `config.seed` alone, in channels_last.

    Args:
        num_classes: of the data set; 0 without labels.
        dtype: in which hidden layers compute; parameters are float32.
        device: where the networks go; "meta" for their shapes only.
    """
    generator, discriminator = config.generator, config.discriminator
    is_meta = torch.device(device).type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if is_meta else "cpu"):
        torch.manual_seed(config.seed)
        made = ARCHITECTURES[generator.architecture][0](
            resolution=config.data.resolution,
            image_channels=config.data.channels,
            latent_dim=generator.latent_dim,
            channels=generator.channels,
            max_channels=generator.max_channels,
            normalization=generator.normalization,
            spectral_norm=generator.spectral_norm,
            num_classes=num_classes,
            label_dim=generator.label_dim,
            dtype=dtype,
        )
        judge = ARCHITECTURES[discriminator.architecture][1](
            resolution=config.data.resolution,
            image_channels=config.data.channels,
            channels=discriminator.channels,
            max_channels=discriminator.max_channels,
            spectral_norm=discriminator.spectral_norm,
            spectral_norm_iterations=discriminator.spectral_norm_iterations,
            num_classes=num_classes,
            dtype=dtype,
        )
    for network in (made, judge):
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made, judge


def build_optimizer(network: nn.Module, config: AdamConfig) -> torch.optim.Adam:
    """Adam in its fused form: one pass over all parameters per step."""
    betas = (config.betas[0], config.betas[1])
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)


def build_schedule(config: RunConfig, *, num_ranks: int = 1) -> Alternate:
    """The planner of the run.

    Raises:
        ConfigError: if the batch does not divide over ranks and micro-batches.
    """
    return POLICIES[config.schedule.policy](
        batch_images=config.batch_images,
        micro_batch_images=config.micro_batch_images,
        discriminator_updates=config.schedule.discriminator_updates,
        generator_updates=config.schedule.generator_updates,
        penalties=tuple(LazyPenalty(p.kind, p.weight, p.every) for p in config.penalties),
        share_fakes=config.schedule.share_fakes,
        num_ranks=num_ranks,
    )


def build_state(config: RunConfig, *, num_classes: int, dtype: torch.dtype, device: torch.device | str) -> TrainState:
    """The state of a run that has not seen an image."""
    generator, discriminator = build_networks(config, num_classes=num_classes, dtype=dtype, device=device)
    loss = adversarial_loss(config.objective.loss)
    # One process: the simplest engine that uses all processes is the single one.
    engine = ENGINES["single" if config.parallel.engine == "auto" else config.parallel.engine]
    return TrainState(
        generator=generator,
        discriminator=discriminator,
        generator_ema=copy.deepcopy(generator).requires_grad_(False).eval(),
        generator_engine=engine(
            GeneratorObjective(generator, discriminator=discriminator, loss=loss),
            optimizer=build_optimizer(generator, config.optimizer.generator),
        ),
        discriminator_engine=engine(
            DiscriminatorObjective(
                discriminator, loss=loss, modes={p.kind: PenaltyMode(p.mode, p.sigma) for p in config.penalties}
            ),
            optimizer=build_optimizer(discriminator, config.optimizer.discriminator),
        ),
        schedule=ScheduleState(),
    )
