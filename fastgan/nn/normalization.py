"""Normalisations that treat every sample by itself.

Batch statistics are left out on purpose: they make the result depend on the number of ranks and micro-batches, and
an input gradient of one sample depend on the others, which falsifies gradient penalties.

Shape legend: N batch, C channels, H W pixels.
"""

import torch
from torch import Tensor, nn

from fastgan.nn.dual import Dual


class PixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + epsilon), at each pixel.

    Source: Karras et al. 2018, arXiv:1710.10196.
    """

    def __init__(self, *, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] to the same shape and dtype; the mean is taken in float32 at least."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.square().mean(dim=1, keepdim=True) + self.epsilon)).to(x.dtype)

    def dual(self, x: Dual) -> Dual:
        """`forward` on dual numbers: with r = 1 / sqrt(mean x^2 + epsilon), dy = r dx - r^3 x mean(x dx)."""
        dtype = torch.promote_types(x.value.dtype, torch.float32)
        value, tangent = x.value.to(dtype), x.tangent.to(dtype)
        r = torch.rsqrt(value.square().mean(dim=1, keepdim=True) + self.epsilon)
        change = r * tangent - r.pow(3) * value * (value * tangent).mean(dim=1, keepdim=True)
        return Dual((value * r).to(x.value.dtype), change.to(x.value.dtype))
