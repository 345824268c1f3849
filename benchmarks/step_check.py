"""What two training steps do to networks, in a form that tells a wrong step from rounding.

Shape legend: S steps, P parameters of a network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.gate import multiplies_in_tf32, norm_error

# In the first step all lazy penalties are due, in the second none; its losses show what the first one did.
NUM_STEPS = 2
# Adam divides by the size of a gradient, so one of rounding errors alone moves its weight as far as any other would, in
# a direction of chance. With an epsilon above most gradients such weights stay where they are.
_SMOOTH_EPSILON = 1e-2
# Losses are means over a batch: measured in fp32 and bf16, their error is 50 to 100 times smaller than a gradient's.
_LOSS_WEIGHT = 50.0
# A pre-activation so close to zero that rounding changes its sign changes a leaky ReLU's slope, and with it a gradient
# by as much as one unit of a layer counts: 1e-3 of its norm. In fp32 one in some steps does that; in bf16 0.3% of all
# do, and the gradients of a step differ by 0.03 to 0.18. TF32, with 3 more bits, lies between the two.
_TOLERANCE, _TF32_TOLERANCE, _BF16_TOLERANCE = 1e-2, 0.15, 0.3


def tolerance(precision: str, device: torch.device) -> float:
    """The largest `step_error` of a right step."""
    if precision == "bf16":
        return _BF16_TOLERANCE
    return _TF32_TOLERANCE if multiplies_in_tf32(device) else _TOLERANCE


def train(
    step: Callable[[], Sequence[float]],
    *,
    networks: Sequence[Sequence[Tensor]],
    vectors: Sequence[Sequence[Tensor]],
    optimizers: Sequence[torch.optim.Optimizer],
) -> list[Tensor]:
    """Makes NUM_STEPS steps, during which the optimizers' epsilon is large.

    Args:
        step: makes one and says its losses.
        networks: the parameters of each.
        vectors: the left vectors of each network's spectral norm; none where it has none. The weights hardly tell how
            often vectors that have nearly converged moved.
    Returns:
        Losses [S, ...], then for each network the change of all of its parameters, [P] in float64, then for each with
        spectral norm that of all its vectors.
    """
    parts = [*networks, *filter(None, vectors)]
    before = [flat(part) for part in parts]
    with _smooth(optimizers):
        losses = torch.tensor([list(step()) for _ in range(NUM_STEPS)], dtype=torch.float64)
    return [losses, *(flat(part) - start for part, start in zip(parts, before, strict=True))]


def step_error(outputs: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """|y - exact| / |exact| in the 2-norm, the largest over all changes and 50 times that of the losses."""
    losses, *changes = (norm_error(y, e) for y, e in zip(outputs, exact, strict=True))
    return max(_LOSS_WEIGHT * losses, *changes)


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """[P] in float64, a copy: each tensor in the order of its indices, whatever its order in memory is."""
    return torch.cat([parameter.detach().double().flatten() for parameter in parameters])


@contextlib.contextmanager
def _smooth(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [group["eps"] for group in groups]
    for group in groups:
        group["eps"] = _SMOOTH_EPSILON
    try:
        yield
    finally:
        for group, eps in zip(groups, before, strict=True):
            group["eps"] = eps
