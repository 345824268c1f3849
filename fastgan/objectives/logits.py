"""What comes back from a discriminator: one logit per image, whichever way it is asked.

Shapes alone are looked at, so that no device is waited for.

Shape legend: N batch, C channels, H W pixels.
"""

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from fastgan.nn import Dual, HasDual
from fastgan.objectives.losses import at_least_float32

# Images [N, C, H, W] and labels [N] or None, to logits [N] or [N, 1].
Discriminator = Callable[[Tensor, Tensor | None], Tensor]


def logits_of(discriminator: Discriminator, images: Tensor, labels: Tensor | None) -> Tensor:
    """[N] float32 or float64: D(images), where N is positive.

    Raises:
        ValueError, TypeError: without an image, or unless the discriminator returns logits [N] or [N, 1].
    """
    check_not_empty(images)
    return _one_per_image(discriminator(images, labels), images, discriminator)


def dual_logits_of(discriminator: nn.Module, images: Dual, labels: Tensor | None) -> Dual:
    """As `logits_of` on dual numbers, for a discriminator that has a `dual`."""
    check_not_empty(images.value)
    logits = cast(HasDual, discriminator).dual(images, labels)
    return Dual(*(_one_per_image(part, images.value, discriminator) for part in logits))


def check_not_empty(images: Tensor) -> None:
    """Refuses a batch without images, whose means would be NaN.

    Raises:
        ValueError: naming the shape.
    """
    if images.shape[0] == 0:
        raise ValueError(f"images of shape {list(images.shape)}: a batch must have at least one image")


def _one_per_image(logits: Tensor, images: Tensor, discriminator: object) -> Tensor:
    name, num_images = type(discriminator).__name__, images.shape[0]
    if not isinstance(logits, Tensor):
        raise TypeError(f"discriminator {name} returned a {type(logits).__name__}; it must return logits [N], a tensor")
    if logits.shape not in ((num_images,), (num_images, 1)):
        got = f"discriminator {name} returned logits of shape {list(logits.shape)} for {num_images} images"
        rule = f"it must return one logit per image, [{num_images}] or [{num_images}, 1]"
        raise ValueError(f"{got}; {rule}: take the mean over patches, logits.flatten(1).mean(dim=1)")
    return at_least_float32(logits if logits.dim() == 1 else logits.flatten())
