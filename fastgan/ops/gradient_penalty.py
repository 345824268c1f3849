"""Per-sample penalty on the norm of an input gradient.

Shape legend: N batch, ... any other dimensions.
"""

import torch
from torch import Tensor

from fastgan.ops.choice import choose_implementation


def gradient_penalty(gradients: Tensor, *, center: float = 0.0, one_sided: bool = False, impl: str = "auto") -> Tensor:
    """(|g_n| - center)^2 for each sample n; with `one_sided`, max(0, |g_n| - center)^2.

    Args:
        gradients: [N, ...], d logits / d images, floating point.
        center: norm that costs nothing: 0 for R1 and R2, 1 for WGAN-GP.
        one_sided: only norms above `center` cost.
    Returns:
        [N], float32 (float64 for float64 input), summed in that dtype; differentiable. Where g_n = 0 and center is
        not 0, the gradient is taken as 0.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    Source: Mescheder et al. 2018, arXiv:1801.04406 (center 0); Gulrajani et al. 2017, arXiv:1704.00028 (center 1).
    """
    if gradients.dim() < 2:
        raise ValueError(f"gradient_penalty: gradients has shape {list(gradients.shape)}; it must be [N, ...]")
    if not gradients.is_floating_point():
        raise TypeError(f"gradient_penalty: gradients has dtype {gradients.dtype}; it must be floating point")
    if not 0 <= center < float("inf"):
        raise ValueError(f"gradient_penalty: center={center} must be finite and not negative")
    choose_implementation("gradient_penalty", impl)
    g = gradients.to(torch.promote_types(gradients.dtype, torch.float32)).flatten(1)
    if center == 0:
        return g.square().sum(dim=1)
    excess: Tensor = torch.linalg.vector_norm(g, dim=1) - center
    return excess.clamp_min(0).square() if one_sided else excess.square()
