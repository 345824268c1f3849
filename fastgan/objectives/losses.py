"""Adversarial losses on logits.

Each loss is a pair: what the discriminator minimises and what the generator minimises. Means are over the batch, in
float32, or in float64 for logits in float64. Real sample n is paired with fake sample n where a loss compares them.

Shape legend: N batch. D(x) real logits, D(G(z)) fake logits, both [N].
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import did_you_mean

_WIDE_DTYPES = (torch.float32, torch.float64)


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits in float32; float64 stays."""
    # A conversion costs a call even where there is nothing to convert.
    return logits if logits.dtype in _WIDE_DTYPES else logits.float()


class AdversarialLoss(ABC):
    """What the two networks minimise, as functions of logits."""

    # Whether the generator's loss needs the logits of real samples.
    generator_reads_real: ClassVar[bool] = False

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Scalar loss of the discriminator from real and fake logits, each [N]."""

    @abstractmethod
    def generator_terms(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """[N], each sample's loss of the generator from fake logits [N]; `real` [N] where `generator_reads_real`."""

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Scalar loss of the generator: the mean of `generator_terms`."""
        return self.generator_terms(fake, real).mean()

    def margin(self, real: Tensor, fake: Tensor) -> Tensor:
        """[N], positive where the discriminator takes real sample n for real.

        The mean of its sign is the statistic r_t of Karras et al. 2020, arXiv:2006.06676, equation 1: near 1 the
        discriminator overfits, near 0 it cannot tell.
        """
        del fake
        return at_least_float32(real)


class NonSaturating(AdversarialLoss):
    """D: softplus(-D(x)) + softplus(D(G(z))). G: softplus(-D(G(z))).

    Source: Goodfellow et al. 2014, arXiv:1406.2661.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-at_least_float32(real)).mean() + F.softplus(at_least_float32(fake)).mean()

    def generator_terms(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return F.softplus(-at_least_float32(fake))


class Hinge(AdversarialLoss):
    """D: max(0, 1 - D(x)) + max(0, 1 + D(G(z))). G: -D(G(z)).

    Source: Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - at_least_float32(real)).mean() + F.relu(1 + at_least_float32(fake)).mean()

    def generator_terms(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -at_least_float32(fake)


class Wasserstein(AdversarialLoss):
    """D: D(G(z)) - D(x). G: -D(G(z)). Wants a penalty that keeps D 1-Lipschitz.

    Source: Arjovsky et al. 2017, arXiv:1701.07875.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return at_least_float32(fake).mean() - at_least_float32(real).mean()

    def generator_terms(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -at_least_float32(fake)

    def margin(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real minus fake: a constant added to all logits does not count."""
        return _difference(real, fake)


class LeastSquares(AdversarialLoss):
    """D: 1/2 (D(x) - 1)^2 + 1/2 D(G(z))^2. G: 1/2 (D(G(z)) - 1)^2.

    Source: Mao et al. 2017, arXiv:1611.04076.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        real, fake = at_least_float32(real), at_least_float32(fake)
        return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()

    def generator_terms(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return 0.5 * (at_least_float32(fake) - 1).square()

    def margin(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real minus 1/2, the middle between the two targets."""
        return at_least_float32(real) - 0.5


class Relativistic(AdversarialLoss):
    """D: softplus(D(G(z)) - D(x)). G: softplus(D(x) - D(G(z))): RpGAN, the loss of R3GAN.

    Source: Jolicoeur-Martineau 2018, arXiv:1807.00734; Huang et al. 2025, arXiv:2501.05441.
    """

    generator_reads_real = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(_difference(fake, real)).mean()

    def generator_terms(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            raise ValueError("Relativistic.generator: real is None; this loss compares fake logits with real ones")
        return F.softplus(_difference(real, fake))

    def margin(self, real: Tensor, fake: Tensor) -> Tensor:
        """Real minus fake: a constant added to all logits does not count."""
        return _difference(real, fake)


LOSSES: dict[str, type[AdversarialLoss]] = {
    "non_saturating": NonSaturating,
    "hinge": Hinge,
    "wasserstein": Wasserstein,
    "least_squares": LeastSquares,
    "relativistic": Relativistic,
}


def adversarial_loss(name: str) -> AdversarialLoss:
    """The loss of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in LOSSES:
        raise ValueError(f"loss={name!r} must be one of {', '.join(LOSSES)}{did_you_mean(name, LOSSES)}")
    return LOSSES[name]()


def check_loss(loss: object) -> None:
    """Refuses what is no loss, such as its name.

    Raises:
        TypeError: with the loss that may have been meant.
    """
    if not isinstance(loss, AdversarialLoss):
        meant = loss if isinstance(loss, str) else "hinge"
        raise TypeError(f"loss={loss!r} must be an AdversarialLoss: give adversarial_loss({meant!r})")


def _difference(first: Tensor, second: Tensor) -> Tensor:
    """[N], sample by sample."""
    if first.shape != second.shape:
        shapes = f"logits of shapes {list(first.shape)} and {list(second.shape)}"
        raise ValueError(f"{shapes}: this loss compares sample with sample; give as many fake images as real ones")
    return at_least_float32(first) - at_least_float32(second)
