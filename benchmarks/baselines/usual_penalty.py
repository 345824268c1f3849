"""The discriminator's loss with penalties as it is usually written: a pass for each kind of image, eager autograd.

Shape legend: N batch, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fastgan.objectives import AdversarialLoss

PENALTIES = ("r1", "r2", "wgan_gp")


def usual_discriminator_loss(
    judge: Callable[[Tensor], Tensor],
    loss: AdversarialLoss,
    real: Tensor,
    fake: Tensor,
    *,
    due: Mapping[str, float],
    interpolation: Tensor | None = None,
) -> Tensor:
    """loss(D(real), D(fake)) plus the penalties in `due`, each times its weight.

    Args:
        judge: D, images [N, C, H, W] to logits [N].
        real, fake: [N, C, H, W].
        due: weights of penalties among PENALTIES.
        interpolation: [N] in [0, 1], the weights of real images, for wgan_gp.
    """
    real = real.detach().requires_grad_("r1" in due)
    fake = fake.detach().requires_grad_("r2" in due)
    real_logits, fake_logits = judge(real), judge(fake)
    total = loss.discriminator(real_logits, fake_logits)
    for kind, weight in due.items():
        if kind == "wgan_gp":
            assert interpolation is not None
            share = interpolation[:, None, None, None]
            points = (share * real + (1 - share) * fake).detach().requires_grad_()
            total = total + weight * (_squared_norms(judge(points), points).sqrt() - 1).pow(2).mean()
        else:
            logits, images = (real_logits, real) if kind == "r1" else (fake_logits, fake)
            total = total + weight * _squared_norms(logits, images).mean()
    return total


def _squared_norms(logits: Tensor, images: Tensor) -> Tensor:
    """[N]: |d logits / d images|^2."""
    (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradients.pow(2).sum(dim=(1, 2, 3))
