"""A data set of images: what it holds, and the pixels and label of each image.

Shape legend: N images or samples, C channels, H W pixels.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan.data.bad import BadImageError, BadImages
from fastgan.data.decode import Fit, ImageFormat, decode_image, fit_image
from fastgan.data.labels import label_images, parse_labels, parse_names
from fastgan.data.source import Entry, Source, open_source
from fastgan.errors import DataError

# Images that a thread decodes per task while the cache is filled: tasks cost little, and progress stays even.
_IMAGES_PER_TASK = 64
# Images looked at when nothing is cached, so that a wrong size shows at the start and not an hour later.
_NUM_PROBES = 8


class Sample(NamedTuple):
    """One image, uint8 [C, H, W], and its label, None without labels."""

    pixels: NDArray[np.uint8]
    label: int | None


class Cache(NamedTuple):
    """All images decoded: pixels uint8 [N, C, H, W], labels int64 [N] or None."""

    pixels: Tensor
    labels: Tensor | None


class ImageDataset:
    """Images with optional labels; an image that cannot be read is replaced by the next one that can.

    The replacement, label included, depends on the files only, so threads and restarts do not change what is seen.
    Reading is safe from any thread and in a forked process. Build one with `open_dataset`.

    Attributes:
        cache: all images decoded, or None when they are decoded on demand.
    """

    def __init__(
        self,
        source: Source,
        labels: NDArray[np.int64] | None,
        *,
        num_classes: int,
        image_format: ImageFormat,
        bad_images: BadImages,
    ) -> None:
        self.image_format = image_format
        self.num_classes = num_classes
        self.cache: Cache | None = None
        self.digest = _digest(source.entries, labels)
        self._source = source
        self._labels = labels
        self._names = [entry.name for entry in source.entries]
        self._bad = bad_images

    @property
    def num_images(self) -> int:
        """Images in the files, those that turn out to be unreadable included."""
        return len(self._names)

    @property
    def num_bad_images(self) -> int:
        """Images found to be missing or unreadable so far; all of them once the cache is filled."""
        return len(self._bad)

    @property
    def num_bytes_decoded(self) -> int:
        """Memory that all decoded images take."""
        channels, height, width = self.image_format.shape
        return self.num_images * channels * height * width

    def read(self, index: int) -> Sample:
        """Image number `index`, or the next readable one after it, cyclically.

        Raises:
            IndexError: if `index` does not lie in [0, num_images).
            DataError: if an image has the wrong size or too many cannot be read; the message names the image.
        """
        if not 0 <= index < self.num_images:
            raise IndexError(f"image {index} does not lie in [0, {self.num_images})")
        if self.cache is not None:
            labels = self.cache.labels
            return Sample(self.cache.pixels[index].numpy(), None if labels is None else int(labels[index]))
        for offset in range(self.num_images):
            position = (index + offset) % self.num_images
            pixels = self._decode(position)
            if not isinstance(pixels, str):
                return Sample(pixels, None if self._labels is None else int(self._labels[position]))
            self._bad.add([(self._names[position], pixels)])
        raise AssertionError("a data set without a readable image must have been refused")

    def prepare(self, *, cache_bytes: int, num_workers: int) -> None:
        """Decodes all images if they fit into `cache_bytes`, else looks at a few. Raises DataError as `read`."""
        if num_workers < 1:
            raise DataError(f"data.num_workers={num_workers} must be at least 1")
        if self.num_bytes_decoded <= cache_bytes:
            self.fill_cache(num_workers=num_workers)
        else:
            self.probe()

    def fill_cache(self, *, num_workers: int) -> None:
        """Decodes all images into memory, with `num_workers` threads.

        Raises:
            DataError: as `read`.
        """
        pixels = np.empty((self.num_images, *self.image_format.shape), dtype=np.uint8)

        def decode_task(first: int) -> list[tuple[int, str]]:
            bad = []
            for index in range(first, min(first + _IMAGES_PER_TASK, self.num_images)):
                decoded = self._decode(index)
                if isinstance(decoded, str):
                    bad.append((index, decoded))
                else:
                    pixels[index] = decoded
            return bad

        with ThreadPoolExecutor(num_workers, thread_name_prefix="fastgan-decode") as pool:
            tasks = pool.map(decode_task, range(0, self.num_images, _IMAGES_PER_TASK))
            bad = [pair for task in tasks for pair in task]
        self._bad.add((self._names[index], reason) for index, reason in bad)
        stand_in = _next_good(self.num_images, [index for index, _ in bad])
        for index, _ in bad:
            pixels[index] = pixels[stand_in[index]]
        labels = None if self._labels is None else torch.from_numpy(self._labels[stand_in])
        self.cache = Cache(torch.from_numpy(pixels), labels)

    def probe(self) -> None:
        """Reads a few images spread over the data set. Raises DataError as `read`."""
        for index in np.unique(np.linspace(0, self.num_images - 1, _NUM_PROBES).astype(int)):
            self.read(int(index))

    def _decode(self, index: int) -> NDArray[np.uint8] | str:
        """The pixels [C, H, W] of image `index`, or the reason why it cannot be read."""
        name = self._names[index]
        try:
            image = decode_image(self._source.read(name), channels=self.image_format.channels)
        except BadImageError as error:
            return str(error)
        return fit_image(image, image_format=self.image_format, name=name)


def open_dataset(
    path: str,
    *,
    resolution: int,
    channels: Literal[1, 3],
    fit: Fit = "exact",
    labels: bool = False,
    num_classes: int | None = None,
    max_bad_fraction: float = 0.01,
    cache_bytes: int = 1 << 30,
    num_workers: int = 2,
    on_warning: Callable[[str], None],
) -> ImageDataset:
    """The data set at `path`, decoded into memory if it fits into `cache_bytes`.

    Args:
        path: `digits` (built in), a folder, or a zip file, with `dataset.json` in the root if there are labels.
        resolution, channels, fit: see ImageFormat.
        labels: whether the samples carry labels; `num_classes` is looked at only then, None is the largest plus one.
        max_bad_fraction: share of the images that may be missing or unreadable.
        num_workers: threads that decode, at least 1.
        on_warning: gets one line for each of the first bad images, possibly from another thread.
    Raises:
        DataError: if the path, its images or its labels cannot be used.
    """
    image_format = ImageFormat(resolution, channels, fit)
    source = open_source(path)
    names = [entry.name for entry in source.entries]
    table, listed = _read_table(source, with_labels=labels)
    missing = sorted(listed.difference(names))
    total = len(names) + len(missing)
    bad = BadImages(source.path, num_listed=total, max_fraction=max_bad_fraction, on_warning=on_warning)
    bad.add((name, "dataset.json names it, but it is missing") for name in missing)
    values, classes = None, 0
    if labels:
        values, classes = label_images(names, table, path=source.path, num_classes=num_classes)
    dataset = ImageDataset(source, values, num_classes=classes, image_format=image_format, bad_images=bad)
    dataset.prepare(cache_bytes=cache_bytes, num_workers=num_workers)
    return dataset


def _read_table(source: Source, *, with_labels: bool) -> tuple[dict[str, int] | None, set[str]]:
    """Label by name from the `dataset.json` of `source`, None without labels; and the names that it lists."""
    text = source.read_labels()
    if text is None:
        return None, set()
    if not with_labels:
        return None, set(parse_names(text))
    table = parse_labels(text, path=source.path)
    return table, set(table or ())


def _next_good(num_images: int, bad: Sequence[int]) -> NDArray[np.int64]:
    """[N] for every image the first one at or after it, cyclically, that is not in `bad`."""
    stand_in = np.arange(num_images, dtype=np.int64)
    good = np.delete(stand_in, bad)
    return good[np.searchsorted(good, stand_in) % len(good)]


def _digest(entries: Iterable[Entry], labels: NDArray[np.int64] | None) -> str:
    """A hash of the names, encoded sizes and labels: equal for a folder and a zip of the same files."""
    digest = hashlib.blake2b(digest_size=16)
    for position, entry in enumerate(entries):
        label = "" if labels is None else str(labels[position])
        digest.update(f"{entry.name}\0{entry.num_bytes}\0{label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
