"""Reading images: fastgan's loader against torch's DataLoader: `python -m benchmarks.bench_data`.

A call opens the loader, takes some batches and closes it, so that no provider decodes ahead in another one's turn.

Shape legend: N batch, C channels, R resolution.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import Case, Provider, Run
from benchmarks.runner import Options, main_of
from fastgan import rng
from fastgan.data import ImageDataset, Loader, SampleOrder, open_dataset
from fastgan.train.log import warn

BATCH_IMAGES = 64
NUM_WORKERS = (1, 2)


def cases(options: Options) -> Iterator[Case]:
    """Images decoded once and kept, then images decoded each time from PNG files."""
    yield cached_case(options)
    folder = Path(tempfile.mkdtemp(prefix="fastgan-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    resolution = 32 if options.is_quick else 64
    write_images(folder, num_images=128 if options.is_quick else 1024, resolution=resolution)
    yield files_case(options, folder, resolution=resolution)


def write_images(folder: Path, *, num_images: int, resolution: int) -> None:
    """Smooth random RGB images as PNG, which compress about as well as photographs."""
    for number in range(num_images):
        coarse = rng.integers(0, "benchmark", number * 192, 192, high=256).astype(np.uint8).reshape(8, 8, 3)
        image = Image.fromarray(coarse).resize((resolution, resolution), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05d}.png")


def cached_case(options: Options) -> Case:
    """The built-in digits: the batch is one selection from memory."""
    dataset = open_dataset("digits", resolution=32, channels=1, fit="pad", on_warning=warn)
    assert dataset.cache is not None
    pixels = dataset.cache.pixels
    num_batches = 20 if options.is_quick else 78
    providers = (
        Provider("DataLoader", build=lambda: usual_run(_Memory(pixels), 0, num_batches, options.device)),
        Provider("fastgan", build=lambda: fastgan_run(dataset, 1, num_batches, options.device)),
    )
    return _case("digits in memory", dataset, num_batches, options, providers=providers)


def files_case(options: Options, folder: Path, *, resolution: int) -> Case:
    """PNG files decoded for every batch; torch's workers are processes, fastgan's threads."""
    dataset = open_dataset(str(folder), resolution=resolution, channels=3, cache_bytes=0, on_warning=warn)
    files = _Files(sorted(folder.glob("*.png")))
    num_batches = 2 if options.is_quick else 16
    providers = [
        Provider(f"DataLoader, {n} workers", build=lambda n=n: usual_run(files, n, num_batches, options.device))
        for n in NUM_WORKERS
    ]
    providers += [
        Provider(f"fastgan, {n} workers", build=lambda n=n: fastgan_run(dataset, n, num_batches, options.device))
        for n in NUM_WORKERS
    ]
    return _case(f"PNG files, {resolution} px RGB", dataset, num_batches, options, providers=tuple(providers))


def _case(
    name: str, dataset: ImageDataset, num_batches: int, options: Options, *, providers: tuple[Provider, ...]
) -> Case:
    """All providers must give the same first batch."""
    indices = SampleOrder(dataset.num_images, seed=0).indices(0, BATCH_IMAGES)
    first = torch.from_numpy(np.stack([dataset.read(int(index)).pixels for index in indices]))
    return Case(
        benchmark="data",
        name=f"{name}, {num_batches} batches of {BATCH_IMAGES}",
        device=options.device,
        dtype="fp32",
        make_inputs=lambda seed: (),
        exact=lambda: (_to_float(first).double().to(options.device),),
        providers=providers,
        num_items=num_batches * BATCH_IMAGES,
        item="images",
    )


def fastgan_run(dataset: ImageDataset, num_workers: int, num_batches: int, device: torch.device) -> Run:
    """Each batch is decoded while the one before it is taken, as in the training loop. Returns the first."""

    def run() -> Sequence[Tensor]:
        first: Tensor | None = None
        with Loader(dataset, seed=0, mirror=False, num_workers=num_workers, device=device) as loader:
            for number in range(num_batches):
                loader.prefetch((number + 1) * BATCH_IMAGES, BATCH_IMAGES)
                images = loader.batch(number * BATCH_IMAGES, BATCH_IMAGES).images
                first = images if first is None else first
        assert first is not None
        return (first,)

    return run


def usual_run(dataset: _Images, num_workers: int, num_batches: int, device: torch.device) -> Run:
    """The same batches by a DataLoader. Returns the first."""
    order = SampleOrder(len(dataset), seed=0)

    def run() -> Sequence[Tensor]:
        indices = order.indices(0, num_batches * BATCH_IMAGES).tolist()
        loader = DataLoader(dataset, batch_size=BATCH_IMAGES, sampler=indices, num_workers=num_workers)
        first: Tensor | None = None
        for pixels in loader:
            images = _to_float(pixels.to(device))
            first = images if first is None else first
        assert first is not None
        return (first,)

    return run


def _to_float(pixels: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


class _Images(Dataset[Tensor]):
    """Images taken one by one, uint8 [C, R, R], as a DataLoader wants them."""

    def __len__(self) -> int:
        raise NotImplementedError


class _Memory(_Images):
    """Images in memory."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self._pixels[index]


class _Files(_Images):
    """Images decoded from files."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.open(self._paths[index]).convert("RGB")
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


if __name__ == "__main__":
    sys.exit(main_of("data", cases, description=__doc__))
