"""From a configuration to networks and engines."""

import copy

import torch

from fastgan.dist import ALONE, World
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import DiscriminatorObjective, GeneratorObjective, PenaltyMode, adversarial_loss
from fastgan.schedule import ScheduleState
from fastgan.train.build_engines import build_engine, choose_engines
from fastgan.train.checkpoint import Checkpoint
from fastgan.train.config import RunConfig
from fastgan.train.state import TrainState

# What the names in a configuration stand for.
ARCHITECTURES = {"dcgan": (DCGANGenerator, DCGANDiscriminator)}


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


def build_state(
    config: RunConfig,
    *,
    num_classes: int,
    dtype: torch.dtype,
    device: torch.device | str,
    world: World = ALONE,
    checkpoint: Checkpoint | None = None,
) -> TrainState:
    """The state of a run: as `checkpoint` has it, or one that has not seen an image.

    Raises:
        ConfigError: if an engine cannot do what the configuration asks.
        CheckpointError: if the checkpoint is of another configuration.
    """
    choices = choose_engines(config, world=world)
    generator, discriminator = build_networks(config, num_classes=num_classes, dtype=dtype, device=device)
    average = copy.deepcopy(generator).requires_grad_(False).eval()
    if checkpoint is not None:
        # Before the engines, which may shard what they are given.
        checkpoint.restore_networks(generator=generator, discriminator=discriminator, generator_ema=average)
    loss = adversarial_loss(config.objective.loss)
    modes: dict[str, PenaltyMode] = {p.kind: PenaltyMode(p.mode, p.sigma) for p in config.penalties}
    objectives = {
        "generator": GeneratorObjective(generator, discriminator=discriminator, loss=loss),
        "discriminator": DiscriminatorObjective(discriminator, loss=loss, modes=modes),
    }
    engines = {
        network: build_engine(config, network, objective, choice=choices[network], device=torch.device(device))
        for network, objective in objectives.items()
    }
    state = TrainState(
        generator, discriminator, average, engines["generator"], engines["discriminator"], ScheduleState()
    )
    if checkpoint is not None:
        checkpoint.restore_progress(state)
    return state
