"""The parts of a training step, each at two batch sizes: `python -m benchmarks.bench_step_parts`.

`fastgan simulate` reads them from the record: a line through two batch sizes gives the time of a pass and of an image.

Shape legend: N batch, Z latent size, C channels, R resolution.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.harness import Case, Provider, Run
from benchmarks.machine import require_bf16
from benchmarks.runner import Options, main_of
from benchmarks.step_providers import RandomImages
from benchmarks.train_step import PRESETS, load_preset, step_case
from fastgan import rng
from fastgan.parallel import SingleEngine
from fastgan.train.build import build_state
from fastgan.train.config import RunConfig
from fastgan.train.ema import update_ema
from fastgan.train.precision import DTYPES
from fastgan.train.step import frozen

# The small batch is so many times smaller than the preset's.
_RATIO = 4
PRECISIONS = ("fp32", "bf16")


def cases(options: Options) -> Iterator[Case]:
    """The presets of the benchmark train_step, at their own batch and at a quarter of it."""
    for preset in PRESETS[:1] if options.is_quick else PRESETS:
        config = load_preset(preset, is_quick=options.is_quick)
        for batch_images in (config.batch_images, config.batch_images // _RATIO):
            sized = config.model_copy(update={"batch_images": batch_images, "micro_batch_images": None})
            for precision in PRECISIONS:
                yield part_case(sized, options.device, precision=precision)


def part_case(config: RunConfig, device: torch.device, *, precision: str) -> Case:
    """A row for each part; parts that contain others are told apart by what they are called."""
    names = ["generate", "judge_real", "update discriminator", "update generator", "update joint"]
    names += [f"update discriminator, {penalty.kind}" for penalty in config.penalties]
    names += ["apply discriminator", "apply generator"]
    providers = [_provider(name, config, device, precision=precision) for name in names]
    # A step of other presets has lazy penalties, so that only a period of steps is the same again; a part is always.
    return replace(
        step_case(config, device, benchmark="step_parts", providers=providers), num_items=config.batch_images
    )


def _provider(name: str, config: RunConfig, device: torch.device, *, precision: str) -> Provider:
    def build() -> Run:
        if precision == "bf16":
            require_bf16(device)
        return _Part(config, device, name, precision=precision)

    return Provider(name, build=build, check=lambda run, inputs: run.outputs(*inputs), dtype=precision)


class _Part:
    """One part of a step, on the same images and latents again and again."""

    def __init__(self, config: RunConfig, device: torch.device, name: str, *, precision: str) -> None:
        self.config, self.device = config, device
        self.state = build_state(config, num_classes=0, dtype=DTYPES[precision], device=device)
        self.real = RandomImages(config, device, torch.channels_last).draw()
        with torch.no_grad():
            self.fake = self.state.generator(self._latents())
        self._run = self._make(name)

    def __call__(self, *unused: Tensor) -> Sequence[Tensor]:
        del unused
        self._run()
        return ()

    @torch.no_grad()
    def outputs(self, latents: Tensor, real: Tensor) -> Sequence[Tensor]:
        """What both networks say to given inputs."""
        return self.state.generator(latents), self.state.discriminator(real)

    def _make(self, name: str) -> Callable[[], object]:
        what, _, which = name.partition(" ")
        if what == "generate":
            return lambda: self.state.generator(self._latents())
        if what == "judge_real":
            return lambda: self.state.discriminator(self.real)
        if what == "apply":
            return self._apply(which)
        network, _, penalty = which.partition(", ")
        if network == "joint":
            return self._update_joint
        return self._update_generator if network == "generator" else lambda: self._update_discriminator(penalty)

    def _latents(self) -> Tensor:
        latents = rng.normal(0, "latent", 0, self.config.batch_images, self.config.generator.latent_dim)
        return torch.from_numpy(latents).to(self.device)

    def _update_discriminator(self, penalty: str) -> None:
        """Everything but making the fakes and the optimizer step."""
        engine = self.state.discriminator_engine
        weights = {p.kind: p.weight * p.every for p in self.config.penalties if p.kind == penalty}
        between = torch.full((self.config.batch_images,), 0.5, device=self.device)
        output = engine(
            self.real,
            self.fake,
            penalties=weights,
            interpolation=between,
            noise=lambda: torch.ones_like(self.real),
        )
        output.loss.backward()
        engine.discard()

    def _update_generator(self) -> None:
        engine = self.state.generator_engine
        with frozen(self.state.discriminator):
            engine(self._latents(), real=self.real).loss.backward()
        engine.discard()

    def _update_joint(self) -> None:
        """Both updates from one pass through both networks, making the fakes included."""
        latents = self._latents()
        fake = self.state.generator(latents)
        judged = self.state.discriminator_engine(self.real, fake, for_generator=True)
        judged.loss.backward()
        made = self.state.generator_engine(latents, fake=fake, fake_gradient=judged.fake_gradient)
        made.loss.backward()
        self.state.discriminator_engine.discard()
        self.state.generator_engine.discard()

    def _apply(self, network: str) -> Callable[[], object]:
        """The optimizer step, and what follows it."""
        module, engine = getattr(self.state, network), getattr(self.state, f"{network}_engine")
        assert isinstance(engine, SingleEngine)
        gradients = [torch.full_like(parameter, 1e-3) for parameter in module.parameters()]

        def apply() -> None:
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.grad = gradient
            engine.step()
            if module.spectral_norm is not None:
                module.step_spectral_norm()
            if network == "generator":
                update_ema(self.state.generator_ema, module, decay=0.999)

        return apply


if __name__ == "__main__":
    sys.exit(main_of("step_parts", cases, description=__doc__))
