"""The whole loss of one network's update as one module.

A parallel engine wraps the objective, not the network, so that each backward pass belongs to exactly one wrapped
forward pass, gradient penalties included. The other network is only a reference: not registered, never updated.

Shape legend: N batch, Z latent size, C channels, H W pixels.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.objectives.losses import AdversarialLoss
from fastgan.objectives.penalties import (
    INTERPOLATED,
    PENALTIES,
    input_gradients,
    r1_penalty,
    r2_penalty,
    wgan_gp_penalty,
    zero_centered_penalty,
)
from fastgan.ops import gradient_penalty, interpolate

# Images [N, C, H, W] and labels [N] or None, to logits [N].
Discriminator = Callable[[Tensor, Tensor | None], Tensor]


class ObjectiveOutput(NamedTuple):
    """A scalar to differentiate, and detached scalars to log."""

    loss: Tensor
    statistics: dict[str, Tensor]


class DiscriminatorObjective(nn.Module):
    """Adversarial loss of the discriminator plus the penalties that are due.

    Args:
        discriminator: images [N, C, H, W] and labels [N] or None, to logits [N]; no layer may mix samples.
        loss: the adversarial loss.
    """

    def __init__(self, discriminator: nn.Module, *, loss: AdversarialLoss) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.loss = loss

    def forward(
        self,
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None = None,
        *,
        penalties: Mapping[str, float] | None = None,
        interpolation: Tensor | None = None,
    ) -> ObjectiveOutput:
        """loss(D(real), D(fake)) + sum over penalties of weight * penalty.

        Args:
            real, fake: [N, C, H, W]; detached here, so that no gradient reaches the generator.
            labels: [N] int64 classes of real and fake samples alike, or None.
            penalties: weight of each penalty that is due in this update.
            interpolation: [N] in [0, 1], the weights of real images; only for penalties on interpolates.
        Raises:
            ValueError: for an unknown penalty, or one on interpolates without `interpolation`.
        """
        due = dict(penalties or {})
        _check_penalties(due, interpolation)
        real, fake = real.detach(), fake.detach()
        real_logits, fake_logits, values = self._judge(real, fake, labels, due)
        for kind in sorted(INTERPOLATED & due.keys()):
            assert interpolation is not None
            values[kind] = self._penalty_between(kind, real, fake, labels, interpolation)
        adversarial = self.loss.discriminator(real_logits, fake_logits)
        total = adversarial + sum((due[kind] * value for kind, value in values.items()), torch.zeros_like(adversarial))
        sign = self.loss.margin(real_logits, fake_logits).sign().mean()
        statistics = {
            "loss_discriminator": adversarial,
            "logits_real": real_logits.mean(),
            "logits_fake": fake_logits.mean(),
            "sign_statistic": sign,
            **{f"penalty_{kind}": value for kind, value in values.items()},
        }
        return ObjectiveOutput(total, {name: value.detach() for name, value in statistics.items()})

    def _judge(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, due: Mapping[str, float]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Real and fake logits, and the penalties R1 and R2 where due."""
        if ("r1" in due) == ("r2" in due):
            return self._judge_together(real, fake, labels, penalise="r1" in due)
        # Only one side is differentiated: a pass over both would carry zeros through the other half.
        real_logits = self.discriminator(real.requires_grad_("r1" in due), labels)
        fake_logits = self.discriminator(fake.requires_grad_("r2" in due), labels)
        if "r1" in due:
            return real_logits, fake_logits, {"r1": r1_penalty(real_logits, real)}
        return real_logits, fake_logits, {"r2": r2_penalty(fake_logits, fake)}

    def _judge_together(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, *, penalise: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        num_real = real.shape[0]
        images = torch.cat([real, fake]).requires_grad_(penalise)
        logits = self.discriminator(images, None if labels is None else torch.cat([labels, labels]))
        real_logits, fake_logits = logits[:num_real], logits[num_real:]
        if not penalise:
            return real_logits, fake_logits, {}
        return real_logits, fake_logits, _r1_and_r2(logits, images, num_real)

    def _penalty_between(
        self, kind: str, real: Tensor, fake: Tensor, labels: Tensor | None, interpolation: Tensor
    ) -> Tensor:
        images = interpolate(real, fake, interpolation).detach().requires_grad_()
        logits = self.discriminator(images, labels)
        return wgan_gp_penalty(logits, images) if kind == "wgan_gp" else zero_centered_penalty(logits, images)


class GeneratorObjective(nn.Module):
    """Adversarial loss of the generator.

    Args:
        generator: latents [N, Z] and labels [N] or None, to images [N, C, H, W].
        discriminator: a callable that must not be trained by this objective: the caller freezes its parameters.
            Not registered, so that an engine which wraps this module sees the generator's parameters only.
        loss: the adversarial loss.
    """

    def __init__(self, generator: nn.Module, *, discriminator: Discriminator, loss: AdversarialLoss) -> None:
        super().__init__()
        self.generator = generator
        self.loss = loss
        # A tuple hides a module from torch's registration.
        self._discriminator = (discriminator,)

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        *,
        real: Tensor | None = None,
        fake: Tensor | None = None,
    ) -> ObjectiveOutput:
        """loss(D(G(latents))).

        Args:
            latents: [N, Z].
            labels: [N] int64 classes, or None.
            real: [N, C, H, W], only read by losses that compare with real logits.
            fake: G(latents, labels) with its graph, where the caller has it already.
        Raises:
            ValueError: if the loss compares with real logits and `real` is None.
        """
        discriminator = self._discriminator[0]
        images = self.generator(latents, labels) if fake is None else fake
        fake_logits = discriminator(images, labels)
        real_logits = None
        if self.loss.generator_reads_real:
            if real is None:
                raise ValueError(
                    f"GeneratorObjective: real is None; {type(self.loss).__name__} compares with real images"
                )
            with torch.no_grad():
                real_logits = discriminator(real, labels)
        loss = self.loss.generator(fake_logits, real_logits)
        return ObjectiveOutput(loss, {"loss_generator": loss.detach()})


def _check_penalties(due: Mapping[str, float], interpolation: Tensor | None) -> None:
    for kind in due:
        if kind not in PENALTIES:
            raise ValueError(f"penalty {kind!r} must be one of {', '.join(PENALTIES)}")
        if kind in INTERPOLATED and interpolation is None:
            raise ValueError(f"penalty {kind!r} lies between real and fake images: give interpolation, [N] in [0, 1]")


def _r1_and_r2(logits: Tensor, images: Tensor, num_real: int) -> dict[str, Tensor]:
    """Both penalties from one differentiation of one pass over real and fake images."""
    squares = gradient_penalty(input_gradients(logits, images))
    return {"r1": squares[:num_real].mean(), "r2": squares[num_real:].mean()}
