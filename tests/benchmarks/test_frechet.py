"""The Fréchet distance against answers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.frechet import Gaussian, fit_gaussian, frechet_distance


def gaussian(mean: list[float], covariance: list[list[float]]) -> Gaussian:
    return Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64))


def random_covariance(num_features: int, rank: int, *, seed: int) -> Tensor:
    factor = torch.randn(num_features, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return factor @ factor.T


def test_commuting_covariances() -> None:
    # |m1 - m2|^2 = 9 + 16; for diagonal covariances the rest is the sum of (s1 - s2)^2 = (1 - 3)^2 + (2 - 5)^2.
    first = gaussian([0, 0], [[1, 0], [0, 4]])
    second = gaussian([3, 4], [[9, 0], [0, 25]])
    assert frechet_distance(first, second) == pytest.approx(25 + 4 + 9, rel=1e-12)


def test_covariances_that_do_not_commute() -> None:
    # For 2 x 2 matrices tr(sqrt(M)) = sqrt(tr(M) + 2 sqrt(det(M))).
    # Here M = C1 C2 = [[5, 0], [1, 3]], of trace 8 and determinant 15.
    first = gaussian([0, 0], [[2, 1], [1, 2]])
    second = gaussian([0, 0], [[3, -1], [-1, 2]])
    expected = 4 + 5 - 2 * math.sqrt(8 + 2 * math.sqrt(15))
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank", [3, 16])
def test_identical_is_zero_also_where_the_covariance_is_singular(rank: int) -> None:
    covariance = random_covariance(16, rank, seed=0)
    same = Gaussian(torch.ones(16, dtype=torch.float64), covariance)
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-5)


def test_symmetric_and_quadratic_in_scale() -> None:
    first = Gaussian(torch.zeros(8, dtype=torch.float64), random_covariance(8, 8, seed=1))
    second = Gaussian(torch.ones(8, dtype=torch.float64), random_covariance(8, 8, seed=2))
    distance = frechet_distance(first, second)
    assert distance > 1
    assert frechet_distance(second, first) == pytest.approx(distance, rel=1e-9)
    tripled = [Gaussian(3 * mean, 9 * covariance) for mean, covariance in (first, second)]
    assert frechet_distance(tripled[0], tripled[1]) == pytest.approx(9 * distance, rel=1e-9)


def test_fit_gives_mean_and_unbiased_covariance() -> None:
    fitted = fit_gaussian(torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 3.0]]))
    assert fitted.mean.tolist() == [3, 1]
    assert fitted.covariance.tolist() == [[4, 3], [3, 3]]
    assert fitted.covariance.dtype == torch.float64


@pytest.mark.parametrize("features", [torch.zeros(1, 4), torch.zeros(4), torch.full((3, 2), math.nan)])
def test_features_that_cannot_be_fitted_are_refused(features: Tensor) -> None:
    with pytest.raises(ValueError, match="features must be"):
        fit_gaussian(features)
