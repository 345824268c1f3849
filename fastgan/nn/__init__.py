"""Modules: parameters plus one call to an op."""

from fastgan.nn.conv import Conv2d, ConvTranspose2d
from fastgan.nn.dual import Dual, HasDual, has_dual
from fastgan.nn.embedding import Embedding
from fastgan.nn.normalization import PixelNorm
from fastgan.nn.spectral_norm import SpectrallyNormalized, SpectralNorm, from_parametrizations

__all__ = [
    "Conv2d",
    "ConvTranspose2d",
    "Dual",
    "Embedding",
    "HasDual",
    "PixelNorm",
    "SpectralNorm",
    "SpectrallyNormalized",
    "from_parametrizations",
    "has_dual",
]
