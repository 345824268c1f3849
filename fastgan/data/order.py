"""The infinite order in which training sees the images; its whole state is the number of the next sample."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastgan import rng


class SampleOrder:
    """Sample i is image permutation(seed, "epoch", i // n)[i % n] of n images: every epoch shows each image once.

    Samples are numbered from 0 over the whole training, so any batch size, any number of ranks and any number of
    restarts walk through the same order.
    """

    def __init__(self, num_images: int, *, seed: int) -> None:
        if num_images < 1:
            raise ValueError(f"num_images={num_images} must be at least 1")
        self.num_images = num_images

        # A batch, and the one fetched ahead of it, touch two epochs unless the data set is smaller than a batch.
        @lru_cache(maxsize=2)
        def permutation(epoch: int) -> NDArray[np.int64]:
            return rng.permutation(seed, "epoch", epoch, num_images)

        self._permutation = permutation

    def indices(self, first_sample: int, num_samples: int) -> NDArray[np.int64]:
        """[num_samples] the images of the samples from `first_sample` on."""
        if first_sample < 0 or num_samples < 1:
            raise ValueError(f"{first_sample=} must not be negative and {num_samples=} must be at least 1")
        end = first_sample + num_samples
        parts = []
        for epoch in range(first_sample // self.num_images, (end - 1) // self.num_images + 1):
            start = epoch * self.num_images
            parts.append(self._permutation(epoch)[max(first_sample - start, 0) : end - start])
        return np.concatenate(parts)
