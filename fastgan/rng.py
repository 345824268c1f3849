"""Random numbers that depend on (seed, stream, sample number) and on nothing else.

A sample keeps its latent, its mirror flip and its interpolation weight whatever the number of ranks, the micro-batch
size or the number of restarts: each sample owns a fixed range of the counter of a Philox generator (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"), and every number consumes exactly 32 bits of it.

Shape legend: N samples, S numbers per sample.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

# Philox 4x64 yields four 64-bit words per increment of its counter: eight 32-bit words.
_WORDS_PER_COUNT = 8


def _bit_generator(seed: int, stream: str, counter: int) -> np.random.Philox:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype=np.uint64)
    words = [(counter >> shift) & 0xFFFFFFFFFFFFFFFF for shift in (0, 64, 128, 192)]
    return np.random.Philox(key=key, counter=np.array(words, dtype=np.uint64))


def _words(seed: int, stream: str, first_sample: int, num_samples: int, size: int) -> NDArray[np.uint32]:
    """[N, S] uniform 32-bit words."""
    if first_sample < 0 or num_samples < 0 or size < 0:
        raise ValueError(f"sample numbers and sizes must not be negative: {first_sample=}, {num_samples=}, {size=}")
    counts = -(-size // _WORDS_PER_COUNT)
    bits = _bit_generator(seed, stream, first_sample * counts)
    raw = np.asarray(bits.random_raw(num_samples * counts * 4), dtype=np.uint64)
    return raw.view(np.uint32).reshape(num_samples, counts * _WORDS_PER_COUNT)[:, :size]


def uniform(seed: int, stream: str, first_sample: int, num_samples: int, size: int) -> NDArray[np.float32]:
    """[N, S] float32 in [0, 1) for samples `first_sample` to `first_sample + num_samples - 1` of `stream`."""
    words = _words(seed, stream, first_sample, num_samples, size)
    # 24 bits are what a float32 in [0, 1) can hold without rounding up to 1.
    return ((words >> np.uint32(8)).astype(np.float32)) * np.float32(2.0**-24)


def normal(seed: int, stream: str, first_sample: int, num_samples: int, size: int) -> NDArray[np.float32]:
    """[N, S] float32 standard normal numbers (Box and Muller 1958), |z| below 6.7."""
    pairs = -(-size // 2)
    words = _words(seed, stream, first_sample, num_samples, 2 * pairs).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((words[:, :pairs] + 1.0) * 2.0**-32))
    angle = words[:, pairs:] * (2.0 * np.pi * 2.0**-32)
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return both[:, :size].astype(np.float32)


def integers(seed: int, stream: str, first_sample: int, num_samples: int, *, high: int) -> NDArray[np.int64]:
    """[N] int64 in [0, high); the bias of the multiply-and-shift method is below high / 2^32."""
    if not 0 < high <= 1 << 31:
        raise ValueError(f"high={high} must lie between 1 and 2^31")
    words = _words(seed, stream, first_sample, num_samples, 1)[:, 0]
    return (words.astype(np.uint64) * np.uint64(high) >> np.uint64(32)).astype(np.int64)


def permutation(seed: int, stream: str, epoch: int, length: int) -> NDArray[np.int64]:
    """[length] int64, the order of epoch number `epoch`: 0 to length - 1, sorted by random 64-bit words."""
    words = _bit_generator(seed, f"{stream}/{epoch}", 0).random_raw(length)
    return np.argsort(words, kind="stable").astype(np.int64)
