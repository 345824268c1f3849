"""Fréchet distance between two sets of features, each taken as a Gaussian."""

# N samples, F features

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """mean: float64 [F]; covariance: float64 [F, F], symmetric and positive semidefinite."""

    mean: Tensor
    covariance: Tensor


def fit_gaussian(features: Tensor) -> Gaussian:
    """Mean and unbiased covariance of `features` [N, F], in float64.

    Raises:
        ValueError: fewer than two samples, or a feature that is not finite.
    """
    if features.ndim != 2 or features.shape[0] < 2:
        raise ValueError(f"features must be [N >= 2, F], got {list(features.shape)}")
    if not features.isfinite().all():
        raise ValueError("features must be finite")
    features = features.double()
    mean = features.mean(dim=0)
    centred = features - mean
    return Gaussian(mean, centred.T @ centred / (len(features) - 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr(sqrt(sqrt(C1) C2 sqrt(C1))), the square of the distance, as FID is quoted.

    The last trace equals tr(sqrt(C1 C2)); the symmetric form needs real eigenvalues only.

    Source: Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions"; as a score of
    generated images Heusel et al. 2017, arXiv:1706.08500.
    """
    root = _square_root(first.covariance)
    product = root @ second.covariance @ root
    # Rounding leaves the product slightly asymmetric, and eigenvalues that are zero slightly below it.
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0)
    means = (first.mean - second.mean).square().sum()
    distance = means + first.covariance.trace() + second.covariance.trace() - 2 * eigenvalues.sqrt().sum()
    return max(float(distance), 0.0)


def _square_root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a symmetric positive semidefinite matrix [F, F]."""
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    return (vectors * eigenvalues.clamp_min(0).sqrt()) @ vectors.T
