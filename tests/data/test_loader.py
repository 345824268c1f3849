"""Batches: values, mirroring, prefetching, and errors out of worker threads."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fastgan import rng
from fastgan.data import ImageDataset, Loader, SampleOrder
from fastgan.errors import DataError

WriteData = Callable[..., str]
OpenData = Callable[..., ImageDataset]
Files = Callable[[int], dict[str, bytes]]


@pytest.fixture(params=[0, 1 << 20], ids=["on demand", "cached"])
def dataset(
    request: pytest.FixtureRequest, write_data: WriteData, open_data: OpenData, numbered_files: Files
) -> ImageDataset:
    """20 images of 4x4 pixels, labelled with their number, not symmetric."""
    files = numbered_files(20)
    labels = [[name, index] for index, name in enumerate(files)]
    return open_data(write_data(files, to="images.zip", labels=labels), labels=True, cache_bytes=request.param)


def test_values_and_shapes(dataset: ImageDataset) -> None:
    with Loader(dataset, seed=5, mirror=False) as loader:
        batch = loader.batch(13, 30)
    indices = SampleOrder(20, seed=5).indices(13, 30)
    assert batch.first_sample == 13
    assert batch.images.shape == (30, 1, 4, 4)
    assert batch.images.dtype == torch.float32
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == indices.tolist()
    expected = np.stack([dataset.read(int(index)).pixels for index in indices]) / 127.5 - 1
    np.testing.assert_allclose(batch.images.numpy(), expected, atol=1e-6)


def test_black_and_white_are_exact(write_data: WriteData, open_data: OpenData, encode: Callable[..., bytes]) -> None:
    dataset = open_data(write_data({"a.png": encode([[0, 255], [255, 0]])}), resolution=2)
    with Loader(dataset, seed=0, mirror=False) as loader:
        batch = loader.batch(0, 1)
    assert batch.images.tolist() == [[[[-1.0, 1.0], [1.0, -1.0]]]]
    assert batch.labels is None


def test_mirror_is_keyed_by_seed_and_sample(dataset: ImageDataset) -> None:
    with Loader(dataset, seed=5, mirror=True) as loader, Loader(dataset, seed=5, mirror=False) as plain:
        images, originals = loader.batch(7, 60).images, plain.batch(7, 60).images
        flips = rng.integers(5, "mirror", 7, 60, high=2).astype(bool)
        assert 10 < flips.sum() < 50
        for image, original, flip in zip(images, originals, flips, strict=True):
            assert torch.equal(image, original.flip(-1) if flip else original)
            assert not torch.equal(original, original.flip(-1))
        assert torch.equal(torch.cat([loader.batch(7, 23).images, loader.batch(30, 37).images]), images)


def test_requests_in_any_order_give_the_same(dataset: ImageDataset) -> None:
    with Loader(dataset, seed=5, mirror=True) as loader:
        forward = {first: loader.batch(first, 8).images for first in range(0, 80, 8)}
    with Loader(dataset, seed=5, mirror=True, num_workers=4) as loader:
        for first in (16, 0, 72, 72, 40, 8, 64):
            loader.prefetch(first, 8)
        for first in (72, 8, 16, 24, 0, 64, 56, 72):
            assert torch.equal(loader.batch(first, 8).images, forward[first])


def test_batch_larger_than_the_data_set(dataset: ImageDataset) -> None:
    with Loader(dataset, seed=0, mirror=False) as loader:
        labels = loader.batch(0, 100).labels
    assert labels is not None
    assert labels.bincount().tolist() == [5] * 20


def test_memory_format(dataset: ImageDataset) -> None:
    with Loader(dataset, seed=0, mirror=False) as plain:
        expected = plain.batch(0, 6).images
    with Loader(dataset, seed=0, mirror=False, memory_format=torch.channels_last) as loader:
        images = loader.batch(0, 6).images
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, expected)


def test_batch_does_not_touch_the_cache(dataset: ImageDataset) -> None:
    with Loader(dataset, seed=0, mirror=False) as loader:
        first = loader.batch(0, 20).images.clone()
        loader.batch(0, 20).images.zero_()
        assert torch.equal(loader.batch(0, 20).images, first)


def test_prefetch_decodes_beside_the_caller(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_data(write_data(numbered_files(20)), cache_bytes=0)
    decoded: list[str] = []
    read, all_read = dataset.read, threading.Event()

    def count(index: int) -> object:
        sample = read(index)
        decoded.append(threading.current_thread().name)
        if len(decoded) == 8:
            all_read.set()
        return sample

    monkeypatch.setattr(dataset, "read", count)
    with Loader(dataset, seed=0, mirror=False) as loader:
        loader.prefetch(0, 8)
        loader.prefetch(0, 8)
        assert all_read.wait(timeout=10)
        loader.batch(0, 8)
        assert len(decoded) == 8
        assert all(name.startswith("fastgan-loader") for name in decoded)
        # Prefetches that nobody takes are dropped, oldest first, and read again when they are wanted after all.
        monkeypatch.setattr("fastgan.data.loader._MAX_WAITING", 4)
        for first in range(0, 80, 8):
            loader.prefetch(first, 8)
        assert list(loader._waiting) == [(first, 8) for first in (48, 56, 64, 72)]
        assert loader.batch(0, 8).images.shape[0] == 8
    assert not any(thread.name.startswith("fastgan-loader") for thread in threading.enumerate())


def test_error_in_a_worker_reaches_the_caller(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, encode: Callable[..., bytes]
) -> None:
    # The look at a few images on opening does not see number 5.
    files = numbered_files(50) | {"005.png": encode(np.zeros((8, 8)))}
    dataset = open_data(write_data(files), cache_bytes=0)
    with Loader(dataset, seed=0, mirror=False) as loader:
        loader.prefetch(0, 50)
        with pytest.raises(DataError, match=r"^image '005\.png' is 8x8 pixels, data\.fit=exact wants 4x4"):
            loader.batch(0, 50)


def test_bad_image_takes_the_next_with_its_label(
    write_data: WriteData, open_data: OpenData, numbered_files: Files
) -> None:
    files = numbered_files(10) | {"003.png": b""}
    path = write_data(files, labels=[[name, index] for index, name in enumerate(files)])
    batches = []
    for cache_bytes in (0, 1 << 20):
        dataset = open_data(path, labels=True, cache_bytes=cache_bytes, max_bad_fraction=0.1)
        with Loader(dataset, seed=0, mirror=True) as loader:
            batches.append(loader.batch(0, 10))
    assert torch.equal(batches[0].images, batches[1].images)
    for batch in batches:
        assert batch.labels is not None
        assert sorted(batch.labels.tolist()) == [0, 1, 2, 4, 4, 5, 6, 7, 8, 9]
