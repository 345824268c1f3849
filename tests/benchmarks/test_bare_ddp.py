"""The bare DDP loop trains what fastgan's step under DDP trains, to the last bit."""

import pytest
import torch

from benchmarks.baselines.bare_ddp import BareDdpStep
from benchmarks.step_providers import RandomImages
from fastgan.train.build import build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import load_config
from fastgan.train.step import TrainStep
from tests.guards.test_performance import group_of_one

CPU = torch.device("cpu")
SMALL = ["batch_images=4", "generator.channels=2", "discriminator.channels=2", "discriminator.spectral_norm=true"]
SMALL += ["penalties=[{kind: r1, weight: 1.0, every: 2}]", "parallel.engine=ddp"]


# A weight of one channel has strides that can be read in two ways.
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
def test_both_train_the_same() -> None:
    config = load_config("digits", overrides=SMALL)
    with group_of_one(is_needed=True) as world:
        images = RandomImages(config, CPU, torch.channels_last)
        bare = BareDdpStep(
            config, world=world, draw_images=lambda first, number: images.batch(first, number).images, device=CPU
        )
        state = build_state(config, num_classes=0, dtype=torch.float32, device=CPU, world=world)
        loader = RandomImages(config, CPU, torch.channels_last)
        step = TrainStep(
            state, loader=loader, seed=config.seed, latent_dim=config.generator.latent_dim, ema=config.ema, device=CPU
        )
        schedule = build_schedule(config)
        for _ in range(3):
            bare.run()
            step.run(schedule.plan(state.schedule))
            state.schedule = schedule.advance(state.schedule)
        for name in ("generator", "discriminator", "generator_ema"):
            pairs = zip(getattr(bare.state, name).parameters(), getattr(state, name).parameters(), strict=True)
            assert all(torch.equal(ours, theirs) for ours, theirs in pairs), name


def test_more_than_it_does_is_refused() -> None:
    config = load_config("digits", overrides=[*SMALL, "schedule.discriminator_updates=2"])
    with group_of_one(is_needed=True) as world, pytest.raises(ValueError, match="one update of each network"):
        BareDdpStep(config, world=world, draw_images=lambda first, number: torch.zeros(1), device=CPU)
