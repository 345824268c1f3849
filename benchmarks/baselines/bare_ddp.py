"""A bare training loop under torch's DistributedDataParallel: what fastgan's own DDP step is held against.

The networks, objectives, optimizers, random numbers and the average are fastgan's, so that nothing but the machinery
around them differs: no plan, no engine, no vote on whether all ranks can make an update.

Shape legend: N samples of a rank, C channels, R resolution, Z latent size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fastgan import rng
from fastgan.dist import World
from fastgan.objectives import DiscriminatorObjective, GeneratorObjective, adversarial_loss
from fastgan.train.build import build_state
from fastgan.train.build_engines import build_optimizer
from fastgan.train.config import RunConfig
from fastgan.train.ema import ema_decay, update_ema


class BareDdpStep:
    """One update of each network per call, of the whole global batch; the fake images are shared.

    Args:
        config: without micro-batches, with one update of each network per step and penalties that look at one side.
        world: the ranks.
        draw_images: from the number of a first sample and a count N, the rank's part [N, C, R, R] of the next batch.
        device: of the networks.
    Raises:
        ValueError: if the configuration asks for more than this loop does.
    """

    def __init__(
        self, config: RunConfig, *, world: World, draw_images: Callable[[int, int], Tensor], device: torch.device
    ) -> None:
        _check(config)
        # Without an engine of several ranks: the loop wraps the objectives itself.
        alone = config.model_copy(update={"parallel": config.parallel.model_copy(update={"engine": "single"})})
        state = build_state(alone, num_classes=0, dtype=torch.float32, device=device)
        loss = adversarial_loss(config.objective.loss)
        discriminator = DiscriminatorObjective(state.discriminator, loss=loss)
        generator = GeneratorObjective(state.generator, discriminator=state.discriminator, loss=loss)
        options = {"gradient_as_bucket_view": True, _buffers_option(): False}
        self._discriminator = DistributedDataParallel(discriminator, **options)
        self._generator = DistributedDataParallel(generator, **options)
        self._optimizers = {
            name: build_optimizer(getattr(state, name), getattr(config.optimizer, name))
            for name in ("discriminator", "generator")
        }
        self._config, self._world, self._draw, self._device, self.state = config, world, draw_images, device, state
        self.num_updates = 0

    def run(self) -> Mapping[str, Tensor]:
        """Makes the next step. Returns the mean losses of this rank."""
        config, state = self._config, self.state
        share = config.batch_images // self._world.num_ranks
        first = self.num_updates * config.batch_images + self._world.rank * share
        real = self._draw(first, share)
        latents = torch.from_numpy(rng.normal(config.seed, "latent", first, share, config.generator.latent_dim))
        due = {p.kind: p.weight * p.every for p in config.penalties if self.num_updates % p.every == 0}
        fake = state.generator(latents.to(self._device))
        found = self._discriminator(real, fake, penalties=due)
        self._update("discriminator", found.loss)
        state.discriminator.requires_grad_(False)
        judged = self._generator(latents.to(self._device), real=real, fake=fake)
        self._update("generator", judged.loss)
        state.discriminator.requires_grad_(True)
        decay = ema_decay(
            half_life_images=config.ema.half_life_images,
            rampup=config.ema.rampup,
            images_seen=self.num_updates * config.batch_images,
            num_images=config.batch_images,
        )
        update_ema(state.generator_ema, state.generator, decay=decay)
        self.num_updates += 1
        return {**found.statistics, **judged.statistics}

    def _update(self, name: str, loss: Tensor) -> None:
        optimizer = self._optimizers[name]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        network = getattr(self.state, name)
        if network.spectral_norm is not None:
            network.step_spectral_norm()


def _buffers_option() -> str:
    """Its name changed in torch 2.13."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


def _check(config: RunConfig) -> None:
    schedule = config.schedule
    updates = (schedule.discriminator_updates, schedule.generator_updates)
    between = [penalty.kind for penalty in config.penalties if penalty.kind not in {"r1", "r2"}]
    other_modes = [penalty.kind for penalty in config.penalties if penalty.mode != "double"]
    if updates != (1, 1) or config.micro_batch_images is not None or between or other_modes:
        raise ValueError("the bare loop makes one update of each network on whole batches, with R1 and R2 by `double`")
