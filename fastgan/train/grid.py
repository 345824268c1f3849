"""Many images in one picture."""

# N images, C channels, H W pixels

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastgan.train.files import replace_file

GAP_PIXELS = 2
GAP_VALUE = 255

Picture = np.ndarray[Any, np.dtype[np.uint8]]


def grid_array(images: Tensor, *, columns: int | None = None) -> Picture:
    """Lay images out row by row on white, GAP_PIXELS apart and around; free cells at the end stay white.

    Args:
        images: [N, C, H, W], values in [-1, 1], clipped where they are not; C is 1 or 3 and N at least 1.
        columns: images in a row; by default what makes the picture nearly square.
    Returns:
        uint8 [height, width, C].
    Raises:
        ValueError: another shape, or columns below 1.
    """
    if images.ndim != 4 or images.shape[0] < 1 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be [N >= 1, 1 or 3, H, W], got {list(images.shape)}")
    num_images, channels, height, width = images.shape
    columns = columns if columns is not None else math.ceil(math.sqrt(num_images * height / width))
    if columns < 1:
        raise ValueError(f"columns={columns} must be at least 1")
    columns = min(columns, num_images)
    rows = math.ceil(num_images / columns)
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    shape = (rows * (height + GAP_PIXELS) + GAP_PIXELS, columns * (width + GAP_PIXELS) + GAP_PIXELS, channels)
    picture = np.full(shape, GAP_VALUE, dtype=np.uint8)
    for index in range(num_images):
        top = GAP_PIXELS + index // columns * (height + GAP_PIXELS)
        left = GAP_PIXELS + index % columns * (width + GAP_PIXELS)
        picture[top : top + height, left : left + width] = pixels[index]
    return picture


def save_grid(images: Tensor, path: Path, *, columns: int | None = None) -> None:
    """Write `grid_array(images)` as a PNG, grey or RGB, replacing `path` at once.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    save_png(grid_array(images, columns=columns), path)


def save_png(picture: Picture, path: Path) -> None:
    """Write uint8 [height, width, 1 or 3] as a PNG, replacing `path` at once."""
    content = io.BytesIO()
    Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(content, format="PNG")
    replace_file(path, content.getvalue())


def to_uint8(images: Tensor) -> Tensor:
    """round((x + 1) * 127.5), on the CPU; values beyond [-1, 1] are clipped and NaN becomes mid-grey."""
    scaled = (images.detach().float().nan_to_num(nan=0.0) + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).cpu()
