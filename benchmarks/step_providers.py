"""Training steps as providers: fastgan's, the usual one, and the usual one with one improvement after the other.

Before it is timed, each makes its first steps on the same images and latents from the same weights as the usual step in
float64, and must do the same to them.

Shape legend: N batch, Z latent size, C channels, R resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.baselines.usual_networks import left_vectors, trained_parameters
from benchmarks.baselines.usual_step import UsualStep, Variant
from benchmarks.harness import Provider, Run
from benchmarks.machine import require_bf16
from benchmarks.step_check import train
from fastgan import rng
from fastgan.data import Batch
from fastgan.nn import SpectralNorm
from fastgan.parallel import SingleEngine
from fastgan.schedule import Joint, Plan
from fastgan.train.build import build_networks, build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import RunConfig
from fastgan.train.precision import DTYPES
from fastgan.train.step_choice import step_class
from fastgan.train.step_statistics import Statistics

_SHARED = Variant(freeze_and_share=True)
_CHANNELS_LAST = _SHARED._replace(channels_last=True)
_AUTOCAST = _CHANNELS_LAST._replace(autocast=True)
USUAL = {
    "usual": Variant(),
    "usual, D frozen, fakes shared": _SHARED,
    "the same, channels_last": _CHANNELS_LAST,
    "the same, autocast bf16": _AUTOCAST,
}
FASTGAN = {"fastgan fp32": "fp32", "fastgan bf16": "bf16"}
NAMES = (*USUAL, *FASTGAN)
# By number format: the best usual step, and the same with all compiled that torch.compile can differentiate.
COMPILED = {
    "bf16": {"autocast bf16": _AUTOCAST, "torch.compile but in penalties": _AUTOCAST._replace(compiled=True)},
    "fp32": {"channels_last": _CHANNELS_LAST, "torch.compile but in penalties": _CHANNELS_LAST._replace(compiled=True)},
}

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
    return usual_provider(name, config, device, variant=USUAL[name])


def usual_provider(name: str, config: RunConfig, device: torch.device, *, variant: Variant) -> Provider:
    """The usual step under any name; what is right for it is `exact_steps` of the default variant."""
    return Provider(
        name,
        build=_sensible(lambda: UsualRun(config, device, variant=variant), device, variant.precision),
        check=lambda run, inputs: run.train(),
        dtype=variant.precision,
        is_counted=not variant.compiled,
    )


def fastgan_provider(name: str, config: RunConfig, device: torch.device, *, precision: str) -> Provider:
    """fastgan's step under any name."""
    # What is right for fastgan's policies and for its spectral norm, which steps once per update.
    variant = Variant(iterate_once=True, simultaneous=isinstance(build_schedule(config), Joint))
    return Provider(
        name,
        build=_sensible(lambda: FastganRun(config, device, precision=precision), device, precision),
        check=lambda run, inputs: run.train(),
        exact=lambda: exact_steps(config, device, variant=variant),
        dtype=precision,
    )


def exact_steps(config: RunConfig, device: torch.device, *, variant: Variant) -> Sequence[Tensor]:
    """What the first usual steps do in float64, see `benchmarks.step_check.train`."""
    return UsualRun(config, device, variant=variant, dtype=torch.float64).train()


def _sensible(build: Callable[[], Run], device: torch.device, precision: str) -> Callable[[], Run]:
    def build_if_sensible() -> Run:
        if precision == "bf16":
            require_bf16(device)
        return build()

    return build_if_sensible


class FastganRun:
    """A period of fastgan's steps as its training loop runs them, apart from reading data and writing logs."""

    def __init__(self, config: RunConfig, device: torch.device, *, precision: str) -> None:
        self.state = build_state(config, num_classes=0, dtype=DTYPES[precision], device=device)
        self._schedule = build_schedule(config)
        self._num_steps = steps_per_period(config)
        self._step = step_class(self._schedule)(
            self.state,
            loader=RandomImages(config, device, torch.channels_last),
            seed=config.seed,
            latent_dim=config.generator.latent_dim,
            ema=config.ema,
            device=device,
        )

    def __call__(self) -> Sequence[Tensor]:
        for _ in range(self._num_steps):
            self._make_step()
        return ()

    def _make_step(self) -> tuple[Statistics, Plan]:
        plan = self._schedule.plan(self.state.schedule)
        statistics = self._step.run(plan)
        self.state.schedule = self._schedule.advance(self.state.schedule)
        return statistics, plan

    def train(self) -> Sequence[Tensor]:
        """What the first steps do."""
        engines = self.state.generator_engine, self.state.discriminator_engine
        networks = self.state.generator, self.state.discriminator, self.state.generator_ema
        return train(
            lambda: total_losses(*self._make_step()),
            networks=[list(network.parameters()) for network in networks],
            vectors=[_left_vectors(network.spectral_norm) for network in networks[:2]],
            optimizers=[engine.optimizer for engine in engines if isinstance(engine, SingleEngine)],
        )


def _left_vectors(group: SpectralNorm | None) -> list[Tensor]:
    return [] if group is None else [group.get_buffer(f"u{index}") for index in range(group.num_layers)]


def total_losses(statistics: Statistics, plan: Plan) -> tuple[float, float]:
    """Of the discriminator with its penalties, and of the generator."""
    found = statistics.read()
    penalties = [
        penalty for update in plan.updates if update.network == "discriminator" for penalty in update.penalties
    ]
    penalty = sum(penalty.weight * found[f"penalty_{penalty.kind}"] for penalty in penalties)
    return found["loss_discriminator"] + penalty, found["loss_generator"]


class UsualRun:
    """A period of usual steps on copies of the same networks; its latents come from torch's generator on the device."""

    def __init__(
        self, config: RunConfig, device: torch.device, *, variant: Variant, dtype: torch.dtype = torch.float32
    ) -> None:
        generator, discriminator = build_networks(config, dtype=dtype, device=device)
        shape = config.batch_images, config.generator.latent_dim
        self._config = config
        self._num_steps = steps_per_period(config)
        self._draw = lambda: torch.randn(shape, device=device)
        self.step = UsualStep(
            config,
            generator.to(dtype),
            discriminator.to(dtype),
            draw_images=RandomImages(config, device, torch.contiguous_format).draw,
            draw_latents=self._draw,
            variant=variant,
        )

    def __call__(self) -> Sequence[Tensor]:
        for _ in range(self._num_steps):
            self.step.run()
        return ()

    def train(self) -> Sequence[Tensor]:
        """What the first steps do with the latents that fastgan's have."""
        step = self.step
        step.draw_latents = self._draw_keyed
        done = train(
            lambda: [loss.item() for loss in step.run()],
            networks=[trained_parameters(network) for network in (step.generator, step.discriminator, step.average)],
            vectors=[left_vectors(network) for network in (step.generator, step.discriminator)],
            optimizers=[step.generator_optimizer, step.discriminator_optimizer],
        )
        step.draw_latents = self._draw
        return done

    def _draw_keyed(self) -> Tensor:
        """[N, Z]; a step that draws twice gets the same, as if it shared its fakes."""
        size, first = self._config.batch_images, self.step.num_steps * self._config.batch_images
        return torch.from_numpy(rng.normal(self._config.seed, "latent", first, size, self._config.generator.latent_dim))
