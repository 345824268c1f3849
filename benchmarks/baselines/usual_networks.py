"""The DCGAN networks written the usual way, from `torch.nn` layers, with the weights of fastgan's networks.

Shape legend: N batch, Z latent size, C input channels, O output channels, H W pixels, K kernel size.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.nn import Conv2d, ConvTranspose2d, SpectralNorm
from fastgan.ops import LEAKY_RELU_SLOPE

Convolution = nn.Conv2d | nn.ConvTranspose2d


class UsualPixelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + epsilon), at each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] to the same shape."""
        return x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


class UsualGenerator(nn.Module):
    """Latents [N, Z] to images [N, C, H, W], as the `generator` it copies."""

    def __init__(self, generator: DCGANGenerator) -> None:
        super().__init__()
        _refuse_labels(generator)
        layers: list[nn.Module] = []
        for layer in generator.hidden:
            layers += [usual_convolution(layer), nn.ReLU()]
            layers += [UsualPixelNorm()] if not isinstance(generator.norm, nn.Identity) else []
        layers += [usual_convolution(generator.to_image), nn.Tanh()]
        self.normalize_latent = UsualPixelNorm()
        self.layers = nn.Sequential(*layers)
        _normalize_spectrally(_convolutions(self.layers), generator.spectral_norm)

    def forward(self, latents: Tensor) -> Tensor:
        """[N, Z] to [N, C, H, W] in (-1, 1)."""
        images: Tensor = self.layers(self.normalize_latent(latents)[:, :, None, None])
        return images


class UsualDiscriminator(nn.Module):
    """Images [N, C, H, W] to logits [N], as the `discriminator` it copies."""

    def __init__(self, discriminator: DCGANDiscriminator) -> None:
        super().__init__()
        _refuse_labels(discriminator)
        layers: list[nn.Module] = []
        for layer in discriminator.hidden:
            layers += [usual_convolution(layer), nn.LeakyReLU(LEAKY_RELU_SLOPE)]
        self.layers = nn.Sequential(*layers, usual_convolution(discriminator.to_logit))
        _normalize_spectrally(_convolutions(self.layers), discriminator.spectral_norm)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] to [N]."""
        logits: Tensor = self.layers(images).flatten()
        return logits


def usual_convolution(layer: Conv2d) -> Convolution:
    """The `torch.nn` layer with the weight and bias of `layer`, contiguous."""
    kind = nn.ConvTranspose2d if isinstance(layer, ConvTranspose2d) else nn.Conv2d
    first, second, kernel_size, _ = layer.weight.shape
    in_channels, out_channels = (first, second) if kind is nn.ConvTranspose2d else (second, first)
    copy = kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        bias=layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    with torch.no_grad():
        copy.weight.copy_(layer.weight)
        if layer.bias is not None and copy.bias is not None:
            copy.bias.copy_(layer.bias)
    return copy


def copy_vectors(convolutions: list[Convolution], group: SpectralNorm) -> None:
    """Gives torch's parametrizations the u and v of `group`, whose v counts channels last."""
    for index, convolution in enumerate(convolutions):
        parametrization = convolution.parametrizations.weight[0]
        channels = parametrization._v.numel() // convolution.kernel_size[0] ** 2
        right = group.get_buffer(f"v{index}").view(*convolution.kernel_size, channels).permute(2, 0, 1)
        parametrization._u.copy_(group.get_buffer(f"u{index}"))
        parametrization._v.copy_(right.flatten())


UsualNetwork = UsualGenerator | UsualDiscriminator


def network_convolutions(network: UsualNetwork) -> list[Convolution]:
    """The convolutions of `network`, first to last."""
    return _convolutions(network.layers)


def trained_parameters(network: UsualNetwork) -> list[nn.Parameter]:
    """Weight and bias of each convolution, first to last; under torch's parametrization, the weight that trains."""
    return [
        parameter
        for layer in network_convolutions(network)
        for parameter in (
            layer.parametrizations.weight.original if parametrize.is_parametrized(layer) else layer.weight,
            layer.bias,
        )
        if parameter is not None
    ]


def left_vectors(network: UsualNetwork) -> list[Tensor]:
    """u of each convolution under torch's spectral norm, first to last."""
    return [
        layer.parametrizations.weight[0]._u
        for layer in network_convolutions(network)
        if parametrize.is_parametrized(layer)
    ]


@torch.no_grad()
def step_power_iterations(network: UsualNetwork) -> None:
    """What a forward pass in training mode does to the vectors of torch's spectral norm, for a network in eval mode."""
    for layer in network_convolutions(network):
        if parametrize.is_parametrized(layer):
            layer.parametrizations.weight.train()
            _ = layer.weight
            layer.parametrizations.weight.eval()


def _convolutions(layers: nn.Sequential) -> list[Convolution]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]


def _normalize_spectrally(convolutions: list[Convolution], group: SpectralNorm | None) -> None:
    if group is None:
        return
    for convolution in convolutions:
        parametrizations.spectral_norm(convolution)
    copy_vectors(convolutions, group)


def _refuse_labels(network: DCGANGenerator | DCGANDiscriminator) -> None:
    if network.num_classes:
        raise ValueError(f"num_classes={network.num_classes}: the usual networks are unconditional; use 0")
