"""Tiny data sets on disk, whose image number i can be told from its pixels."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastgan.data import ImageDataset, open_dataset


def encode(pixels: Any, *, image_format: str = "PNG", **options: Any) -> bytes:
    """The encoded image of uint8 pixels [H, W] or [H, W, C], or of a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def numbered(index: int, *, side: int = 4) -> np.ndarray:
    """[side, side] with `index` everywhere but at the left edge, which is 200: not symmetric."""
    pixels = np.full((side, side), index, dtype=np.uint8)
    pixels[:, 0] = 200
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """The index given to `numbered`, from uint8 [1, H, W], mirrored or not."""
    return int(pixels[0, 1, 1])


WriteData = Callable[..., str]
OpenData = Callable[..., ImageDataset]


@pytest.fixture
def write_data(tmp_path: Path) -> WriteData:
    """Writes {name: bytes} as a folder, or as a zip when `to` ends in .zip; gives the path."""

    def write(files: dict[str, bytes], *, to: str = "images", labels: Any = ()) -> str:
        files = dict(files)
        if labels != ():
            files["dataset.json"] = json.dumps({"labels": labels}).encode()
        target = tmp_path / to
        if to.endswith(".zip"):
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            target.mkdir(exist_ok=True)
            for name, content in files.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(content)
        return str(target)

    return write


@pytest.fixture
def numbered_files() -> Callable[[int], dict[str, bytes]]:
    """{"000.png": image 0, ...}, in sorted order."""
    return lambda num: {f"{index:03}.png": encode(numbered(index)) for index in range(num)}


@pytest.fixture
def messages() -> list[str]:
    """The warnings that `open_data` was given."""
    return []


@pytest.fixture
def open_data(messages: list[str]) -> OpenData:
    """`open_dataset` for grey images of 4x4 pixels, warnings going to `messages`."""

    def open_it(path: str, **options: Any) -> ImageDataset:
        settings: dict[str, Any] = {"resolution": 4, "channels": 1, "on_warning": messages.append}
        return open_dataset(path, **(settings | options))

    return open_it


@pytest.fixture(name="encode")
def encode_fixture() -> Callable[..., bytes]:
    return encode


@pytest.fixture(name="number_of")
def number_of_fixture() -> Callable[[np.ndarray], int]:
    return number_of
