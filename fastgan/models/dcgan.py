"""The DCGAN networks: transposed and strided 4x4 convolutions, after Radford et al. 2016, arXiv:1511.06434.

Two things differ from the paper: the generator normalises each pixel, not the batch (see
`fastgan.nn.normalization`), and the discriminator is spectrally normalised (Miyato et al. 2018).

Shape legend: N batch, Z latent size, E label embedding size, C channels, R resolution in pixels.
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from fastgan.nn import Conv2d, ConvTranspose2d, Dual, Embedding, PixelNorm, SpectrallyNormalized, SpectralNorm
from fastgan.nn.spectral_norm import HasMatrix

RESOLUTIONS = (32, 64, 128)
NORMALIZATIONS = ("pixel", "none")


def _widths(resolution: int, channels: int, max_channels: int) -> list[int]:
    """Channels from resolution R / 2 down to 4: `channels`, doubled at each halving, at most `max_channels`."""
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution={resolution} must be one of {', '.join(map(str, RESOLUTIONS))}")
    if channels < 1 or max_channels < channels:
        raise ValueError(f"channels={channels} must lie between 1 and max_channels={max_channels}")
    num_halvings = int(math.log2(resolution)) - 2
    return [min(channels * 2**i, max_channels) for i in range(num_halvings)]


class DCGANGenerator(SpectrallyNormalized):
    """Latents [N, Z] to images [N, image_channels, R, R] in (-1, 1).

    Args:
        resolution: R, one of 32, 64, 128.
        image_channels: 1 (grey) or 3 (RGB).
        latent_dim: Z.
        channels: C of the last hidden layer, at R / 2 pixels; doubles towards 4 pixels up to `max_channels`.
        normalization: "pixel" after each hidden layer, or "none".
        spectral_norm: whether to normalise the layers spectrally.
        num_classes: 0 for no labels; else the label's embedding [N, E] joins the latent.
        label_dim: E.
        dtype: in which hidden layers compute; the last layer computes in float32.
        impl: implementation of the ops.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        latent_dim: int,
        channels: int,
        max_channels: int,
        normalization: str = "pixel",
        spectral_norm: bool = False,
        num_classes: int = 0,
        label_dim: int = 0,
        dtype: torch.dtype = torch.float32,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization={normalization!r} must be one of {', '.join(NORMALIZATIONS)}")
        self.latent_dim, self.num_classes, self.dtype = latent_dim, num_classes, dtype
        widths = _widths(resolution, channels, max_channels)[::-1]
        self.embedding = Embedding(num_classes, label_dim) if num_classes else None
        self.norm = PixelNorm() if normalization == "pixel" else nn.Identity()
        self.normalize_latent = PixelNorm()
        in_dim = latent_dim + (label_dim if num_classes else 0)
        first = ConvTranspose2d(in_dim, widths[0], kernel_size=4, activation="relu", impl=impl)
        self.hidden = nn.ModuleList([first])
        for narrow, wide in zip(widths[1:], widths, strict=False):
            layer = ConvTranspose2d(wide, narrow, kernel_size=4, stride=2, padding=1, activation="relu", impl=impl)
            self.hidden.append(layer)
        self.to_image = ConvTranspose2d(
            widths[-1], image_channels, kernel_size=4, stride=2, padding=1, activation="tanh", impl=impl
        )
        self.spectral_norm = SpectralNorm(self.normalized_layers()) if spectral_norm else None

    def normalized_layers(self) -> list[HasMatrix]:
        """Every transposed convolution, first to last."""
        return [*self.hidden, self.to_image]

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, Z] float32 (and [N] int64 labels) to [N, image_channels, R, R] float32 in (-1, 1)."""
        scales = self.scales()
        x = self.normalize_latent(latents)
        if self.embedding is not None:
            x = torch.cat([x, self.normalize_latent(self.embedding(_required(labels, "generator")))], dim=1)
        x = x.to(self.dtype)[:, :, None, None]
        for layer in self.hidden:
            x = self.norm(layer(x, next(scales)))
        image: Tensor = self.to_image(x.float() if x.dtype != torch.float64 else x, next(scales))
        return image


class DCGANDiscriminator(SpectrallyNormalized):
    """Images [N, image_channels, R, R] to logits [N]; with labels, a projection discriminator.

    Args:
        channels: C of the first layer, at R / 2 pixels; doubles towards 4 pixels up to `max_channels`.
        spectral_norm: whether to normalise the layers spectrally, with so many power iterations per update.
        num_classes: 0 for no labels; else the logit gains <embedding(label), features summed over pixels>
            (Miyato and Koyama 2018, arXiv:1802.05637).
        resolution, image_channels, dtype, impl: as in `DCGANGenerator`.
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        max_channels: int,
        spectral_norm: bool = True,
        spectral_norm_iterations: int = 1,
        num_classes: int = 0,
        dtype: torch.dtype = torch.float32,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.num_classes, self.dtype = num_classes, dtype
        widths = [image_channels, *_widths(resolution, channels, max_channels)]
        self.hidden = nn.ModuleList()
        for wide, narrow in zip(widths[1:], widths, strict=False):
            layer = Conv2d(narrow, wide, kernel_size=4, stride=2, padding=1, activation="leaky_relu", impl=impl)
            self.hidden.append(layer)
        self.to_logit = Conv2d(widths[-1], 1, kernel_size=4, impl=impl)
        self.embedding = Embedding(num_classes, widths[-1]) if num_classes else None
        self.spectral_norm = (
            SpectralNorm(self.normalized_layers(), num_iterations=spectral_norm_iterations) if spectral_norm else None
        )

    def normalized_layers(self) -> list[HasMatrix]:
        """Every convolution, first to last, then the label embedding."""
        layers: list[HasMatrix] = [*self.hidden, self.to_logit]
        return layers if self.embedding is None else [*layers, self.embedding]

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, image_channels, R, R] float32 in [-1, 1] (and [N] int64 labels) to [N] float32."""
        scales = self.scales()
        x = images.to(self.dtype)
        for layer in self.hidden:
            x = layer(x, next(scales))
        x = x.float() if x.dtype != torch.float64 else x
        logits: Tensor = self.to_logit(x, next(scales)).flatten()
        if self.embedding is None:
            return logits
        rows = self.embedding(_required(labels, "discriminator"), next(scales))
        projection: Tensor = (x.sum(dim=(2, 3)) * rows).sum(dim=1)
        return logits + projection

    def dual(self, images: Dual, labels: Tensor | None = None) -> Dual:
        """`forward` on dual numbers: logits and their derivative along `images.tangent`, each [N]."""
        scales = self.scales()
        x = Dual(*(part.to(self.dtype) for part in images))
        for layer in cast(Iterable[Conv2d], self.hidden):
            x = layer.dual(x, next(scales))
        if x.value.dtype != torch.float64:
            x = Dual(x.value.float(), x.tangent.float())
        logits, tangents = (part.flatten() for part in self.to_logit.dual(x, next(scales)))
        if self.embedding is None:
            return Dual(logits, tangents)
        rows: Tensor = self.embedding(_required(labels, "discriminator"), next(scales))
        projections = [(part.sum(dim=(2, 3)) * rows).sum(dim=1) for part in x]
        return Dual(logits + projections[0], tangents + projections[1])


def _required(labels: Tensor | None, network: str) -> Tensor:
    if labels is None:
        raise ValueError(f"{network}: labels is None; a network with classes needs a label for each sample")
    return labels
