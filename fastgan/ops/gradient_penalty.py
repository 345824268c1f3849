"""Per-sample penalty on the norm of an input gradient, and points between real and fake images.

Shape legend: N batch, ... any other dimensions, M numbers per sample.
"""

from typing import Any

import torch
from torch import Tensor

from fastgan import native
from fastgan.ops.native_choice import choose_native


def gradient_penalty(gradients: Tensor, *, center: float = 0.0, one_sided: bool = False, impl: str = "auto") -> Tensor:
    """(|g_n| - center)^2 for each sample n; with `one_sided`, max(0, |g_n| - center)^2.

    Args:
        gradients: [N, ...], d logits / d images, floating point.
        center: norm that costs nothing: 0 for R1 and R2, 1 for WGAN-GP.
        one_sided: only norms above `center` cost.
        impl: auto, native, triton or reference.
    Returns:
        [N], float32 (float64 for float64 input), summed in that dtype; differentiable any number of times. Where
        g_n = 0 and center is not 0, every derivative is taken as 0.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
        ImplementationError: if a forced implementation cannot serve.
    Source: Mescheder et al. 2018, arXiv:1801.04406 (center 0); Gulrajani et al. 2017, arXiv:1704.00028 (center 1).
    """
    if gradients.dim() < 2:
        raise ValueError(f"gradient_penalty: gradients has shape {list(gradients.shape)}; it must be [N, ...]")
    if not gradients.is_floating_point():
        raise TypeError(f"gradient_penalty: gradients has dtype {gradients.dtype}; it must be floating point")
    if not 0 <= center < float("inf"):
        raise ValueError(f"gradient_penalty: center={center} must be finite and not negative")
    chosen = choose_native("gradient_penalty", impl, gradients)
    # The sum does not depend on the order of a sample's numbers, and a copy would cost more than the sum.
    rows = _memory_rows(gradients)
    rows = gradients.flatten(1) if rows is None else rows
    if chosen == "reference" or gradients.numel() == 0:
        return _reference(rows, center, one_sided)
    penalty: Tensor = fused_penalty(rows.contiguous(), center, one_sided, chosen)[0]
    return penalty


def interpolate(real: Tensor, fake: Tensor, weights: Tensor, *, impl: str = "auto") -> Tensor:
    """weights * real + (1 - weights) * fake, sample by sample.

    Args:
        real, fake: [N, C, H, W], same shape, dtype and device.
        weights: [N], in [0, 1], on the device of `real`.
        impl: auto, native, triton or reference; the kernels are for images that need no gradient.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
        ImplementationError: if a forced implementation cannot serve.
    """
    if real.shape != fake.shape or weights.shape != real.shape[:1]:
        got = f"real {list(real.shape)}, fake {list(fake.shape)}, weights {list(weights.shape)}"
        raise ValueError(f"interpolate: got {got}; real and fake must be equal in shape and weights be [N]")
    if real.dtype != fake.dtype or not real.is_floating_point():
        raise TypeError(f"interpolate: got dtypes {real.dtype} and {fake.dtype}; they must be equal, floating point")
    if not real.device == fake.device == weights.device:
        got = f"real on {real.device}, fake on {fake.device}, weights on {weights.device}"
        raise ValueError(f"interpolate: got {got}; they must be on one device")
    chosen = choose_native("interpolate", impl, real)
    needs_graph = torch.is_grad_enabled() and any(t.requires_grad for t in (real, fake, weights))
    if chosen == "reference" or needs_graph or real.numel() == 0:
        return torch.lerp(fake, real, weights.to(real.dtype).view(-1, *[1] * (real.dim() - 1)))
    if _memory_rows(real) is None:
        real = real.contiguous()
    fake = fake if fake.stride() == real.stride() else torch.empty_like(real).copy_(fake)
    points = torch.empty_like(real)
    rows = [row for row in map(_memory_rows, (real, fake, points)) if row is not None]
    if chosen == "native":
        native.interpolate(*rows, weights=weights.float().contiguous())
    else:
        from fastgan.kernels import gradient_penalty as kernels

        kernels.interpolate(*rows, weights=weights.float().contiguous())
    return points


