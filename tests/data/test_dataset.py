"""The data set: pixels, cache, digest, and images that cannot be read."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastgan.data import ImageDataset, open_dataset
from fastgan.errors import DataError

WriteData = Callable[..., str]
OpenData = Callable[..., ImageDataset]
Files = Callable[[int], dict[str, bytes]]
NumberOf = Callable[[np.ndarray], int]
CACHED = pytest.mark.parametrize("cache_bytes", [0, 1 << 20], ids=["on demand", "cached"])
KINDS = pytest.mark.parametrize("to", ["images", "images.zip"])


def test_digits(messages: list[str]) -> None:
    dataset = open_dataset("digits", resolution=32, channels=1, fit="pad", labels=True, on_warning=messages.append)
    assert (dataset.num_images, dataset.num_classes) == (5000, 10)
    assert dataset.cache is not None
    assert dataset.cache.labels is not None
    assert dataset.cache.labels.bincount().tolist() == [500] * 10
    border = dataset.cache.pixels.clone()
    border[:, :, 2:-2, 2:-2] = 0
    assert border.sum() == 0
    assert dataset.read(0).label == 4
    # An upright digit is wider in ink than its border: zeros have a hole in their centre, ones do not.
    means = [dataset.cache.pixels[dataset.cache.labels == digit, 0, 16, 16].float().mean() for digit in (0, 1)]
    assert means[0] < 40
    assert means[1] > 150
    assert messages == []


@KINDS
@CACHED
def test_reads_images_in_sorted_order(
    *, write_data: WriteData, open_data: OpenData, numbered_files: Files, number_of: NumberOf, to: str, cache_bytes: int
) -> None:
    dataset = open_data(write_data(numbered_files(70), to=to), cache_bytes=cache_bytes)
    assert (dataset.cache is None) == (cache_bytes == 0)
    assert [number_of(dataset.read(index).pixels) for index in range(70)] == list(range(70))
    sample = dataset.read(3)
    assert sample.pixels.shape == (1, 4, 4)
    assert sample.pixels.dtype == np.uint8
    assert sample.label is None
    for index in (-1, 70):
        with pytest.raises(IndexError, match=r"does not lie in \[0, 70\)"):
            dataset.read(index)


def test_cache_is_used_only_when_it_fits(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    path = write_data(numbered_files(3))
    assert open_data(path, cache_bytes=48).cache is not None
    assert open_data(path, cache_bytes=47).cache is None
    assert open_data(path, cache_bytes=143, channels=3).cache is None


def test_digest_tells_data_sets_apart(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    files = numbered_files(3)
    labels = [[name, 0] for name in files]
    path = write_data(files, to="a", labels=labels)
    digest = open_data(path).digest
    assert open_data(write_data(files, to="b.zip", labels=labels)).digest == digest
    assert open_data(path, channels=3, fit="resize").digest == digest
    labelled = open_data(path, labels=True).digest
    longer = write_data(files | {"000.png": files["000.png"] + b"\0"}, to="c")
    renamed = write_data(dict(zip(["x.png", *list(files)[1:]], files.values(), strict=True)), to="d")
    relabelled = write_data(files, to="e", labels=[["000.png", 1], *labels[1:]])
    fewer = write_data(numbered_files(2), to="f")
    digests = [open_data(other).digest for other in (longer, renamed, fewer)]
    digests += [open_data(relabelled, labels=True).digest, labelled, digest]
    assert len(set(digests)) == len(digests)


@KINDS
@CACHED
def test_bad_images_are_named_and_replaced_by_the_next(
    *,
    write_data: WriteData,
    open_data: OpenData,
    numbered_files: Files,
    number_of: NumberOf,
    messages: list[str],
    to: str,
    cache_bytes: int,
) -> None:
    files = numbered_files(6) | {"001.png": b"", "002.png": b"text", "005.png": numbered_files(6)["005.png"][:40]}
    path = write_data(files, to=to, labels=[[name, index] for index, name in enumerate(files)])
    dataset = open_data(path, labels=True, cache_bytes=cache_bytes, max_bad_fraction=0.5)
    # From several threads, in any order, and again.
    with ThreadPoolExecutor(4) as pool:
        samples = list(pool.map(dataset.read, [5, 4, 3, 2, 1, 0] * 5))
    assert [number_of(sample.pixels) for sample in samples[:6]] == [0, 4, 3, 3, 3, 0]
    assert all(sample.label == number_of(sample.pixels) for sample in samples)
    assert (dataset.num_images, dataset.num_bad_images) == (6, 3)
    starts = [
        f"image '001.png' in {path} is skipped: the file is empty",
        f"image '002.png' in {path} is skipped: not an image in a known format (PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM)",
        f"image '005.png' in {path} is skipped: ",
    ]
    assert len(messages) == 3
    assert all(message.startswith(start) for message, start in zip(sorted(messages), starts, strict=True))


@CACHED
def test_too_many_bad_images(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, cache_bytes: int
) -> None:
    path = write_data(numbered_files(8) | {"003.png": b""})
    assert open_data(path, max_bad_fraction=0.125, cache_bytes=cache_bytes).num_bad_images == 1
    with pytest.raises(DataError) as caught:
        open_data(path, max_bad_fraction=0.12, cache_bytes=cache_bytes)
    assert str(caught.value) == (
        f"1 of 8 images in {path} cannot be read, e.g. '003.png' (the file is empty); "
        "that is above data.max_bad_fraction=0.12: repair or remove them, or raise the limit"
    )


@CACHED
def test_no_readable_image(write_data: WriteData, open_data: OpenData, cache_bytes: int) -> None:
    path = write_data({"a.png": b"", "b.png": b""})
    with pytest.raises(DataError) as caught:
        open_data(path, max_bad_fraction=1.0, cache_bytes=cache_bytes)
    assert str(caught.value).startswith(f"none of the 2 images in {path} can be read, e.g. ")


@KINDS
def test_image_that_only_the_labels_name(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, messages: list[str], to: str
) -> None:
    labels = [["000.png", 1], ["001.png", 2], ["lost/a.png", 9]]
    path = write_data(numbered_files(2), to=to, labels=labels)
    dataset = open_data(path, labels=True, max_bad_fraction=0.4)
    assert (dataset.num_images, dataset.num_bad_images, dataset.num_classes) == (2, 1, 3)
    assert messages == [f"image 'lost/a.png' in {path} is skipped: dataset.json names it, but it is missing"]
    with pytest.raises(DataError) as caught:
        open_data(path, max_bad_fraction=0.1)
    assert str(caught.value) == (
        f"1 of 3 images in {path} cannot be read, e.g. 'lost/a.png' (dataset.json names it, but it is missing); "
        "that is above data.max_bad_fraction=0.1: repair or remove them, or raise the limit"
    )


def test_limit_holds_in_every_later_read(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    path = write_data(numbered_files(20))
    dataset = open_data(path, cache_bytes=0, max_bad_fraction=0.0)
    (Path(path) / "004.png").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 20 images"):
            dataset.read(4)


def test_image_that_disappears(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, number_of: NumberOf, messages: list[str]
) -> None:
    path = write_data(numbered_files(20))
    dataset = open_data(path, cache_bytes=0, max_bad_fraction=0.1)
    (Path(path) / "004.png").unlink()
    assert number_of(dataset.read(4).pixels) == 5
    assert messages == [f"image '004.png' in {path} is skipped: the file is missing"]


def test_only_the_first_bad_images_are_named(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, messages: list[str]
) -> None:
    files = numbered_files(40)
    path = write_data(files | dict.fromkeys(list(files)[:30], b""))
    assert open_data(path, max_bad_fraction=0.8).num_bad_images == 30
    assert len(messages) == 11
    assert messages[-1] == f"more than 10 images in {path} are skipped; the others are only counted"


@CACHED
def test_wrong_size_is_an_error_at_the_start(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, encode: Callable[..., bytes], cache_bytes: int
) -> None:
    path = write_data(numbered_files(9) | {"008.png": encode(np.zeros((3, 5)))})
    with pytest.raises(DataError, match=r"^image '008.png' is 5x3 pixels, data.fit=exact wants 4x4; set data.fit=pad"):
        open_data(path, cache_bytes=cache_bytes, max_bad_fraction=1.0)
    assert open_data(path, cache_bytes=cache_bytes, fit="crop").read(8).pixels.max() == 0


def test_no_worker(open_data: OpenData) -> None:
    with pytest.raises(DataError, match=r"^data\.num_workers=0 must be at least 1$"):
        open_data("digits", num_workers=0)


def test_names_that_are_not_unicode(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    path = write_data(numbered_files(1))
    odd: Any = b"\xff.png"
    try:
        (Path(path) / odd.decode(errors="surrogateescape")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    with pytest.raises(DataError, match=r"'\\udcff.png' \(the file is empty\)"):
        open_data(path)
    assert open_data(path, max_bad_fraction=0.5).digest
