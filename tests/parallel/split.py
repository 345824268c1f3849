"""Runs of `split` on ranks, and the same training by a plain loop in one process."""

import copy
import gc
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.parallel_worker import living_tensor_bytes
from fastgan import rng
from fastgan.data import Batch
from fastgan.dist import explained, world_from_environment
from fastgan.errors import FastganError
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import DiscriminatorObjective, GeneratorObjective, adversarial_loss
from fastgan.parallel import Engine, EngineChoice
from fastgan.parallel.pieces import named_tensors
from fastgan.parallel.publish import FlatCopy
from fastgan.parallel.replica import ReplicaEngine
from fastgan.schedule import LazyPenalty, ScheduleState, Split
from fastgan.train.config import EmaConfig
from fastgan.train.roles import Roles, make_roles
from fastgan.train.split_step import SplitStep
from fastgan.train.state import TrainState
from fastgan.train.step import frozen
from fastgan.train.step_choice import make_agreement
from fastgan.train.step_statistics import Statistics
from tests.parallel import toy
from tests.parallel.ranks import COLLECTIVE_TIMEOUT_SECONDS
from tests.parallel.toy import BATCH_IMAGES, LATENT_DIM, Case, NumberedImages
from tests.train.test_dirac import Psi, Theta, Zeros

EMA = EmaConfig(half_life_images=24, rampup=None)
TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True)
class SplitCase:
    """A policy and how the toy is trained under it."""

    policy: Split
    engine: str = "auto"
    num_steps: int = 7
    # Of plain gradient descent; None for Adam.
    rate: float | None = None
    # Seconds that the ranks of a role sleep in every step, and what happens to ranks: a rank and a step.
    sleep: dict[str, float] = field(default_factory=dict)
    killed: tuple[int, int] | None = None
    interrupted: tuple[int, int] | None = None
    nan_image: int | None = None


def policy_of(num_ranks: int, discriminator_ranks: int, **settings: Any) -> Split:
    settings = {"batch_images": BATCH_IMAGES, "penalties": (LazyPenalty("r1", 0.5, 2),)} | settings
    return Split(num_ranks=num_ranks, discriminator_ranks=discriminator_ranks, **settings)


class Images(NumberedImages):
    """As numbered images, one of which may be NaN."""

    def __init__(self, nan_image: int | None) -> None:
        self.nan_image = nan_image

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        batch = super().batch(first_sample, num_samples)
        if self.nan_image is not None and first_sample <= self.nan_image < first_sample + num_samples:
            batch.images[self.nan_image - first_sample] = torch.nan
        return batch


def build(case: SplitCase, networks: tuple[nn.Module, nn.Module] | None = None) -> TrainState:
    """This rank's state, as `build_state` makes it."""
    roles = make_roles(case.policy, world_from_environment(), timeout_seconds=TIMEOUT_SECONDS)
    generator, discriminator = networks or toy.networks(Case())
    average = copy.deepcopy(generator).requires_grad_(False)
    loss = adversarial_loss("non_saturating")
    objectives = {
        "generator": GeneratorObjective(generator, discriminator=discriminator, loss=loss),
        "discriminator": DiscriminatorObjective(discriminator, loss=loss),
    }
    engines: dict[str, Engine] = {
        roles.role: _engine(case, objectives[roles.role], roles),
        roles.other: ReplicaEngine(generator if roles.other == "generator" else discriminator),
    }
    del objectives
    roles.open_channels({"generator": generator, "discriminator": discriminator})
    if roles.role == "discriminator":
        average.to("meta")
    return TrainState(
        generator,  # type: ignore[arg-type]
        discriminator,  # type: ignore[arg-type]
        average,  # type: ignore[arg-type]
        engines["generator"],
        engines["discriminator"],
        ScheduleState(),
        roles=roles,
    )


def _engine(case: SplitCase, objective: nn.Module, roles: Roles) -> Engine:
    kind = case.engine if case.engine != "auto" else ("ddp" if roles.own.num_ranks > 1 else "single")
    return toy.make_engine(
        EngineChoice(kind),
        objective,
        make_optimizer=toy.make_optimizer("adam") if case.rate is None else partial(_descent, rate=case.rate),
        device=torch.device("cpu"),
        timeout_seconds=COLLECTIVE_TIMEOUT_SECONDS,
        group=roles.own.group,
    )


