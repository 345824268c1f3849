"""u'Wv and c u v' of several matrices at once: each one's derivative is the other, so that the pair is closed.

    y = u'Wv:    dW = g u v'          c u v':    dc = u'Hv

Whatever is made of them can be differentiated any number of times, with kernels throughout. u and v are constants.

Shape legend: L matrices; matrix i is [R_i, K_i], u_i [R_i], v_i [K_i].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan import native


@torch.library.custom_op("fastgan::bilinear", mutates_args=())
def bilinear(matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], impl: str) -> Tensor:
    """[L] of u_i' W_i v_i, in the dtype of u.

    Args:
        matrices: all of one dtype and device, contiguous.
        impl: native, triton or reference; no choice is made here.
    """
    if impl == "native":
        return native.bilinear(matrices, left, right)
    if impl == "triton":
        from fastgan.kernels import spectral_norm as kernels

        return kernels.bilinear(matrices, left, right)
    rows = zip(matrices, left, right, strict=True)
    return torch.stack([torch.dot(u, torch.mv(matrix.to(u.dtype), v)) for matrix, u, v in rows])


@torch.library.custom_op("fastgan::outer", mutates_args=())
def outer(
    coefficients: Tensor, left: Sequence[Tensor], right: Sequence[Tensor], dtype: torch.dtype, impl: str
) -> list[Tensor]:
    """c_i u_i v_i', [R_i, K_i] of `dtype`; coefficients [L] in the dtype of u."""
    if impl == "native":
        return native.outer(coefficients, left, right, dtypes=[dtype] * len(left))
    if impl == "triton":
        from fastgan.kernels import spectral_norm as kernels

        return kernels.outer(coefficients, left, right, dtype=dtype)
    rows = zip(coefficients.unbind(), left, right, strict=True)
    return [torch.outer(c * u, v).to(dtype) for c, u, v in rows]


@bilinear.register_fake
def _(matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], impl: str) -> Tensor:
    return left[0].new_empty(len(matrices))


@outer.register_fake
def _(
    coefficients: Tensor, left: Sequence[Tensor], right: Sequence[Tensor], dtype: torch.dtype, impl: str
) -> list[Tensor]:
    return [u.new_empty(u.shape[0], v.shape[0], dtype=dtype) for u, v in zip(left, right, strict=True)]


def _keep_for_bilinear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    matrices, left, right, ctx.impl = inputs
    ctx.dtype, ctx.num_layers = matrices[0].dtype, len(matrices)
    ctx.save_for_backward(*left, *right)


def _bilinear_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    vectors = ctx.saved_tensors  # once: checkpointing gives them no second time
    left, right = vectors[: ctx.num_layers], vectors[ctx.num_layers :]
    matrices = outer(gradient.contiguous(), list(left), list(right), ctx.dtype, ctx.impl)
    return matrices, [None] * ctx.num_layers, [None] * ctx.num_layers, None


def _keep_for_outer(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    _, left, right, _, ctx.impl = inputs
    ctx.num_layers = len(left)
    ctx.save_for_backward(*left, *right)


def _outer_backward(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    vectors = ctx.saved_tensors  # once: checkpointing gives them no second time
    left, right = vectors[: ctx.num_layers], vectors[ctx.num_layers :]
    matrices = [gradient.contiguous() for gradient in gradients]
    coefficients = bilinear(matrices, list(left), list(right), ctx.impl)
    return coefficients, [None] * ctx.num_layers, [None] * ctx.num_layers, None, None


bilinear.register_autograd(_bilinear_backward, setup_context=_keep_for_bilinear)
outer.register_autograd(_outer_backward, setup_context=_keep_for_outer)
