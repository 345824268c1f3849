"""The order of samples depends on the sample number alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan import rng
from fastgan.data import SampleOrder


@given(
    num_images=st.integers(1, 40),
    first=st.integers(0, 10**9),
    sizes=st.lists(st.integers(1, 100), min_size=1, max_size=5),
)
def test_split_into_batches_does_not_matter(num_images: int, first: int, sizes: list[int]) -> None:
    whole = SampleOrder(num_images, seed=1).indices(first, sum(sizes))
    order = SampleOrder(num_images, seed=1)
    parts = []
    for size in sizes:
        parts.append(order.indices(first + sum(map(len, parts)), size))
    assert np.concatenate(parts).tolist() == whole.tolist()


@given(num_images=st.integers(1, 40), epoch=st.integers(0, 1000))
def test_every_epoch_shows_every_image_once(num_images: int, epoch: int) -> None:
    indices = SampleOrder(num_images, seed=1).indices(epoch * num_images, num_images)
    assert indices.tolist() == rng.permutation(1, "epoch", epoch, num_images).tolist()
    assert sorted(indices.tolist()) == list(range(num_images))


def test_resumes_from_one_integer() -> None:
    order = SampleOrder(10, seed=4)
    straight = [order.indices(first, 7).tolist() for first in range(0, 70, 7)]
    resumed = SampleOrder(10, seed=4)
    assert [resumed.indices(first, 7).tolist() for first in range(35, 70, 7)] == straight[5:]


def test_batch_of_several_epochs() -> None:
    indices = SampleOrder(3, seed=0).indices(2, 10)
    assert len(indices) == 10
    assert sorted(indices[1:4].tolist()) == sorted(indices[4:7].tolist()) == [0, 1, 2]


def test_seeds_differ() -> None:
    assert SampleOrder(50, seed=0).indices(0, 50).tolist() != SampleOrder(50, seed=1).indices(0, 50).tolist()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="num_images=0 must be at least 1"):
        SampleOrder(0, seed=0)
    for first, num in [(-1, 1), (0, 0)]:
        with pytest.raises(ValueError, match="must not be negative"):
            SampleOrder(3, seed=0).indices(first, num)
