"""A run small enough to train in tests: 8 images a batch, two channels, one thread."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.train.config import RunConfig, load_config

TINY = (
    "data.path=images",
    "data.fit=exact",
    "batch_images=8",
    "total_images=320",
    "generator.channels=2",
    "generator.max_channels=8",
    "generator.latent_dim=8",
    "discriminator.channels=2",
    "discriminator.max_channels=8",
    "discriminator.spectral_norm=true",
    "log.tensorboard=off",
    "log.num_samples=4",
    "device=cpu",
    "precision=fp32",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bitwise equality is promised for equal numbers of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a folder of 20 random grey images of 32 pixels."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    return tmp_path


@pytest.fixture
def tiny(workplace: Path) -> Callable[..., RunConfig]:
    """Makes the tiny configuration, with overrides."""

    def make(*overrides: str) -> RunConfig:
        return load_config("digits", overrides=[*TINY, *overrides])

    return make
