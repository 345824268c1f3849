"""Spectral norm of several matrices at once, by power iteration.

Shape legend: L matrices; matrix i is [R_i, K_i], its left vector u_i is [R_i], its right vector v_i is [K_i].
Source: Miyato et al. 2018, arXiv:1802.05957.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastgan.ops.choice import choose_implementation

# At or below this a matrix counts as zero: it is left as it is (sigma 1), so that neither it nor its gradient explodes.
EPSILON = 1e-12


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

    The order is that of `torch.nn.utils.parametrizations.spectral_norm`. A zero matrix leaves its u and v as they are.

    Args:
        matrices: L matrices W, [R_i, K_i], float32 or float64.
        left: L vectors u, [R_i]. right: L vectors v, [K_i]. Both of the matrices' dtype and of unit length.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """
    _check("power_iteration_", matrices, left, right)
    choose_implementation("spectral_norm", impl)
    if num_iterations < 1:
        raise ValueError(f"power_iteration_: num_iterations={num_iterations} must be at least 1")
    for matrix, u, v in zip(matrices, left, right, strict=True):
        for _ in range(num_iterations):
            _normalise_into(u, torch.mv(matrix, v))
            _normalise_into(v, torch.mv(matrix.t(), u))


def spectral_norm(
    matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor], *, impl: str = "auto"
) -> Tensor:
    """[L] of sigma_i = u_i' W_i v_i, the estimate of each matrix's largest singular value.

    Args:
        matrices, left, right: as in `power_iteration_`; u and v are constants, as in Miyato et al.
    Returns:
        [L], positive, differentiable in the matrices: d sigma / dW = u v'. A matrix with u'Wv <= EPSILON, such as
        zero, counts as already normalised: its sigma is the constant 1.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """
    _check("spectral_norm", matrices, left, right)
    choose_implementation("spectral_norm", impl)
    sigmas = [
        torch.dot(u.detach(), torch.mv(matrix, v.detach())) for matrix, u, v in zip(matrices, left, right, strict=True)
    ]
    sigma = torch.stack(sigmas)
    return torch.where(sigma > EPSILON, sigma, torch.ones_like(sigma))


def _normalise_into(vector: Tensor, new: Tensor) -> None:
    norm = torch.linalg.vector_norm(new)
    vector.copy_(torch.where(norm > EPSILON, new / norm.clamp_min(EPSILON), vector))


def _check(op: str, matrices: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> None:
    if not matrices or not len(matrices) == len(left) == len(right):
        counts = f"{len(matrices)} matrices, {len(left)} left and {len(right)} right vectors"
        raise ValueError(f"{op}: got {counts}; there must be the same number of each, at least one")
    for index, (matrix, u, v) in enumerate(zip(matrices, left, right, strict=True)):
        if matrix.dim() != 2 or list(u.shape) != [matrix.shape[0]] or list(v.shape) != [matrix.shape[1]]:
            got = f"matrix {list(matrix.shape)}, left {list(u.shape)}, right {list(v.shape)}"
            raise ValueError(f"{op}: number {index} has {got}; they must be [R, K], [R] and [K]")
        if matrix.dtype not in (torch.float32, torch.float64) or not matrix.dtype == u.dtype == v.dtype:
            got = f"dtypes {matrix.dtype}, {u.dtype}, {v.dtype}"
            raise TypeError(f"{op}: number {index} has {got}; they must be all float32 or all float64")
