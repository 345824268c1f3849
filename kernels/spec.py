"""What ops and kernels tell each other about a convolution and about the activation behind it; without Triton."""

from typing import NamedTuple

import torch

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "silu")

# The slope that GAN papers use since DCGAN (Radford et al. 2016, arXiv:1511.06434).
LEAKY_RELU_SLOPE = 0.2


class Activation(NamedTuple):
    """z -> clamp(gain * activation(z)); `clamp` bounds the absolute value, None leaves it free."""

    name: str = "linear"
    gain: float = 1.0
    clamp: float | None = None

    @property
    def is_identity(self) -> bool:
        return self == Activation()

    @property
    def is_curved(self) -> bool:
        """Whether the derivative changes with z other than by jumps, so that there is a second derivative."""
        return self.name in ("tanh", "silu")

    @property
    def keeps_input(self) -> bool:
        """Whether the derivative is computed from z; otherwise it is computed from the result."""
        return self.name == "silu"


def saved_clamp(activation: Activation, dtype: torch.dtype) -> float | None:
    """The clamp as it stands in what was saved: a saved result was rounded to `dtype`, so the bound is rounded too."""
    if activation.clamp is None or activation.keeps_input:
        return activation.clamp
    return float(torch.tensor(activation.clamp, dtype=torch.float64).to(dtype))


class Geometry(NamedTuple):
    """How a convolution's pixels meet: one stride for both axes, padding and output padding as (y, x).

    Output padding belongs to transposed convolutions and is (0, 0) for others.
    """

    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def conv_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """(H', W') of a convolution of (H, W) pixels: floor((H + 2 padding - K) / stride) + 1."""
        height, width = (
            (pixels + 2 * padding - taps) // self.stride + 1
            for pixels, padding, taps in zip(size, self.padding, kernel, strict=True)
        )
        return height, width

    def conv_transpose_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """(H', W') of a transposed convolution: (H - 1) stride - 2 padding + K + output padding."""
        height, width = (
            (pixels - 1) * self.stride - 2 * padding + taps + extra
            for pixels, padding, taps, extra in zip(size, self.padding, kernel, self.output_padding, strict=True)
        )
        return height, width

    def transposed_onto(self, size: tuple[int, int], small: tuple[int, int], kernel: tuple[int, int]) -> "Geometry":
        """The transposed convolution that leads from `small` (H', W') pixels back to exactly `size` (H, W) pixels."""
        plain = self._replace(output_padding=(0, 0))
        height, width = plain.conv_transpose_size(small, kernel)
        return plain._replace(output_padding=(size[0] - height, size[1] - width))
