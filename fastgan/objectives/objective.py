"""The whole loss of one network's update as one module.

A parallel engine wraps the objective, not the network, so that each backward pass belongs to exactly one wrapped
forward pass, gradient penalties included. The other network is only a reference: not registered, never updated.

Shape legend: N batch, Z latent size, C channels, H W pixels.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.objectives.logits import Discriminator, check_not_empty, logits_of
from fastgan.objectives.losses import AdversarialLoss, check_loss
from fastgan.objectives.modes import Judged, Noise, PenaltyMode, check_mode, judge, made_noise
from fastgan.objectives.penalties import PENALTIES
from fastgan.ops import interpolate, no_weight_gradients

# Makes images [N, C, H, W] when they are needed.
MakeImages = Callable[[], Tensor]


class ObjectiveOutput(NamedTuple):
    """A scalar to differentiate, and detached scalars to log.

    fake_gradient: [N, C, H, W], of the generator's loss by the fakes, if the discriminator's objective is asked for it.
    """

    loss: Tensor
    statistics: dict[str, Tensor]
    fake_gradient: Tensor | None = None


class DiscriminatorObjective(nn.Module):
    """Adversarial loss of the discriminator plus the penalties that are due.

    Args:
        discriminator: images [N, C, H, W] and labels [N] or None, to one logit per image, [N] or [N, 1]; no layer may
            mix samples.
        loss: the adversarial loss.
        modes: how penalties are computed, by their kind; `double` where nothing is said.
    Raises:
        ValueError: if a mode cannot compute its penalty, with the reason and the alternative.
        TypeError: if the loss is none, such as the name of one.
    """

    def __init__(
        self, discriminator: nn.Module, *, loss: AdversarialLoss, modes: Mapping[str, PenaltyMode] | None = None
    ) -> None:
        super().__init__()
        check_loss(loss)
        self.discriminator = discriminator
        self.loss = loss
        self.modes = dict.fromkeys(PENALTIES, PenaltyMode()) | dict(modes or {})
        for kind, mode in self.modes.items():
            _check_kind(kind)
            check_mode(kind, mode, discriminator)

    def forward(
        self,
        real: Tensor,
        fake: Tensor | MakeImages,
        labels: Tensor | None = None,
        *,
        penalties: Mapping[str, float] | None = None,
        interpolation: Tensor | None = None,
        noise: Noise | None = None,
        for_generator: bool = False,
    ) -> ObjectiveOutput:
        """loss(D(real), D(fake)) + sum over penalties of weight * penalty.

        Args:
            real, fake: [N, C, H, W]; detached here, so that no gradient reaches the generator. `fake` may be a function
                that makes the images: it is called when the real ones have been judged, in a pass of their own.
            labels: [N] int64 classes of real and fake samples alike, or None.
            penalties: weight of each penalty that is due in this update.
            interpolation: [N] in [0, 1] (not checked: that would wait for the device), the weights of real images.
            noise: makes standard normal numbers, [N, C, H, W]; only for penalties with the mode `approximate`.
            for_generator: whether the same logits serve the generator's loss, too: the output then has `fake_gradient`.
        Raises:
            ValueError, TypeError: for penalties, shapes or fakes that break these rules; for logits unlike [N], [N, 1].
        """
        due = self._checked_due(penalties or {}, interpolation, noise)
        given = self._leaf(fake, due) if for_generator else _detached(fake)
        real = real.detach()
        real_logits, fake_logits, fake, values = self._judge_both(real, given, labels, due=due, noise=noise)
        for kind in sorted(kind for kind in due if PENALTIES[kind].is_between):
            assert interpolation is not None
            points = interpolate(real.detach(), fake.detach(), interpolation)  # R1 asks for the gradient of `real`
            values[kind] = self._judge(kind, points, labels, noise=noise).penalties.mean()
        adversarial = self.loss.discriminator(real_logits, fake_logits)
        total = adversarial + sum((due[kind] * value for kind, value in values.items()), torch.zeros_like(adversarial))
        statistics = self._statistics(adversarial, real_logits, fake_logits, values)
        if not for_generator:
            return ObjectiveOutput(total, statistics)
        loss, gradient = self._for_generator(real_logits, fake_logits, fake)
        return ObjectiveOutput(total, {**statistics, "loss_generator": loss}, gradient)

    def _statistics(
        self, loss: Tensor, real_logits: Tensor, fake_logits: Tensor, penalties: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        found = {
            "loss_discriminator": loss,
            "logits_real": real_logits.mean(),
            "logits_fake": fake_logits.mean(),
            "sign_statistic": self.loss.margin(real_logits, fake_logits).sign().mean(),
            **{f"penalty_{kind}": value for kind, value in penalties.items()},
        }
        return {name: value.detach() for name, value in found.items()}

    def _for_generator(self, real_logits: Tensor, fake_logits: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The generator's loss, and its gradient by the fakes: taken before a backward pass frees the graph."""
        loss = self.loss.generator(fake_logits, real_logits.detach())
        with no_weight_gradients():
            (gradient,) = torch.autograd.grad(loss, fake, retain_graph=True)
        return loss.detach(), gradient

    def _judge(self, kind: str, images: Tensor, labels: Tensor | None, *, noise: Noise | None) -> Judged:
        mode = self.modes[kind]
        return judge(self.discriminator, images, labels, rule=PENALTIES[kind], mode=mode, noise=noise)

    def _judge_side(
        self, kind: str, images: Tensor, labels: Tensor | None, *, due: Mapping[str, float], noise: Noise | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of one side's images, and its penalty `kind` where that is due."""
        if kind not in due:
            return logits_of(self.discriminator, images, labels), {}
        judged = self._judge(kind, images, labels, noise=noise)
        return judged.logits, {kind: judged.penalties.mean()}

    def _judge_both(
        self,
        real: Tensor,
        fake: Tensor | MakeImages,
        labels: Tensor | None,
        *,
        due: Mapping[str, float],
        noise: Noise | None,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Real and fake logits, fake images, and the penalties R1 and R2 where due."""
        sides = [kind for kind in ("r1", "r2") if kind in due]
        # A pass over both must not carry zeros, or another mode, or only the generator's gradient, through one half.
        is_alike = len(sides) != 1 and len({self.modes[kind] for kind in sides}) < 2
        if isinstance(fake, Tensor) and is_alike and not fake.requires_grad:
            return self._judge_together(real, fake, labels, has_penalties=bool(sides), noise=noise)
        real_logits, values = self._judge_side("r1", real, labels, due=due, noise=noise)
        fake = fake if isinstance(fake, Tensor) else fake().detach()
        fake_logits, of_fakes = self._judge_side("r2", fake, labels, due=due, noise=noise)
        return real_logits, fake_logits, fake, values | of_fakes

    def _judge_together(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, *, has_penalties: bool, noise: Noise | None
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """As `_judge_both`, in one pass."""
        for side in (real, fake):
            check_not_empty(side)
        num_real = real.shape[0]
        images, labels = torch.cat([real, fake]), None if labels is None else torch.cat([labels, labels])
        if not has_penalties:
            both = logits_of(self.discriminator, images, labels)
            return both[:num_real], both[num_real:], fake, {}
        twice = None if noise is None else lambda: torch.cat([made_noise(noise, real.shape)] * 2)
        judged = self._judge("r1", images, labels, noise=twice)
        values = {"r1": judged.penalties[:num_real].mean(), "r2": judged.penalties[num_real:].mean()}
        return judged.logits[:num_real], judged.logits[num_real:], fake, values

    def _checked_due(
        self, due: Mapping[str, float], interpolation: Tensor | None, noise: Noise | None
    ) -> Mapping[str, float]:
        if not isinstance(due, Mapping):
            raise TypeError(f"penalties={due!r} must map each penalty to its weight, such as {{'r1': 1.0}}")
        for kind, weight in due.items():
            _check_kind(kind)
            if not isinstance(weight, Real):
                raise TypeError(f"penalty {kind!r}: weight={weight!r} must be a number")
            if not 0 <= weight < math.inf:
                raise ValueError(f"penalty {kind!r}: weight={weight} must be finite and not negative")
            if PENALTIES[kind].is_between and interpolation is None:
                raise ValueError(
                    f"penalty {kind!r} lies between real and fake images: give interpolation, [N] in [0, 1]"
                )
            if self.modes[kind].name == "approximate" and noise is None:
                raise ValueError(f"penalty {kind!r} has the mode 'approximate': give noise, which makes [N, C, H, W]")
        return due

    def _leaf(self, fake: Tensor | MakeImages, due: Mapping[str, float]) -> Tensor:
        """The fakes, to take the gradient of the generator's loss by them."""
        if not isinstance(fake, Tensor):
            raise TypeError("for_generator=True takes a gradient by the fakes: give fake as images, not as a function")
        if "r2" in due and self.modes["r2"].name == "dual":
            raise ValueError("penalty 'r2' with the mode 'dual' leaves no graph for the generator: use mode='double'")
        return fake.detach().requires_grad_()


class GeneratorObjective(nn.Module):
    """Adversarial loss of the generator.

    Args:
        generator: latents [N, Z] and labels [N] or None, to images [N, C, H, W].
        discriminator: images and labels to one logit per image, [N] or [N, 1]. It must not be trained by this
            objective: the caller freezes its parameters. Not registered, so that an engine which wraps this module
            sees the generator's parameters only.
        loss: the adversarial loss.
    Raises:
        TypeError: if the loss is none, such as the name of one.
    """

    def __init__(self, generator: nn.Module, *, discriminator: Discriminator, loss: AdversarialLoss) -> None:
        super().__init__()
        check_loss(loss)
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
        fake_gradient: Tensor | None = None,
        adversarial: bool = True,
    ) -> ObjectiveOutput:
        """loss(D(G(latents))).

        Args:
            latents: [N, Z].
            labels: [N] int64 classes, or None.
            real: [N, C, H, W], only read by losses that compare with real logits.
            fake: G(latents, labels) with its graph, where the caller has it already.
            fake_gradient: [N, C, H, W], of the loss by the fakes, where the discriminator's objective has computed it:
                the output's loss is a scalar with that gradient, and the discriminator is not called.
            adversarial: False before a schedule's adversarial part, for subclasses that have a loss of their own.
        Raises:
            ValueError: if the loss compares with real logits and `real` is None, or nothing is left of the loss; for
                logits of another shape than [N] or [N, 1], or an empty batch.
        """
        if not adversarial:
            raise ValueError(
                "GeneratorObjective: adversarial=False leaves no loss; subclass it and add one of your own"
            )
        images = self.generator(latents, labels) if fake is None else fake
        if fake_gradient is not None:
            return ObjectiveOutput((images * fake_gradient).sum(), {})
        # Before the fakes: ZeRO-3 counts by the latest pass through a layer when it may let go of its weights.
        real_logits = self._judge_real(real, labels) if self.loss.generator_reads_real else None
        fake_logits = logits_of(self._discriminator[0], images, labels)
        loss = self.loss.generator(fake_logits, real_logits)
        return ObjectiveOutput(loss, {"loss_generator": loss.detach()})

    def _judge_real(self, real: Tensor | None, labels: Tensor | None) -> Tensor:
        if real is None:
            raise ValueError(f"GeneratorObjective: real is None; {type(self.loss).__name__} compares with real images")
        with torch.no_grad():
            return logits_of(self._discriminator[0], real, labels)


def _detached(fake: Tensor | MakeImages) -> Tensor | MakeImages:
    return fake.detach() if isinstance(fake, Tensor) else fake


def _check_kind(kind: str) -> None:
    if kind not in PENALTIES:
        raise ValueError(f"penalty {kind!r} must be one of {', '.join(PENALTIES)}")
