"""Exponential moving average of the generator."""

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def ema_decay(*, half_life_images: float, rampup: float | None, images_seen: int, num_images: float) -> float:
    """0.5 ^ (num_images / half life): the share of the old average that is left after `num_images` more images.

    Args:
        half_life_images: images after which a weight counts half.
        rampup: early in training the half life is at most `rampup * images_seen`, so that the noise of the first
            weights is soon forgotten; None for a constant half life.
        images_seen: the clock before this update.
        num_images: images of this update.
    Source: Karras et al. 2020, arXiv:1912.04958, for the half life in images.
    """
    half_life = half_life_images if rampup is None else min(half_life_images, rampup * images_seen)
    return 0.5 ** (num_images / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """average = decay * average + (1 - decay) * network for parameters; buffers are copied.

    The vectors of a spectral norm are buffers: an average of unit vectors is shorter than one and shrinks sigma.
    """
    update: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    update(list(average.parameters()), list(network.parameters()), None)
    for copied, buffer in zip(average.buffers(), network.buffers(), strict=True):
        copied.copy_(buffer)
