"""Spectral norm of several matrices at once, by power iteration.

Shape legend: L matrices; matrix i is [R_i, K_i], its left vector u_i is [R_i], its right vector v_i is [K_i].
Source: Miyato et al. 2018, arXiv:1802.05957.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan import native
from fastgan.ops.bilinear import bilinear
from fastgan.ops.native_choice import choose_native

# At or below this a matrix counts as zero: it is left as it is (sigma 1), so that neither it nor its gradient explodes.
EPSILON = 1e-12

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class NonFiniteMatrixError(ValueError):
    """A matrix holds NaN or infinity; `index` is its number."""

    def __init__(self, op: str, index: int) -> None:
        super().__init__(f"{op}: matrices[{index}] holds numbers that are not finite; they must all be finite")
        self.index = index


@torch.no_grad()
def power_iteration_(
    matrices: Sequence[Tensor],
    left: Sequence[Tensor],
    right: Sequence[Tensor],
    *,
    num_iterations: int = 1,
    impl: str = "auto",
) -> None:
    """u = Wv / |Wv|, v = W'u / |W'u|, `num_iterations` times, in place in `left` (u) and `right` (v).

    The order is that of `torch.nn.utils.parametrizations.spectral_norm`. Where a norm is zero (at most EPSILON), as for
    a zero matrix, u and v of that matrix stay as they are. Sums are float32, float64 for float64 matrices.

    Args:
        matrices: L matrices W, [R_i, K_i], all float32, float64 or bfloat16.
        left: L vectors u, [R_i]. right: L vectors v, [K_i]. Both of unit length; float64 for float64 matrices,
            else float32.
        impl: auto, native, triton or reference.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule. On a CPU also for numbers that are not
            finite (NonFiniteMatrixError); a GPU would have to wait for that, there sigma becomes NaN.
        ImplementationError: if a forced implementation cannot serve.
    """
    _check("power_iteration_", matrices, left, right)
    if num_iterations < 1:
        raise ValueError(f"power_iteration_: num_iterations={num_iterations} must be at least 1")
    chosen = choose_native("power_iteration_", impl, matrices[0])
    if chosen == "reference":
        _iterate_reference(matrices, left, right, num_iterations)
        return
    ready = [matrix.contiguous() for matrix in matrices]
    if chosen == "native":
        native.power_iteration_(ready, left, right, num_iterations=num_iterations)
    else:
        from fastgan.kernels import spectral_norm as kernels

        kernels.power_iteration_(ready, left, right, num_iterations=num_iterations)


def spectral_norm(
    matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], *, impl: str = "auto"
) -> Tensor:
    """[L] of sigma_i = u_i' W_i v_i, the estimate of each matrix's largest singular value.

    Args:
        matrices, left, right, impl: as in `power_iteration_`; u and v are constants, as in Miyato et al..
    Returns:
        [L], dtype of u, differentiable any number of times in the matrices: d sigma / dW = u v'. A matrix with
        u'Wv <= EPSILON, such as zero, counts as already normalised: its sigma is the constant 1. NaN stays NaN.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
        ImplementationError: if a forced implementation cannot serve.
    """
    _check("spectral_norm", matrices, left, right)
    chosen = choose_native("spectral_norm", impl, matrices[0])
    fixed = [u.detach() for u in left], [v.detach() for v in right]
    if chosen == "reference":
        rows = zip(matrices, *fixed, strict=True)
        sigma = torch.stack([torch.dot(u, torch.mv(matrix.to(u.dtype), v)) for matrix, u, v in rows])
    else:
        sigma = bilinear([matrix.contiguous() for matrix in matrices], *fixed, chosen)
    return torch.where(sigma <= EPSILON, torch.ones_like(sigma), sigma)


def _iterate_reference(
    matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], num_iterations: int
) -> None:
    for index, (matrix, u, v) in enumerate(zip(matrices, left, right, strict=True)):
        wide = matrix.to(u.dtype)
        for _ in range(num_iterations):
            rows = torch.mv(wide, v)
            rows_norm = torch.linalg.vector_norm(rows)
            rows = rows / rows_norm.clamp_min(EPSILON)
            columns = torch.mv(wide.t(), rows)
            columns_norm = torch.linalg.vector_norm(columns)
            columns = columns / columns_norm.clamp_min(EPSILON)
            if u.device.type == "cpu":
                # On a CPU, looking costs nothing.
                norms = rows_norm.item(), columns_norm.item()
                if not math.isfinite(norms[1]):
                    raise NonFiniteMatrixError("power_iteration_", index)
                if min(norms) <= EPSILON:
                    break
            else:
                moves = (rows_norm > EPSILON) & (columns_norm > EPSILON)
                rows, columns = torch.where(moves, rows, u), torch.where(moves, columns, v)
            u.copy_(rows)
            v.copy_(columns)


def _check(op: str, matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    if not matrices or not len(matrices) == len(left) == len(right):
        counts = f"{len(matrices)} matrices, {len(left)} left and {len(right)} right vectors"
        raise ValueError(f"{op}: got {counts}; there must be the same number of each, at least one")
    first = matrices[0]
    vector_dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    for index, (matrix, u, v) in enumerate(zip(matrices, left, right, strict=True)):
        if matrix.dim() != 2 or list(u.shape) != [matrix.shape[0]] or list(v.shape) != [matrix.shape[1]]:
            got = f"matrix {list(matrix.shape)}, left {list(u.shape)}, right {list(v.shape)}"
            raise ValueError(f"{op}: number {index} has {got}; they must be [R, K], [R] and [K]")
        if matrix.numel() == 0:
            raise ValueError(f"{op}: number {index} has matrix {list(matrix.shape)}; R and K must be at least 1")
        if matrix.dtype not in _DTYPES or matrix.dtype != first.dtype or not u.dtype == v.dtype == vector_dtype:
            got = f"dtypes {matrix.dtype}, {u.dtype}, {v.dtype}"
            rule = "matrices must be all float32, all float64 or all bfloat16, vectors float32 (float64 for float64)"
            raise TypeError(f"{op}: number {index} has {got}; {rule}")
        if not matrix.device == u.device == v.device == first.device or not (u.is_contiguous() and v.is_contiguous()):
            got = f"devices {matrix.device}, {u.device}, {v.device}"
            raise ValueError(f"{op}: number {index} has {got}; all must be on {first.device}, vectors contiguous")
