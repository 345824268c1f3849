"""The parts of a training step, each at two batch sizes: `python -m benchmarks.bench_step_parts`.

`fastgan simulate` reads them from the record: a line through two batch sizes gives the time of a pass and of an image.

Shape legend: N batch, Z latent size, C channels, R resolution.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.gate import norm_error
from benchmarks.harness import Case, Provider
from benchmarks.machine import computes_bf16
from benchmarks.runner import Options, main_of
from benchmarks.step_check import flat, tolerance
from benchmarks.step_providers import RandomImages
from benchmarks.train_step import PRESETS, case_name, load_preset
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
            for precision in PRECISIONS if computes_bf16(options.device) else PRECISIONS[:1]:
                yield part_case(sized, options.device, precision=precision)


def part_names(config: RunConfig) -> list[str]:
    """Those of all parts of the configuration; one that contains another says so in its name."""
    names = ["generate", "judge_real", "update discriminator", "update generator", "update joint"]
    names += [f"update discriminator, {penalty.kind}" for penalty in config.penalties]
    return [*names, "apply discriminator", "apply generator"]


def part_case(config: RunConfig, device: torch.device, *, precision: str) -> Case:
    """A row for each part."""
    return Case(
        benchmark="step_parts",
        name=case_name(config),
        device=device,
        dtype=precision,
        make_inputs=lambda seed: (),
        exact=lambda: (),  # each part has its own
        providers=tuple(_provider(name, config, device, precision=precision) for name in part_names(config)),
        num_items=config.batch_images,
        item="images",
        is_compared=False,
        counts_ops=True,
        measure_error=lambda outputs, exact: max(map(norm_error, outputs, exact)),
        tolerance=lambda dtype: tolerance(dtype, device),
    )


def _provider(name: str, config: RunConfig, device: torch.device, *, precision: str) -> Provider:
    return Provider(
        name,
        build=lambda: Part(config, device, name, dtype=DTYPES[precision]),
        check=lambda run, inputs: run.outputs(),
        exact=lambda: Part(config, device, name, dtype=torch.float64).outputs(),
        dtype=precision,
    )


def _trained(name: str) -> tuple[str, ...]:
    """The networks that a part called "update ..." makes gradients for."""
    what, _, which = name.partition(" ")
    network = which.partition(", ")[0]
    if what != "update":
        return ()
    return ("discriminator", "generator") if network == "joint" else (network,)


class Part:
    """One part of a step, on the same images and latents again and again.

    Args:
        name: one of those of `part_case`.
        dtype: in which hidden layers compute; in float64 everything does.
    """

    def __init__(self, config: RunConfig, device: torch.device, name: str, *, dtype: torch.dtype) -> None:
        self.config, self.device = config, device
        self.state = build_state(config, num_classes=0, dtype=dtype, device=device)
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        for network in (self.state.generator, self.state.discriminator, self.state.generator_ema):
            network.to(self.wide)
        self.real = RandomImages(config, device, torch.channels_last).draw().to(self.wide)
        with torch.no_grad():
            self.fake = self.state.generator(self._latents())
        # Networks whose gradients the part leaves behind.
        self._trained = _trained(name)
        self._run = self._make(name)

    def __call__(self) -> Sequence[Tensor]:
        self._run()
        for network in self._trained:
            getattr(self.state, f"{network}_engine").discard()
        return ()

    def outputs(self) -> Sequence[Tensor]:
        """What the part makes: images or logits, gradients [P] of networks, or the change of all parameters [P]."""
        before = self._parameters()
        made = self._run()
        networks = [getattr(self.state, network) for network in self._trained]
        gradients = [flat([p.grad for p in network.parameters() if p.grad is not None]) for network in networks]
        for network in self._trained:
            getattr(self.state, f"{network}_engine").discard()
        return gradients or [self._parameters() - before if made is None else made.detach()]

    def _parameters(self) -> Tensor:
        state = self.state
        return flat([p for n in (state.generator, state.discriminator, state.generator_ema) for p in n.parameters()])

    def _make(self, name: str) -> Callable[[], Tensor | None]:
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
        return torch.from_numpy(latents).to(self.device, self.wide)

    def _update_discriminator(self, penalty: str) -> None:
        """Everything but making the fakes and the optimizer step."""
        engine = self.state.discriminator_engine
        weights = {p.kind: p.weight * p.every for p in self.config.penalties if p.kind == penalty}
        between = torch.full_like(self.real[:, 0, 0, 0], 0.5)
        output = engine(
            self.real,
            self.fake,
            penalties=weights,
            interpolation=between,
            noise=lambda: torch.ones_like(self.real),
        )
        output.loss.backward()

    def _update_generator(self) -> None:
        engine = self.state.generator_engine
        with frozen(self.state.discriminator):
            engine(self._latents(), real=self.real).loss.backward()

    def _update_joint(self) -> None:
        """Both updates from one pass through both networks, making the fakes included."""
        latents = self._latents()
        fake = self.state.generator(latents)
        judged = self.state.discriminator_engine(self.real, fake, for_generator=True)
        judged.loss.backward()
        made = self.state.generator_engine(latents, fake=fake, fake_gradient=judged.fake_gradient)
        made.loss.backward()

    def _apply(self, network: str) -> Callable[[], None]:
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
