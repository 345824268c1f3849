"""Batches by global sample number, decoded ahead of time by threads.

Shape legend: N samples, C channels, H W pixels.
"""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from fastgan import rng
from fastgan.data.dataset import ImageDataset, Sample
from fastgan.data.order import SampleOrder

# Prefetched batches that wait to be taken; a further one drops the oldest.
_MAX_WAITING = 256


class Batch(NamedTuple):
    """Samples `first_sample` to `first_sample + N - 1`.

    images: float32 [N, C, H, W] in [-1, 1].
    labels: int64 [N], None without labels.
    """

    images: Tensor
    labels: Tensor | None
    first_sample: int


class Loader:
    """Gives the samples of a data set in the order of `SampleOrder`, each mirrored with probability 1/2 if `mirror`.

    A sample is a function of (data set, seed, sample number): the order of the requests, their size, and whether they
    were prefetched do not matter. One thread takes the batches. After a fork, build a new loader on the data set.

    Args:
        num_workers: threads that decode images that are not cached.
        device: where batches go; the bytes are copied there and converted there.
        memory_format: of the images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        mirror: bool,
        num_workers: int = 2,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self._dataset = dataset
        self._order = SampleOrder(dataset.num_images, seed=seed)
        self._seed = seed
        self._mirror = mirror
        self._device = torch.device(device)
        self._memory_format = memory_format
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="fastgan-loader")
        self._waiting: OrderedDict[tuple[int, int], list[Future[Sample]]] = OrderedDict()

    def batch(self, first_sample: int, num_samples: int) -> Batch:
        """The samples from `first_sample` on.

        Raises:
            DataError: if one of their images has the wrong size, or too many cannot be read; it names the image.
        """
        if self._dataset.cache is not None:
            indices = torch.from_numpy(self._order.indices(first_sample, num_samples))
            pixels = self._dataset.cache.pixels.index_select(0, indices)
            table = self._dataset.cache.labels
            labels = None if table is None else table.index_select(0, indices)
        else:
            futures = self._waiting.pop((first_sample, num_samples), None) or self._submit(first_sample, num_samples)
            samples = [future.result() for future in futures]
            pixels = torch.from_numpy(np.stack([sample.pixels for sample in samples]))
            known = [sample.label for sample in samples if sample.label is not None]
            labels = torch.tensor(known, dtype=torch.int64) if known else None
        if self._mirror:
            flips = rng.integers(self._seed, "mirror", first_sample, num_samples, high=2).astype(bool)
            pixels = torch.where(torch.from_numpy(flips)[:, None, None, None], pixels.flip(-1), pixels)
        labels = None if labels is None else labels.to(self._device)
        return Batch(self._to_float(pixels), labels, first_sample)

    def prefetch(self, first_sample: int, num_samples: int) -> None:
        """Starts to decode the samples that `batch` will be asked for; cached images need no decoding."""
        key = (first_sample, num_samples)
        if self._dataset.cache is not None or key in self._waiting:
            return
        self._waiting[key] = self._submit(first_sample, num_samples)
        if len(self._waiting) > _MAX_WAITING:
            _, dropped = self._waiting.popitem(last=False)
            for future in dropped:
                future.cancel()

    def close(self) -> None:
        """Ends the threads; what was prefetched and not taken is dropped."""
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, first_sample: int, num_samples: int) -> list[Future[Sample]]:
        indices = self._order.indices(first_sample, num_samples).tolist()
        return [self._pool.submit(self._dataset.read, index) for index in indices]

    def _to_float(self, pixels: Tensor) -> Tensor:
        """uint8 to float32 in [-1, 1] on the device: 0 becomes -1 and 255 becomes 1, exactly."""
        moved = pixels.to(self._device).to(dtype=torch.float32, memory_format=self._memory_format)
        return moved.div_(127.5).sub_(1.0)