def _descent(objective: nn.Module, *, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(objective.parameters(), lr=rate)


def train(case: SplitCase, state: TrainState, loader: Any = None, *, latent_dim: int = LATENT_DIM) -> dict[str, Any]:
    """Trains and says what this rank has seen."""
    assert state.roles is not None
    rank, role = dist.get_rank(), state.roles.role
    received = {"signal": 0}
    agreement = make_agreement(state.roles.everybody, state.roles, signal=lambda: received["signal"])
    step = SplitStep(
        state,
        loader=loader or Images(case.nan_image),
        seed=0,
        latent_dim=latent_dim,
        ema=EMA,
        device="cpu",
        agreement=agreement,
    )
    statistics, found = Statistics(), {"rank": rank, "role": role, "path": []}
    for number in range(case.num_steps):
        if case.killed == (rank, number):
            os.kill(os.getpid(), signal.SIGKILL)
        if case.interrupted == (rank, number):
            received["signal"] = 15
        time.sleep(case.sleep.get(role, 0.0))
        statistics.merge(step.run(case.policy.plan(state.schedule, rank)))
        state.schedule = case.policy.advance(state.schedule)
        trained = state.generator if role == "generator" else state.discriminator
        found["path"].append([value.item() for value in trained.parameters() if value.dim() == 0])
        if agreement.signal:
            break
    step.meet(statistics)
    return found | {
        "stopped_at": state.schedule.step,
        "reads": step.pop_reads(),
        "skipped": agreement.num_skipped,
        "statistics": statistics.read(state.roles.own),
    }


def trained(case: SplitCase) -> dict[str, Any]:
    """What this rank has seen, and the weights that it trains, with their average."""
    state = build(case)
    found = train(case, state)
    names = ("generator", "generator_ema") if found["role"] == "generator" else ("discriminator",)
    weights = {f"{n}.{key}": v.numpy().copy() for n in names for key, v in named_tensors(getattr(state, n)).items()}
    return found | {"weights": weights}


def dirac_path(case: SplitCase) -> list[float]:
    """The one number that this rank trains, after each step."""
    state = build(case, (Theta(), Psi()))
    return [number for (number,) in train(case, state, Zeros(), latent_dim=1)["path"]]


def trained_until_a_death(case: SplitCase) -> None:
    """Raises what a run would raise, unless that took longer than the timeout; its connections end with it."""
    start = time.monotonic()
    try:
        with explained(world_from_environment(), timeout_seconds=TIMEOUT_SECONDS):
            trained(case)
    finally:
        dist.destroy_process_group()
        assert time.monotonic() - start < TIMEOUT_SECONDS


def tampered(case: SplitCase) -> str:
    """How training ends on ranks that publish another version than the plan says."""
    state = build(case)
    ordinary = FlatCopy.fill

    def fill(flat: FlatCopy, tensors: Mapping[str, Tensor], *, step: int, version: int) -> None:
        ordinary(flat, tensors, step=step, version=version + (step == 3))

    try:
        with mock.patch.object(FlatCopy, "fill", fill):
            train(case, state)
    except (FastganError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "trained"


def another_plan(case: SplitCase) -> str:
    """How training ends on ranks one of which counts one more latent."""
    state = build(case)
    if dist.get_rank() == 0:
        state.schedule = replace(state.schedule, next_latent=1)
    try:
        train(case, state)
    except (FastganError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "trained"


def kept_bytes(case: SplitCase) -> dict[str, int]:
    """Bytes of the tensors that live on this rank after some steps, and of the weights of each network."""
    gc.collect()
    before = living_tensor_bytes()
    sizes = {"resolution": 32, "image_channels": 1, "channels": 16, "max_channels": 64}
    state = build(case, (DCGANGenerator(latent_dim=LATENT_DIM, **sizes), DCGANDiscriminator(**sizes)))
    assert state.roles is not None
    networks = {"generator": state.generator, "discriminator": state.discriminator}
    other = networks[state.roles.other]
    train(case, state)
    gc.collect()
    return {
        "kept": living_tensor_bytes() - before,
        **{f"buffers of {name}": len(c._free) + len(c._underway) for name, c in state.roles.channels.items()},
        "trained_of_other": sum(p.requires_grad or p.grad is not None for p in other.parameters()),
        **{name: sum(v.numel() * 4 for v in named_tensors(network).values()) for name, network in networks.items()},
    }


def by_hand(policy: Split, *, num_steps: int) -> dict[str, np.ndarray[Any, Any]]:
    """Weights after the same training in one process, written with nothing but torch and the two networks."""
    generator, discriminator = toy.networks(Case())
    average = copy.deepcopy(generator)
    optimizers = [toy.make_optimizer("adam")(network) for network in (generator, discriminator)]
    history: list[tuple[nn.Module, nn.Module]] = []
    loader, size = NumberedImages(), policy.batch_images
    for number in range(num_steps):
        history.append((copy.deepcopy(generator), copy.deepcopy(discriminator)))
        every = policy.publish_every
        read = max(0, (number - policy.delay_steps) // every * every)
        old_generator, old_discriminator = history[read]
        real = loader.batch(number * size, size).images.requires_grad_()
        with torch.no_grad():
            fake = old_generator(_latents(2 * number * size, size))
        real_logits = discriminator(real)
        loss = F.softplus(-real_logits).mean() + F.softplus(discriminator(fake)).mean()
        if number % 2 == 0:
            (slope,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            loss = loss + 2 * 0.5 * slope.square().sum(dim=(1, 2, 3)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        with frozen(old_discriminator):
            images = generator(_latents((2 * number + 1) * size, size))
            F.softplus(-old_discriminator(images)).mean().backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        discriminator.step_spectral_norm()
        for old, new in zip(average.parameters(), generator.parameters(), strict=True):
            old.data.lerp_(new.data, 1 - 0.5 ** (size / 24))
    networks = {"generator": generator, "discriminator": discriminator, "generator_ema": average}
    return {f"{n}.{key}": v.numpy() for n, network in networks.items() for key, v in named_tensors(network).items()}


def _latents(first: int, number: int) -> Tensor:
    return torch.from_numpy(rng.normal(0, "latent", first, number, LATENT_DIM))
