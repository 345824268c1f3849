"""Training steps as providers: fastgan's, the usual one, and the usual one with one improvement after the other.

Shape legend: N batch, Z latent size, C channels, R resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.baselines.usual_step import UsualStep, Variant
from benchmarks.harness import Provider, Run
from benchmarks.machine import require_bf16
from fastgan.data import Batch
from fastgan.train.build import build_networks, build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import RunConfig
from fastgan.train.precision import DTYPES
from fastgan.train.step_choice import step_class

USUAL = {
    "usual": Variant(),
    "usual, D frozen, fakes shared": Variant(freeze_and_share=True),
    "the same, channels_last": Variant(freeze_and_share=True, channels_last=True),
    "the same, autocast bf16": Variant(freeze_and_share=True, channels_last=True, autocast=True),
}
FASTGAN = {"fastgan fp32": "fp32", "fastgan bf16": "bf16"}
NAMES = (*USUAL, *FASTGAN)

_NUM_BATCHES = 8
# A period longer than this would make a sample of the clock too long.
_MAX_PERIOD = 16


class RandomImages:
    """Stands for a loader: a few batches of random images, made once, so that the step alone is measured."""

    def __init__(self, config: RunConfig, device: torch.device, memory_format: torch.memory_format) -> None:
        size = config.batch_images, config.data.channels, config.data.resolution, config.data.resolution
        generator = torch.Generator().manual_seed(config.seed)
        self._batches = [
            (torch.rand(size, generator=generator) * 2 - 1).to(device=device, memory_format=memory_format)
            for _ in range(_NUM_BATCHES)
        ]
        self._batch_images = config.batch_images
        self._num_batches_drawn = 0

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        """Part of the next batch: the samples that stand there in every batch of `batch_images`."""
        images = self.draw()
        first = first_sample % len(images)
        return Batch(images[first : first + num_samples], None, first_sample)

    def draw(self) -> Tensor:
        """The next batch [N, C, R, R] in [-1, 1]."""
        self._num_batches_drawn += 1
        return self._batches[self._num_batches_drawn % _NUM_BATCHES]


def steps_per_period(config: RunConfig) -> int:
    """Steps after which the lazy penalties repeat: a sample of the clock must hold whole periods.

    Raises:
        ValueError: if the period is too long to measure.
    """
    period = math.lcm(1, *(penalty.every for penalty in config.penalties))
    if period > _MAX_PERIOD:
        raise ValueError(f"penalties repeat every {period} updates, more than {_MAX_PERIOD}; choose other intervals")
    return period


def make_provider(name: str, config: RunConfig, device: torch.device) -> Provider:
    """The provider called `name`, one of NAMES: a call of its run makes one period of steps."""
    if name in FASTGAN:
        return fastgan_provider(name, config, device, precision=FASTGAN[name])
    variant = USUAL[name]
    precision = "bf16" if variant.autocast else "fp32"
    return _provider(name, lambda: usual_run(config, device, variant=variant), device, precision=precision)


def fastgan_provider(name: str, config: RunConfig, device: torch.device, *, precision: str) -> Provider:
    """fastgan's step under any name."""
    return _provider(name, lambda: fastgan_run(config, device, precision=precision), device, precision=precision)


def _provider(name: str, build: Callable[[], Run], device: torch.device, *, precision: str) -> Provider:
    def build_if_sensible() -> Run:
        if precision == "bf16":
            require_bf16(device)
        return build()

    # A step draws its own inputs; those of the case serve the comparison with float64 only.
    return Provider(
        name,
        build=build_if_sensible,
        check=lambda run, inputs: run.outputs(*inputs),
        dtype=precision,
    )


class _Period:
    """One period of steps, and the networks' outputs on given inputs."""

    def __init__(self, step: Callable[[], object], num_steps: int, outputs: Callable[..., Sequence[Tensor]]) -> None:
        self._step, self._num_steps, self.outputs = step, num_steps, outputs

    def __call__(self, *unused: Tensor) -> Sequence[Tensor]:
        del unused
        for _ in range(self._num_steps):
            self._step()
        return ()


def fastgan_run(config: RunConfig, device: torch.device, *, precision: str) -> Run:
    """fastgan's step as its training loop runs it, apart from reading data and writing logs."""
    state = build_state(config, num_classes=0, dtype=DTYPES[precision], device=device)
    images = RandomImages(config, device, torch.channels_last)
    schedule = build_schedule(config)
    step = step_class(schedule)(
        state,
        loader=images,
        seed=config.seed,
        latent_dim=config.generator.latent_dim,
        ema=config.ema,
        device=device,
    )

    def make_step() -> None:
        step.run(schedule.plan(state.schedule))
        state.schedule = schedule.advance(state.schedule)

    @torch.no_grad()
    def outputs(latents: Tensor, real: Tensor) -> Sequence[Tensor]:
        return state.generator(latents), state.discriminator(real)

    return _Period(make_step, steps_per_period(config), outputs)


def usual_run(config: RunConfig, device: torch.device, *, variant: Variant) -> Run:
    """The usual step on copies of the same networks; its latents come from torch's generator on the device."""
    images = RandomImages(config, device, torch.contiguous_format)
    shape = config.batch_images, config.generator.latent_dim
    step = UsualStep(
        config,
        *build_networks(config, device=device),
        draw_images=images.draw,
        draw_latents=lambda: torch.randn(shape, device=device),
        variant=variant,
    )

    @torch.no_grad()
    def outputs(latents: Tensor, real: Tensor) -> Sequence[Tensor]:
        networks = step.generator.eval(), step.discriminator.eval()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=variant.autocast):
            found = networks[0](latents), networks[1](real)
        for network in networks:
            network.train()
        return found

    return _Period(step.run, steps_per_period(config), outputs)
