"""What the machine can do at best, measured in the same run as the rows that are compared with it."""

from __future__ import annotations

import statistics

import torch

from benchmarks.machine import DTYPES, cache_bytes, stopwatch
from benchmarks.rows import Ceilings

_NUM_SAMPLES, _NUM_QUICK_SAMPLES = 7, 3
# A format of products, not of tensors: float32 numbers whose factors are rounded to 10 bits.
TF32 = "tf32"


def measure_ceilings(device: torch.device, *, formats: tuple[str, ...], is_quick: bool) -> Ceilings:
    """A copy of several times the last cache, and square matrix products, each the median of a few.

    Args:
        formats: of the products, names of dtypes or `TF32`.
    """
    copy_size = cache_bytes(device) * (2 if is_quick else 8)
    size, num_samples = _size(device, is_quick), _NUM_QUICK_SAMPLES if is_quick else _NUM_SAMPLES
    products = {name: _product_flops(device, name, size=size, num_samples=num_samples) for name in formats}
    copy = _copy_bytes(device, copy_size, num_samples=num_samples)
    return Ceilings(copy_bytes_per_second=copy, matmul_flops_per_second=products)


def _size(device: torch.device, is_quick: bool) -> int:
    if device.type == "cuda":
        return 2048 if is_quick else 8192
    return 256 if is_quick else 1024


def _copy_bytes(device: torch.device, num_bytes: int, *, num_samples: int) -> float:
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _median_seconds(lambda: target.copy_(source), device, num_samples)


def _product_flops(device: torch.device, name: str, *, size: int, num_samples: int) -> float:
    if name != TF32:
        return _matmul_flops(device, DTYPES[name], size=size, num_samples=num_samples)
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = TF32
    try:
        return _matmul_flops(device, torch.float32, size=size, num_samples=num_samples)
    finally:
        matmul.fp32_precision = before


def product_of_convolutions(dtype: str, device: torch.device) -> str | None:
    """The format that convolutions multiply in, as torch's settings stand; None where it is `dtype`."""
    is_rounded = torch.backends.cudnn.conv.fp32_precision == TF32
    return TF32 if dtype == "fp32" and device.type == "cuda" and is_rounded else None


def _matmul_flops(device: torch.device, dtype: torch.dtype, *, size: int, num_samples: int) -> float:
    generator = torch.Generator(device).manual_seed(0)
    # Random numbers: products of zeros draw less power and run faster.
    a, b = (torch.randn(size, size, generator=generator, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _median_seconds(lambda: torch.mm(a, b), device, num_samples)


def _median_seconds(call: object, device: torch.device, num_samples: int) -> float:
    assert callable(call)
    watch = stopwatch(device)
    times = []
    for _ in range(num_samples + 2):
        watch.start()
        call()
        times.append(watch.stop())
    return statistics.median(times[2:])
