"""Counter-based random numbers: frozen values, independence of the split, distributions, bad arguments."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan import rng

Draw = Callable[[int, int], Any]


def draws(size: int) -> dict[str, Draw]:
    return {
        "uniform": lambda first, num: rng.uniform(3, "latent", first, num, size),
        "normal": lambda first, num: rng.normal(3, "latent", first, num, size),
        "integers": lambda first, num: rng.integers(3, "latent", first, num, high=1000),
    }


def test_known_values() -> None:
    """A changed stream would silently change every seeded run and every resume."""
    expected = [
        [0.4973016381263733, 0.8243913054466248, 0.6294536590576172],
        [0.3325578570365906, 0.24466955661773682, 0.4995507001876831],
    ]
    np.testing.assert_array_equal(rng.uniform(0, "latent", 0, 2, 3), np.array(expected, np.float32))
    far = [[0.21469563245773315, 0.07071715593338013, 0.6764792203903198]]
    np.testing.assert_array_equal(rng.uniform(7, "latent", 10**12, 1, 3), np.array(far, np.float32))
    normal = [
        [-0.8120853900909424, 0.17723886668682098, -0.8588562607765198],
        [-1.4838683605194092, -1.1065362691879272, 0.004188755061477423],
    ]
    # Logarithm and cosine may differ in the last place from one platform to the next.
    np.testing.assert_allclose(rng.normal(0, "latent", 0, 2, 3), normal, rtol=1e-6)
    assert rng.integers(0, "mirror", 0, 16, high=2).tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert rng.integers(1, "mirror", 5, 4, high=1000).tolist() == [722, 464, 648, 634]
    assert rng.permutation(0, "epoch", 0, 10).tolist() == [2, 7, 0, 9, 4, 1, 8, 5, 3, 6]
    assert rng.permutation(0, "epoch", 1, 10).tolist() == [9, 6, 4, 0, 2, 1, 5, 7, 3, 8]


@pytest.mark.parametrize("kind", ["uniform", "normal", "integers"])
@given(
    first=st.integers(0, 10**15),
    left=st.integers(0, 12),
    right=st.integers(0, 12),
    size=st.integers(0, 20),
)
def test_split_does_not_matter(kind: str, first: int, left: int, right: int, size: int) -> None:
    draw = draws(size)[kind]
    whole = draw(first, left + right)
    np.testing.assert_array_equal(whole, np.concatenate([draw(first, left), draw(first + left, right)]))


def test_distributions() -> None:
    uniform = rng.uniform(0, "u", 0, 20000, 5).astype(np.float64)
    assert 0 <= uniform.min() < 1e-3
    assert 0.999 < uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.005)
    assert uniform.var() == pytest.approx(1 / 12, abs=0.002)
    # An odd size: one number of the last pair is dropped.
    normal = rng.normal(0, "n", 0, 20000, 5).astype(np.float64)
    assert normal.mean() == pytest.approx(0, abs=0.015)
    assert normal.var() == pytest.approx(1, abs=0.03)
    assert (normal**4).mean() == pytest.approx(3, abs=0.2)
    assert np.abs(np.corrcoef(normal.T) - np.eye(5)).max() < 0.03
    counts = np.bincount(rng.integers(0, "i", 0, 70000, high=7), minlength=7)
    assert len(counts) == 7
    assert np.abs(counts - 10000).max() < 500


@given(epoch=st.integers(0, 10**6), length=st.integers(0, 300))
def test_permutation_holds_each_number_once(epoch: int, length: int) -> None:
    order = rng.permutation(5, "epoch", epoch, length)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(length))


def test_seeds_and_streams_and_epochs_differ() -> None:
    variants = [(0, "latent"), (1, "latent"), (0, "mirror"), (-1, "latent"), (10, "latent")]
    rows = [rng.uniform(seed, stream, 0, 1, 8).tobytes() for seed, stream in variants]
    assert len(set(rows)) == len(rows)
    assert not np.array_equal(rng.permutation(0, "epoch", 0, 50), rng.permutation(0, "epoch", 1, 50))
    assert not np.array_equal(rng.permutation(0, "epoch", 0, 50), rng.permutation(1, "epoch", 0, 50))


def test_shapes_and_types() -> None:
    assert rng.uniform(0, "a", 0, 0, 3).shape == (0, 3)
    assert rng.uniform(0, "a", 0, 3, 0).shape == (3, 0)
    assert rng.uniform(0, "a", 0, 3, 9).dtype == np.float32
    assert rng.normal(0, "a", 0, 3, 9).dtype == np.float32
    assert rng.integers(0, "a", 0, 3, high=1 << 31).dtype == np.int64


@pytest.mark.parametrize(("first", "num", "size"), [(-1, 1, 1), (0, -1, 1), (0, 1, -1)])
def test_negative_numbers_are_refused(first: int, num: int, size: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        rng.uniform(0, "a", first, num, size)


@pytest.mark.parametrize("high", [0, -1, (1 << 31) + 1])
def test_integers_refuses_an_empty_or_too_large_range(high: int) -> None:
    with pytest.raises(ValueError, match=r"must lie between 1 and 2\^31"):
        rng.integers(0, "a", 0, 1, high=high)
