"""Three ways to compute a gradient penalty: `double`, `dual` and `approximate`.

double         exact; differentiates the input gradient a second time
dual           exact; the penalty's gradient in the parameters is that of the derivative of D along its own input
               gradient, held constant: two first-order passes, for whatever cannot differentiate twice
approximate    |D(x) - D(x + sigma e)|^2 / sigma^2 with e standard normal, whose mean tends to |dD/dx|^2 as sigma does
               to 0: first order only, one forward pass more (Lin et al. 2025, arXiv:2501.08316). With activations that
               have a kink, such as a leaky ReLU, its gradient also follows the kinks between x and x + sigma e, which
               the exact modes do not see. In bf16 the difference also has the logits' rounding: for a small network
               up to a sixth of the penalty with sigma 0.01, and a twentieth with 0.1

Shape legend: N batch, C channels, H W pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.errors import did_you_mean
from fastgan.nn import Dual, has_dual
from fastgan.objectives.logits import dual_logits_of, logits_of
from fastgan.objectives.penalties import PENALTIES, PenaltyRule, input_gradients
from fastgan.ops import gradient_penalty, no_weight_gradients

MODES = ("double", "dual", "approximate")

# Makes standard normal numbers, [N, C, H, W], when they are needed.
Noise = Callable[[], Tensor]


class PenaltyMode(NamedTuple):
    """How one penalty is computed; `sigma` is the size of the step that `approximate` takes, in image units."""

    name: str = "double"
    sigma: float = 0.01


class Judged(NamedTuple):
    """Logits [N], and each sample's penalty [N]."""

    logits: Tensor
    penalties: Tensor


def check_mode(kind: str, mode: PenaltyMode, discriminator: nn.Module) -> None:
    """Refuses a mode that cannot compute the penalty `kind` of this discriminator.

    Raises:
        ValueError, TypeError: naming the penalty, the reason and the alternative.
    """
    if not isinstance(mode, PenaltyMode):
        raise TypeError(f"penalty {kind}: mode={mode!r} must be a PenaltyMode, such as PenaltyMode('dual')")
    if mode.name not in MODES:
        rule = f"must be one of {', '.join(MODES)}"
        raise ValueError(f"penalty {kind}: mode={mode.name!r} {rule}{did_you_mean(mode.name, MODES)}")
    if mode.name == "dual" and not has_dual(discriminator):
        reason = f"mode='dual' needs a discriminator with a method dual, and {type(discriminator).__name__} has none"
        raise ValueError(f"penalty {kind}: {reason}; use mode='double'")
    if mode.name == "approximate" and PENALTIES[kind].center != 0:
        reason = "mode='approximate' estimates |gradient|^2, and this penalty is about |gradient|"
        raise ValueError(f"penalty {kind}: {reason}; use mode='double' or 'dual'")
    if not 0 < mode.sigma < float("inf"):
        raise ValueError(f"penalty {kind}: sigma={mode.sigma} must be positive and finite")


def judge(
    discriminator: nn.Module,
    images: Tensor,
    labels: Tensor | None,
    *,
    rule: PenaltyRule,
    mode: PenaltyMode,
    noise: Noise | None,
) -> Judged:
    """Logits and penalties by `mode`, whose fitness for the rule `check_mode` has seen.

    Args:
        images: [N, C, H, W], without a graph.
        noise: only called by `approximate`, which needs it.
    Raises:
        TypeError: for images that cannot have a gradient.
        ValueError: unless there is one logit per image, or if noise has another shape than the images.
    """
    if not images.is_floating_point():
        raise TypeError(f"penalty on images of dtype {images.dtype}; they must be floating point, in [-1, 1]")
    match mode.name:
        case "dual":
            return _judge_dual(discriminator, images, labels, rule)
        case "approximate":
            assert noise is not None
            logits = logits_of(discriminator, images, labels)
            moved = logits_of(discriminator, images + mode.sigma * made_noise(noise, images.shape), labels)
            return Judged(logits, ((moved - logits) / mode.sigma).square())
    images = images.requires_grad_()
    logits = logits_of(discriminator, images, labels)
    gradients = input_gradients(logits, images)
    return Judged(logits, gradient_penalty(gradients, center=rule.center, one_sided=rule.one_sided))


def made_noise(noise: Noise, shape: torch.Size) -> Tensor:
    """Noise of that shape.

    Raises:
        ValueError: if it has another one.
    """
    made = noise()
    if made.shape != shape:
        raise ValueError(f"noise made the shape {list(made.shape)}; it must make that of the images, {list(shape)}")
    return made


def _judge_dual(discriminator: nn.Module, images: Tensor, labels: Tensor | None, rule: PenaltyRule) -> Judged:
    images = images.detach().requires_grad_()
    with torch.enable_grad(), no_weight_gradients():
        (gradients,) = torch.autograd.grad(logits_of(discriminator, images, labels).sum(), images)
    # d penalty / d parameters = <d penalty / d gradients, d gradients / d parameters>.
    gradients = gradients.requires_grad_()
    with torch.enable_grad():
        values = gradient_penalty(gradients, center=rule.center, one_sided=rule.one_sided)
        (direction,) = torch.autograd.grad(values.sum(), gradients)
    logits, slopes = dual_logits_of(discriminator, Dual(images.detach(), direction.detach()), labels)
    # The value is the penalty, the gradient that of the slope.
    return Judged(logits, values.detach() + slopes - slopes.detach())