def _reference(rows: Tensor, center: float, one_sided: bool) -> Tensor:
    """The definition of `gradient_penalty` for rows [N, M], in plain PyTorch."""
    g = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if center == 0:
        return g.square().sum(dim=1)
    excess = _norms(g) - center
    return excess.clamp_min(0).square() if one_sided else excess.square()


def _norms(rows: Tensor) -> Tensor:
    """[N] of |g_n|, with derivatives 0 where g_n = 0."""
    # The second derivative of `torch.linalg.vector_norm` is NaN there.
    squares = rows.square().sum(dim=1)
    is_zero = squares == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squares).sqrt())


def _memory_rows(images: Tensor) -> Tensor | None:
    """[N, M], a view of each sample's numbers as they lie in memory; None if they have gaps or another order."""
    if images.is_contiguous():
        return images.flatten(1)
    if images.dim() == 4:
        channels_last = images.permute(0, 2, 3, 1)
        return channels_last.flatten(1) if channels_last.is_contiguous() else None
    return None


@torch.library.custom_op("fastgan::gradient_penalty", mutates_args=())
def fused_penalty(rows: Tensor, center: float, one_sided: bool, impl: str) -> tuple[Tensor, Tensor]:
    """[N] penalties of rows [N, M], and [N] factors: d penalty_n / d rows_n = factor_n * rows_n; one pass."""
    if impl == "native":
        return native.gradient_penalty(rows, center=center, one_sided=one_sided)
    if impl == "triton":
        from fastgan.kernels import gradient_penalty as kernels

        return kernels.gradient_penalty(rows, center=center, one_sided=one_sided)
    return _reference(rows, center, one_sided), penalty_factor(rows, center, one_sided)


def penalty_factor(rows: Tensor, center: float, one_sided: bool) -> Tensor:
    """[N]: what a sample's gradient is multiplied by in the penalty's derivative; 0 where it is not defined."""
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if center == 0:
        return torch.full_like(wide[:, 0], 2.0)
    norm = _norms(wide)
    excess = (norm - center).clamp_min(0) if one_sided else norm - center
    is_zero = norm == 0
    return torch.where(is_zero, torch.zeros_like(norm), 2 * excess / torch.where(is_zero, torch.ones_like(norm), norm))


@torch.library.custom_op("fastgan::scale_samples", mutates_args=())
def _scale_samples(rows: Tensor, factors: Tensor, cotangents: Tensor, impl: str) -> Tensor:
    """factors_n * cotangents_n * rows_n in one pass; not differentiable, see `_penalty_backward`."""
    if impl == "native":
        return native.scale_samples(rows, factors, cotangents)
    if impl == "triton":
        from fastgan.kernels import gradient_penalty as kernels

        return kernels.scale_samples(rows, factors, cotangents)
    return (rows * (factors * cotangents)[:, None]).to(rows.dtype)


@fused_penalty.register_fake
def _(rows: Tensor, center: float, one_sided: bool, impl: str) -> tuple[Tensor, Tensor]:
    sums = rows.new_empty(rows.shape[0], dtype=torch.promote_types(rows.dtype, torch.float32))
    return sums, torch.empty_like(sums)


@_scale_samples.register_fake
def _(rows: Tensor, factors: Tensor, cotangents: Tensor, impl: str) -> Tensor:
    return torch.empty_like(rows)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows, ctx.center, ctx.one_sided, ctx.impl = inputs
    ctx.save_for_backward(rows, output[1])
    ctx.mark_non_differentiable(output[1])


def _penalty_backward(ctx: Any, cotangents: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    rows, factors = ctx.saved_tensors
    if torch.is_grad_enabled():
        # Someone will differentiate this gradient too: plain PyTorch, which can be, any number of times.
        scale = penalty_factor(rows, ctx.center, ctx.one_sided) * cotangents
        return (rows * scale[:, None]).to(rows.dtype), None, None, None
    return _scale_samples(rows, factors, cotangents.contiguous(), ctx.impl), None, None, None


fused_penalty.register_autograd(_penalty_backward, setup_context=_keep)
