"""A rank whose images or losses are not finite, and one that follows another plan."""

from dataclasses import replace
from itertools import count
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from fastgan.data import Batch
from fastgan.objectives import DiscriminatorObjective, GeneratorObjective, ObjectiveOutput
from fastgan.parallel import Engine
from fastgan.train.agreement import Agreement
from fastgan.train.step import TrainStep
from fastgan.train.step_statistics import Statistics
from tests.parallel import toy
from tests.parallel.toy import Case, NumberedImages


class BadImages(NumberedImages):
    """Sample 30, which only the last rank sees, is NaN; with `all_bad` every sample from there on."""

    def __init__(self, all_bad: bool) -> None:
        self.all_bad = all_bad

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        batch = super().batch(first_sample, num_samples)
        numbers = torch.arange(first_sample, first_sample + num_samples)
        is_bad = (numbers >= 30) & (numbers % 12 >= 6) if self.all_bad else numbers == 30
        batch.images[is_bad] = torch.nan
        return batch


def train_with_nan(case: Case, all_bad: bool) -> dict[str, Any]:
    """Counts and weights after training."""
    state, world = toy.build(case), toy.world_of(case)
    schedule, agreement = toy.schedule_of(case, world), Agreement(world)
    step = TrainStep(
        state,
        loader=BadImages(all_bad),  # type: ignore[arg-type]
        seed=0,
        latent_dim=toy.LATENT_DIM,
        ema=toy.EmaConfig(half_life_images=24, rampup=None),
        device="cpu",
        agreement=agreement,
        overlap=case.overlap,
    )
    skipped, records = [], []
    for _ in range(case.num_steps):
        records.append(step.run(schedule.plan(state.schedule, world.rank)).read(world))
        state.schedule = schedule.advance(state.schedule)
        skipped.append(agreement.num_skipped)
    step.finish(Statistics())
    return {"rank": dist.get_rank(), "skipped": skipped, "records": records, "weights": toy.whole_weights(state)}


def votes_with_infinite_loss(case: Case, objective: type[DiscriminatorObjective | GeneratorObjective]) -> list[bool]:
    """Whether each update was made, where the third loss of `objective` is infinite on the last rank.

    Its gradient is the ordinary one, as that of a loss that is infinite by a logit where it is flat.
    """
    votes, calls, ordinary = [], count(1), objective.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> ObjectiveOutput:
        output = ordinary(self, *args, **kwargs)
        is_bad = next(calls) == 3 and dist.get_rank() == dist.get_world_size() - 1
        return output._replace(loss=output.loss + torch.inf) if is_bad else output

    class Noting(Agreement):
        def may_step(self, *engines: Engine) -> bool:
            votes.append(super().may_step(*engines))
            return votes[-1]

    with mock.patch.object(objective, "forward", forward), mock.patch.object(toy, "Agreement", Noting):
        toy.trained(case)
    return votes


def train_with_other_latents(case: Case) -> None:
    """The last rank takes latents that belong to a later step, as after resuming from another checkpoint."""
    state, world = toy.build(case), toy.world_of(case)
    if world.rank == world.num_ranks - 1:
        state.schedule = replace(state.schedule, next_latent=12)
    toy.train_steps(state, case)
