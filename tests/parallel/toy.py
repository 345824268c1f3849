"""A small GAN that every engine can train, on one rank or several, with the training step of the package."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastgan import rng
from fastgan.data import Batch
from fastgan.dist import ALONE, World, world_from_environment
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import (
    DiscriminatorObjective,
    EnsembleGeneratorObjective,
    GeneratorObjective,
    ObjectiveOutput,
    Opponent,
    PenaltyMode,
    adversarial_loss,
)
from fastgan.parallel import Engine, EngineChoice, make_engine
from fastgan.parallel.pieces import named_tensors
from fastgan.parallel.zero_config import deepspeed_settings
from fastgan.schedule import Alternate, Balance, Joint, LazyPenalty, Policy, ScheduleState
from fastgan.train.agreement import Agreement
from fastgan.train.checkpoint import Checkpoint
from fastgan.train.config import EmaConfig
from fastgan.train.state import Member, TrainState
from fastgan.train.step import TrainStep
from fastgan.train.step_choice import step_class
from tests.parallel.ranks import COLLECTIVE_TIMEOUT_SECONDS

BATCH_IMAGES = 12
LATENT_DIM = 4
SINGLE = EngineChoice("single")


@dataclass(frozen=True)
class Case:
    """One way of training the toy."""

    discriminator: EngineChoice = SINGLE
    generator: EngineChoice = SINGLE
    penalties: tuple[str, ...] = ()
    mode: str = "double"
    path_penalty: bool = False
    micro_batch_images: int | None = None
    optimizer: str = "sgd"
    share_fakes: bool = True
    loss: str = "non_saturating"
    num_steps: int = 5
    spectral_norm: bool = True
    overlap: bool = False
    discriminator_updates: int = 1
    generator_updates: int = 1
    policy: str = "alternate"
    shares: tuple[int, ...] | None = None
    # Engines of two discriminators beside the first, and how the generator's losses are combined.
    members: tuple[EngineChoice, ...] = ()
    combination: str = "mean"


class PathObjective(GeneratorObjective):
    """Adds a penalty of second order on the generator: the squared slope of a random projection of the images."""

    def forward(
        self, latents: Tensor, labels: Tensor | None = None, *, real: Tensor | None = None, fake: Tensor | None = None
    ) -> ObjectiveOutput:
        output = super().forward(latents, labels, real=real, fake=fake)
        inputs = latents.detach().requires_grad_()
        images = self.generator(inputs)
        ramp = torch.linspace(-0.1, 0.1, images[0].numel()).reshape(images.shape[1:])
        (slope,) = torch.autograd.grad((images * ramp).sum(), inputs, create_graph=True)
        return ObjectiveOutput(output.loss + 0.1 * slope.square().sum(dim=1).mean(), output.statistics)


class NumberedImages:
    """A loader whose image i is a function of i, with labels left out."""

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        pixels = rng.uniform(7, "image", first_sample, num_samples, 32 * 32) * 2 - 1
        return Batch(torch.from_numpy(pixels).reshape(num_samples, 1, 32, 32), None, first_sample)

    def prefetch(self, first_sample: int, num_samples: int) -> None:
        """Nothing is decoded."""


def networks(case: Case) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    torch.manual_seed(0)
    generator = DCGANGenerator(
        resolution=32,
        image_channels=1,
        latent_dim=LATENT_DIM,
        channels=2,
        max_channels=4,
        # Two channels normalised by their length jump where both are near zero: too steep for a path penalty.
        normalization="none" if case.path_penalty else "pixel",
    )
    discriminator = DCGANDiscriminator(
        resolution=32, image_channels=1, channels=2, max_channels=4, spectral_norm=case.spectral_norm
    )
    return generator, discriminator


def make_optimizer(name: str) -> Any:
    if name == "sgd":
        return lambda module: torch.optim.SGD(module.parameters(), lr=0.002)
    # A larger eps than usual: Adam divides rounding by rounding where a gradient is nearly zero.
    return lambda module: torch.optim.Adam(module.parameters(), lr=2e-4, betas=(0.5, 0.99), eps=1e-3, fused=True)


def build(case: Case, checkpoint: Checkpoint | None = None) -> TrainState:
    generator, discriminator = networks(case)
    average = copy.deepcopy(generator).requires_grad_(False)
    if checkpoint is not None:
        checkpoint.restore_networks({"generator": generator, "discriminator": discriminator, "generator_ema": average})
    loss = adversarial_loss(case.loss)
    others = [
        DCGANDiscriminator(resolution=32, image_channels=1, channels=size, max_channels=4)
        for size in range(2, 2 + len(case.members))
    ]
    judges = {"main": discriminator, **{f"member{index}": judge for index, judge in enumerate(others)}}
    # A wide step, since differences are divided by it.
    modes = {kind: PenaltyMode(case.mode, sigma=0.5) for kind in case.penalties}
    opponents = {name: Opponent(judge, loss) for name, judge in judges.items()}
    objective: nn.Module = (PathObjective if case.path_penalty else GeneratorObjective)(
        generator, discriminator=discriminator, loss=loss
    )
    if case.members:
        objective = EnsembleGeneratorObjective(generator, opponents=opponents, combination=case.combination)
    state = TrainState(
        generator=generator,
        discriminator=discriminator,
        generator_ema=average,
        generator_engine=engine(case.generator, objective, case=case),
        discriminator_engine=engine(
            case.discriminator, DiscriminatorObjective(discriminator, loss=loss, modes=modes), case=case
        ),
        schedule=ScheduleState(),
    )
    for (name, judge), choice in zip(list(judges.items())[1:], case.members, strict=True):
        its_engine = engine(choice, DiscriminatorObjective(judge, loss=loss), case=case)
        state.members[name] = Member(judge, its_engine, (LazyPenalty("r1", 0.5, every=2),))
    if checkpoint is not None:
        checkpoint.restore_progress(state)
    return state


def engine(choice: EngineChoice, objective: nn.Module, *, case: Case) -> Engine:
    # DeepSpeed would keep weights as few as these whole.
    small = {"zero_optimization": {"stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 0}}
    settings = deepspeed_settings(choice.stage, small, on_warning=print) if choice.kind == "deepspeed" else None
    return make_engine(
        choice,
        objective,
        make_optimizer=make_optimizer(case.optimizer),
        device=torch.device("cpu"),
        timeout_seconds=COLLECTIVE_TIMEOUT_SECONDS,
        overlap=case.overlap,
        deepspeed=settings,
    )


def world_of(case: Case) -> World:
    return ALONE if case.discriminator.kind == "single" else world_from_environment()


def schedule_of(case: Case, world: World) -> Policy:
    common = {
        "batch_images": BATCH_IMAGES,
        "micro_batch_images": case.micro_batch_images,
        "penalties": tuple(LazyPenalty(kind, 0.5) for kind in case.penalties),
        "num_ranks": world.num_ranks,
        "shares": case.shares or "equal",
    }
    if case.policy == "joint":
        return Joint(**common)
    if case.policy == "balance":
        return Balance(**common, share_fakes=case.share_fakes, patience=1, low_percent=99, high_percent=100)
    return Alternate(
        **common,
        share_fakes=case.share_fakes,
        discriminator_updates=case.discriminator_updates,
        generator_updates=case.generator_updates,
    )


def train_steps(state: TrainState, case: Case, *, loader: Any = None) -> list[dict[str, float]]:
    """Trains `state` for `case.num_steps` steps; the statistics of each, over all ranks."""
    world = world_of(case)
    schedule = schedule_of(case, world)
    step = step_class(schedule)(
        state,
        loader=loader or NumberedImages(),
        seed=0,
        latent_dim=LATENT_DIM,
        ema=EmaConfig(half_life_images=24, rampup=None),
        device="cpu",
        agreement=Agreement(world),
        overlap=case.overlap,
        num_drawn=2 if case.combination == "random" else None,
    )
    records = []
    for _ in range(case.num_steps):
        plan = schedule.plan(state.schedule, world.rank)
        statistics = step.run(plan)
        agreed = Agreement(world).agree(plan, statistics, None)
        state.schedule = schedule.advance(state.schedule, agreed)
        if len(records) + 1 == case.num_steps:
            step.finish(statistics)
        records.append(statistics.read(world))
    return records


def inputs_seen(case: Case) -> list[np.ndarray[Any, Any]]:
    """Images and latents of this rank, in the order of its micro-batches, over all steps."""
    world = world_of(case)
    schedule, state = schedule_of(case, world), ScheduleState()
    step = TrainStep(
        build(case),
        loader=NumberedImages(),  # type: ignore[arg-type]
        seed=0,
        latent_dim=LATENT_DIM,
        ema=EmaConfig(half_life_images=24, rampup=None),
        device="cpu",
    )
    seen = []
    for _ in range(case.num_steps):
        for update in schedule.plan(state, world.rank).updates:
            inputs = [step._inputs(micro) for micro in update.micro_batches]
            seen += [
                torch.cat([i.real.flatten(1) for i in inputs]).numpy(),
                torch.cat([i.latents for i in inputs]).numpy(),
            ]
        state = schedule.advance(state)
    return seen


def whole_weights(state: TrainState) -> dict[str, np.ndarray[Any, Any]]:
    """Weights and buffers of the three networks."""
    weights = {}
    for name, (network, its_engine) in state.trained.items():
        with its_engine.gathered():
            weights |= _arrays(name, network)
    return weights | _arrays("generator_ema", state.generator_ema)


def _arrays(name: str, network: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {f"{name}.{key}": value.clone().numpy() for key, value in named_tensors(network).items()}


def trained(case: Case) -> tuple[dict[str, np.ndarray[Any, Any]], list[dict[str, float]]]:
    """Weights after training, and the statistics of each step."""
    state = build(case)
    records = train_steps(state, case)
    return whole_weights(state), records


def alone(case: Case) -> Case:
    """The same training on one rank, with whole batches."""
    members = tuple(SINGLE for _ in case.members)
    return replace(case, discriminator=SINGLE, generator=SINGLE, members=members, micro_batch_images=None, shares=None)


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Over all networks: the largest |a - b|, relative to the largest |b| of the network."""
    assert ours.keys() == theirs.keys()
    differences = []
    for network in {name.partition(".")[0] for name in theirs}:
        names = [name for name in theirs if name.partition(".")[0] == network and "spectral_norm" not in name]
        scale = max(np.abs(theirs[name]).max() for name in names)
        differences.append(max(np.abs(ours[name] - theirs[name]).max() for name in names) / scale)
    return float(max(differences))
