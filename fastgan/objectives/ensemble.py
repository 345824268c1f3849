"""The generator's loss against several discriminators.

Shape legend: N batch, Z latent size, C channels, H W pixels, K discriminators.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.errors import did_you_mean
from fastgan.objectives.logits import Discriminator, logits_of
from fastgan.objectives.losses import AdversarialLoss, check_loss
from fastgan.objectives.objective import ObjectiveOutput

COMBINATIONS = ("mean", "max", "random")


class Opponent(NamedTuple):
    """A discriminator, which the generator's objective does not train, and the loss against it.

    discriminator: images [N, C, H, W] and labels [N] or None, to one logit per image, [N] or [N, 1].
    """

    discriminator: Discriminator
    loss: AdversarialLoss


class EnsembleGeneratorObjective(nn.Module):
    """Adversarial loss of the generator against K discriminators, combined for each sample, then averaged over them.

    mean    mean of the K losses
    max     the largest of the K losses: each image is improved against the discriminator that it fools least
    random  mean over the discriminators that the caller has drawn for this update

    Each is a mean over samples, so that ranks and micro-batches change nothing.

    Args:
        generator: latents [N, Z] and labels [N] or None, to images [N, C, H, W].
        opponents: by name, each with one logit per image, [N] or [N, 1]; the caller freezes their parameters. Not
            registered: engines see the generator's alone.
        combination: one of COMBINATIONS.
    Raises:
        ValueError: for an unknown combination, or without an opponent.
        TypeError: if an opponent's loss is none, such as the name of one.
    Source: mean and max as in Durugkar et al. 2017, arXiv:1611.01673, there over batches instead of samples.
    """

    def __init__(self, generator: nn.Module, *, opponents: Mapping[str, Opponent], combination: str) -> None:
        super().__init__()
        if combination not in COMBINATIONS:
            rule = f"must be one of {', '.join(COMBINATIONS)}{did_you_mean(combination, COMBINATIONS)}"
            raise ValueError(f"combination={combination!r} {rule}")
        if not opponents:
            raise ValueError("EnsembleGeneratorObjective: opponents is empty; give at least one discriminator")
        for opponent in opponents.values():
            check_loss(opponent.loss)
        self.generator = generator
        self.combination = combination
        # A tuple hides modules from torch's registration.
        self._opponents = tuple(opponents.items())

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        *,
        real: Tensor | None = None,
        fake: Tensor | None = None,
        drawn: Collection[str] | None = None,
    ) -> ObjectiveOutput:
        """The combined loss of G(latents).

        Args:
            latents: [N, Z].
            labels: [N] int64 classes, or None.
            real: [N, C, H, W], only read by losses that compare with real logits.
            fake: G(latents, labels) with its graph, where the caller has it already.
            drawn: names of the discriminators of this update; None for all. The others are not asked.
        Raises:
            ValueError: if a loss compares with real logits and `real` is None, or `drawn` is empty or has a name that
                no opponent has; for logits of another shape than [N] or [N, 1], or an empty batch.
            TypeError: if `drawn` is a string.
        """
        opponents = self._drawn(drawn)
        images = self.generator(latents, labels) if fake is None else fake
        terms = {name: _terms(opponent, images, real, labels) for name, opponent in opponents.items()}
        losses = torch.stack(list(terms.values()))  # [K, N]
        combined = losses.amax(dim=0) if self.combination == "max" else losses.mean(dim=0)
        loss = combined.mean()
        statistics = {f"loss_generator/{name}": value.detach().mean() for name, value in terms.items()}
        return ObjectiveOutput(loss, {"loss_generator": loss.detach(), **statistics})

    def _drawn(self, drawn: Collection[str] | None) -> dict[str, Opponent]:
        opponents = dict(self._opponents)
        if drawn is None:
            return opponents
        if isinstance(drawn, str):
            raise TypeError(f"drawn={drawn!r} must be a collection of names, such as [{drawn!r}]")
        known = ", ".join(opponents)
        if not drawn:
            raise ValueError(f"drawn={drawn} names none of {known}")
        for name in drawn:
            if name not in opponents:
                raise ValueError(f"drawn={drawn}: {name!r} names none of {known}{did_you_mean(name, opponents)}")
        return {name: opponent for name, opponent in opponents.items() if name in drawn}


def _terms(opponent: Opponent, images: Tensor, real: Tensor | None, labels: Tensor | None) -> Tensor:
    """[N], each sample's loss against one discriminator."""
    discriminator, loss = opponent
    if not loss.generator_reads_real:
        return loss.generator_terms(logits_of(discriminator, images, labels))
    if real is None:
        raise ValueError(f"real is None; {type(loss).__name__} compares with real images")
    # Before the fakes, as in `GeneratorObjective`.
    with torch.no_grad():
        real_logits = logits_of(discriminator, real, labels)
    return loss.generator_terms(logits_of(discriminator, images, labels), real_logits)
