"""Gradient penalties of the discriminator.

All of them differentiate the sum of the logits with respect to the images and keep the graph, so that the penalty
itself can be differentiated; the samples' gradients stay apart because no layer mixes samples.

Weights multiply these formulas as they stand: Mescheder's R1 with gamma is weight = gamma / 2.

Shape legend: N batch, C channels, H W pixels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan.ops import gradient_penalty, no_weight_gradients


class PenaltyRule(NamedTuple):
    """What a penalty wants of the gradient's norm |g|: (|g| - center)^2, or max(0, |g| - center)^2 if `one_sided`.

    Attributes:
        center: the norm that costs nothing.
        one_sided: whether smaller norms cost nothing, either.
        is_between: whether it looks between real and fake images, and so needs a point on each line.
    """

    center: float = 0.0
    one_sided: bool = False
    is_between: bool = False


PENALTIES: Mapping[str, PenaltyRule] = {
    "r1": PenaltyRule(),
    "r2": PenaltyRule(),
    "wgan_gp": PenaltyRule(center=1.0, is_between=True),
    "wgan_lp": PenaltyRule(center=1.0, one_sided=True, is_between=True),
    "zero_centered": PenaltyRule(is_between=True),
}


def input_gradients(logits: Tensor, images: Tensor) -> Tensor:
    """[N, C, H, W]: d sum(logits) / d images, differentiable once more.

    Args:
        logits: [N], computed from `images` without detaching.
        images: [N, C, H, W], requires_grad=True.
    Raises:
        ValueError: if `images` does not require grad, or no gradient leads from the logits to them.
    """
    if not images.requires_grad:
        raise ValueError("input_gradients: images.requires_grad is False; set it before the discriminator's forward")
    if not logits.requires_grad:
        raise ValueError("input_gradients: logits.requires_grad is False; judge the images outside of torch.no_grad()")
    with no_weight_gradients():
        (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True, allow_unused=True)
    if gradients is None:
        raise ValueError("input_gradients: logits do not depend on images; the discriminator must not detach them")
    found: Tensor = gradients
    return found


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of |d logits / d images|^2, the zero-centred penalty on real images.

    Args:
        logits: [N], computed from `images` without detaching.
        images: [N, C, H, W], real, requires_grad=True.
    Returns:
        Scalar float32, differentiable once more.
    Raises:
        ValueError: if `images` does not require grad.
    Source: Mescheder et al. 2018, arXiv:1801.04406.
    """
    return gradient_penalty(input_gradients(logits, images)).mean()


def r2_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of |d logits / d images|^2 on generated images; arguments as `r1_penalty`.

    Source: Mescheder et al. 2018, arXiv:1801.04406.
    """
    return gradient_penalty(input_gradients(logits, images)).mean()


def wgan_gp_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of (|d logits / d images| - 1)^2 on interpolates; arguments as `r1_penalty`.

    Source: Gulrajani et al. 2017, arXiv:1704.00028.
    """
    return gradient_penalty(input_gradients(logits, images), center=1.0).mean()


def wgan_lp_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of max(0, |d logits / d images| - 1)^2 on interpolates; arguments as `r1_penalty`.

    Source: Petzka et al. 2018, arXiv:1709.08894.
    """
    return gradient_penalty(input_gradients(logits, images), center=1.0, one_sided=True).mean()


def zero_centered_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean over the batch of |d logits / d images|^2 on interpolates; arguments as `r1_penalty`.

    Source: Thanh-Tung et al. 2019, arXiv:1902.03984 (0-GP).
    """
    return gradient_penalty(input_gradients(logits, images)).mean()
