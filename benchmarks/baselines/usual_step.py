"""One training step the usual PyTorch way.

Shape legend: N batch, Z latent size, C channels, H W pixels.
"""

import contextlib
import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.baselines.usual_networks import (
    UsualDiscriminator,
    UsualGenerator,
    UsualNetwork,
    step_power_iterations,
)
from benchmarks.baselines.usual_ops import compiled
from benchmarks.baselines.usual_penalty import usual_discriminator_loss
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.objectives import adversarial_loss
from fastgan.train.config import AdamConfig, RunConfig
from fastgan.train.ema import ema_decay

PENALTIES = ("r1", "r2")


class Variant(NamedTuple):
    """What a step does otherwise than the usual way, which is the default.

    freeze_and_share: no gradients for the discriminator in the generator's update; one batch of fakes for both updates.
    channels_last: memory format of networks and images.
    autocast: torch.autocast to bfloat16.
    compiled: torch.compile of both networks. AOTAutograd does not differentiate twice, so the discriminator judges
        images whose penalty is due eagerly.
    iterate_once: spectral norm steps once after each update of its network, and not in each pass.
    simultaneous: both gradients are taken at the weights before the step, with the same fakes.
    """

    freeze_and_share: bool = False
    channels_last: bool = False
    autocast: bool = False
    compiled: bool = False
    iterate_once: bool = False
    simultaneous: bool = False

    @property
    def precision(self) -> str:
        """The number format that hidden layers compute in, of networks in float32."""
        return "bf16" if self.autocast else "fp32"


class UsualStep:
    """Updates of D and G and of G's average: contiguous, per-tensor Adam, torch's spectral norm.

    The fakes of the discriminator's update are made for it and detached; the generator's update makes others, and
    lets gradients flow into the discriminator's parameters, which are dropped afterwards.

    Args:
        config: of the run; penalties r1 and r2, one update of each network per step.
        generator, discriminator: fastgan's networks, whose weights are copied; in their dtype the step computes.
        draw_images: the next real images [N, C, H, W].
        draw_latents: the next latents [N, Z].
    Raises:
        ValueError: if the configuration asks for more than this step can do.
        RuntimeError: if torch.compile lacks what it needs.
    """

    def __init__(
        self,
        config: RunConfig,
        generator: DCGANGenerator,
        discriminator: DCGANDiscriminator,
        *,
        draw_images: Callable[[], Tensor],
        draw_latents: Callable[[], Tensor],
        variant: Variant = Variant(),  # noqa: B008 - immutable
    ) -> None:
        _check(config)
        self.config, self.variant = config, variant
        self.draw_images, self.draw_latents = draw_images, draw_latents
        self.loss = adversarial_loss(config.objective.loss)
        self.format = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.generator = UsualGenerator(generator).to(memory_format=self.format)
        self.discriminator = UsualDiscriminator(discriminator).to(memory_format=self.format)
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        for network in (self.generator, self.discriminator):
            network.train(not variant.iterate_once)
        self._fast_generator = compiled(self.generator) if variant.compiled else self.generator
        self._fast_discriminator = compiled(self.discriminator) if variant.compiled else self.discriminator
        self.generator_optimizer = _adam(self.generator, config.optimizer.generator)
        self.discriminator_optimizer = _adam(self.discriminator, config.optimizer.discriminator)
        self.device, self.dtype = generator.to_image.weight.device, generator.to_image.weight.dtype
        self.num_steps = 0

    def run(self) -> tuple[Tensor, Tensor]:
        """One step; the losses of discriminator, penalties included, and generator."""
        real = self.draw_images().to(device=self.device, dtype=self.dtype, memory_format=self.format)
        fake = self._generate()
        if self.variant.simultaneous:
            generator_loss = self._differentiate_generator(real, fake)
            discriminator_loss = self._update_discriminator(real, fake)
        else:
            discriminator_loss = self._update_discriminator(real, fake)
            fake = fake if self.variant.freeze_and_share else self._generate()
            generator_loss = self._differentiate_generator(real, fake)
        self._step(self.generator_optimizer, self.generator)
        self._update_average()
        self.num_steps += 1
        return discriminator_loss, generator_loss

    def _generate(self) -> Tensor:
        latents = self.draw_latents().to(device=self.device, dtype=self.dtype)
        with self._autocast():
            images: Tensor = self._fast_generator(latents)
        return images.to(self.dtype)

    def _update_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        due = {p.kind: p.weight * p.every for p in self.config.penalties if self.num_steps % p.every == 0}
        loss = usual_discriminator_loss(self._judge_detached, self.loss, real, fake, due=due)
        self.discriminator_optimizer.zero_grad()
        loss.backward()
        self._step(self.discriminator_optimizer, self.discriminator)
        return loss.detach()

    def _differentiate_generator(self, real: Tensor, fake: Tensor) -> Tensor:
        self.discriminator.requires_grad_(not self.variant.freeze_and_share)
        fake_logits = self._judge(fake)
        real_logits = self._judge(real) if self.loss.generator_reads_real else None
        loss = self.loss.generator(fake_logits, real_logits)
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.discriminator.requires_grad_(True)
        return loss.detach()

    def _step(self, optimizer: torch.optim.Adam, network: UsualNetwork) -> None:
        optimizer.step()
        if self.variant.iterate_once:
            step_power_iterations(network)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = ema_decay(
            half_life_images=self.config.ema.half_life_images,
            rampup=self.config.ema.rampup,
            images_seen=self.num_steps * self.config.batch_images,
            num_images=self.config.batch_images,
        )
        for averaged, parameter in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            averaged.lerp_(parameter, 1 - decay)
        for copied, buffer in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            copied.copy_(buffer)

    def _judge(self, images: Tensor) -> Tensor:
        return self._logits(self._fast_discriminator, images)

    def _judge_detached(self, images: Tensor) -> Tensor:
        """Detached images that need a gradient need it for a penalty, which is differentiated once more."""
        return self._logits(self.discriminator if images.requires_grad else self._fast_discriminator, images)

    def _logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with self._autocast():
            logits = network(images)
        return logits.to(self.dtype)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if not self.variant.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def _adam(network: nn.Module, config: AdamConfig) -> torch.optim.Adam:
    """Adam that takes the parameters one by one."""
    return torch.optim.Adam(
        network.parameters(), lr=config.learning_rate, betas=config.betas, eps=config.eps, foreach=False, fused=False
    )


def _check(config: RunConfig) -> None:
    unknown = sorted({penalty.kind for penalty in config.penalties} - set(PENALTIES))
    if unknown:
        raise ValueError(
            f"penalties {', '.join(unknown)} are not part of the usual step, which has {', '.join(PENALTIES)}"
        )
    counts = config.schedule.discriminator_updates, config.schedule.generator_updates
    if counts != (1, 1):
        raise ValueError(f"schedule={counts}: the usual step makes one update of each network")
