"""From a configuration to networks and engines."""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from fastgan import rng
from fastgan.dist import ALONE, World
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import (
    DiscriminatorObjective,
    EnsembleGeneratorObjective,
    GeneratorObjective,
    Opponent,
    PenaltyMode,
    adversarial_loss,
)
from fastgan.parallel import Engine, EngineChoice
from fastgan.parallel.replica import ReplicaEngine
from fastgan.schedule import LazyPenalty, ScheduleState
from fastgan.train.build_engines import build_engine, choose_engines
from fastgan.train.checkpoint import Checkpoint
from fastgan.train.config import FIRST_DISCRIMINATOR, DataConfig, DiscriminatorConfig, PenaltyConfig, RunConfig
from fastgan.train.log import say
from fastgan.train.roles import Roles
from fastgan.train.state import Member, TrainState

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
    generator = config.generator
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
        judge = _make_discriminator(config.data, config.discriminator, num_classes=num_classes, dtype=dtype)
    for network in (made, judge):
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made, judge


def build_members(
    config: RunConfig, *, num_classes: int, dtype: torch.dtype, device: torch.device | str
) -> dict[str, DCGANDiscriminator]:
    """The discriminators beside the first, by name; fresh weights depend on `config.seed` and on the name."""
    built = {}
    for member in config.ensemble.members:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(config.seed, f"discriminator/{member.name}", 0, 1, high=1 << 31)[0]))
            network = _make_discriminator(config.data, member.network, num_classes=num_classes, dtype=dtype)
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        built[member.name] = network
    return built


def _make_discriminator(
    data: DataConfig, network: DiscriminatorConfig, *, num_classes: int, dtype: torch.dtype
) -> DCGANDiscriminator:
    return ARCHITECTURES[network.architecture][1](
        resolution=data.resolution,
        image_channels=data.channels,
        channels=network.channels,
        max_channels=network.max_channels,
        spectral_norm=network.spectral_norm,
        spectral_norm_iterations=network.spectral_norm_iterations,
        num_classes=num_classes,
        dtype=dtype,
    )


def build_state(
    config: RunConfig,
    *,
    num_classes: int,
    dtype: torch.dtype,
    device: torch.device | str,
    world: World = ALONE,
    roles: Roles | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainState:
    """The state of a run: as `checkpoint` has it, or one that has not seen an image.

    Args:
        roles: of `split`: what this rank only reads gets no optimizer.
    Raises:
        ConfigError: if an engine cannot do what the configuration asks.
        CheckpointError: if the checkpoint is of another configuration.
    """
    choices = choose_engines(config, world=world, roles=roles)
    generator, discriminator = build_networks(config, num_classes=num_classes, dtype=dtype, device=device)
    members = build_members(config, num_classes=num_classes, dtype=dtype, device=device)
    judges = {"discriminator": discriminator} | {f"discriminator-{name}": judge for name, judge in members.items()}
    average = copy.deepcopy(generator).requires_grad_(False).eval()
    if checkpoint is not None:
        # Before the engines, which may shard what they are given.
        checkpoint.restore_networks({"generator": generator, "generator_ema": average, **judges})
    engines = _build_engines(config, generator, judges, choices=choices, device=torch.device(device), roles=roles)
    state = TrainState(
        generator, discriminator, average, engines["generator"], engines["discriminator"], ScheduleState(), roles=roles
    )
    for member in config.ensemble.members:
        engine = engines[f"discriminator-{member.name}"]
        state.members[member.name] = Member(members[member.name], engine, _lazy(member.penalties))
    if checkpoint is not None:
        checkpoint.restore_progress(state)
    if roles is not None:
        _enter(roles, state, checkpoint)
    return state


def _build_engines(
    config: RunConfig,
    generator: nn.Module,
    judges: Mapping[str, DCGANDiscriminator],
    *,
    choices: Mapping[str, EngineChoice],
    device: torch.device,
    roles: Roles | None,
) -> dict[str, Engine]:
    """By the names in `sides`; one that trains nothing around the network that this rank only reads."""
    engines: dict[str, Engine] = {}
    group = None if roles is None else roles.own.group
    for name, objective in _objectives(config, generator, judges).items():
        if roles is not None and name == roles.other:
            engines[name] = ReplicaEngine(generator if name == "generator" else judges[name])
        else:
            engines[name] = build_engine(config, name, objective, choice=choices[name], device=device, group=group)
    return engines


def _enter(roles: Roles, state: TrainState, checkpoint: Checkpoint | None) -> None:
    """Prepares what travels between the roles, and drops the average where it is not made."""
    roles.open_channels({"discriminator": state.discriminator, "generator": state.generator})
    if roles.role == "discriminator":
        state.generator_ema.to("meta")
    if checkpoint is not None and not roles.restore(state.schedule, checkpoint.published):
        say("the checkpoint lacks older weights that this split would read: both roles go on from the newest ones")


def _objectives(
    config: RunConfig, generator: nn.Module, judges: Mapping[str, DCGANDiscriminator]
) -> dict[str, nn.Module]:
    """The objective of each network, by its name in `sides`."""
    first = (config.objective.loss, config.penalties)
    settings = [first, *((member.loss, member.penalties) for member in config.ensemble.members)]
    objectives: dict[str, nn.Module] = {}
    opponents = {}
    for (name, judge), (loss_name, penalties) in zip(judges.items(), settings, strict=True):
        loss = adversarial_loss(loss_name)
        modes: dict[str, PenaltyMode] = {p.kind: PenaltyMode(p.mode, p.sigma) for p in penalties}
        objectives[name] = DiscriminatorObjective(judge, loss=loss, modes=modes)
        opponents[name.partition("-")[2] or FIRST_DISCRIMINATOR] = Opponent(judge, loss)
    if len(opponents) == 1:
        (opponent,) = opponents.values()
        objective: nn.Module = GeneratorObjective(generator, discriminator=opponent.discriminator, loss=opponent.loss)
    else:
        combination = config.ensemble.combination
        objective = EnsembleGeneratorObjective(generator, opponents=opponents, combination=combination)
    return {"generator": objective, **objectives}


def _lazy(penalties: Iterable[PenaltyConfig]) -> tuple[LazyPenalty, ...]:
    return tuple(LazyPenalty(penalty.kind, penalty.weight, penalty.every) for penalty in penalties)
