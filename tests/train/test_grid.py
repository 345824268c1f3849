"""Grids of images: where every pixel lands."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.errors import RunFolderError
from fastgan.train.grid import GAP_PIXELS, GAP_VALUE, grid_array, save_grid


def test_images_lie_row_by_row_with_gaps_between_and_around() -> None:
    images = torch.stack([torch.full((1, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    picture = grid_array(images, columns=2)
    cell = 4 + GAP_PIXELS
    assert picture.shape == (2 * cell + GAP_PIXELS, 2 * cell + GAP_PIXELS, 1)
    starts = [(GAP_PIXELS, GAP_PIXELS), (GAP_PIXELS, GAP_PIXELS + cell), (GAP_PIXELS + cell, GAP_PIXELS)]
    expected = np.full(picture.shape, GAP_VALUE, np.uint8)
    for (top, left), value in zip(starts, (0, 128, 255), strict=True):
        expected[top : top + 4, left : left + 4] = value
    np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize(
    ("num_images", "size", "cells"),
    [(1, (8, 8), (1, 1)), (2, (8, 8), (1, 2)), (10, (8, 8), (3, 4)), (64, (8, 8), (8, 8)), (16, (32, 8), (2, 8))],
)
def test_the_grid_is_nearly_square(num_images: int, size: tuple[int, int], cells: tuple[int, int]) -> None:
    picture = grid_array(torch.zeros(num_images, 3, *size))
    expected = tuple(count * (side + GAP_PIXELS) + GAP_PIXELS for count, side in zip(cells, size, strict=True))
    assert picture.shape == (*expected, 3)


def test_values_out_of_range_are_clipped_and_nan_is_grey() -> None:
    picture = grid_array(torch.tensor([-9.0, 9.0, float("nan"), float("inf")]).reshape(1, 1, 2, 2))
    inner = picture[GAP_PIXELS:-GAP_PIXELS, GAP_PIXELS:-GAP_PIXELS, 0]
    assert inner.tolist() == [[0, 255], [128, 255]]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_the_file_holds_the_array(tmp_path: Path, channels: int, mode: str) -> None:
    images = torch.rand(5, channels, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    path = tmp_path / "samples.png"
    path.write_bytes(b"old")
    save_grid(images.bfloat16().requires_grad_(), path)
    with Image.open(path) as picture:
        assert picture.mode == mode
        pixels = np.asarray(picture).reshape(*picture.size[::-1], channels)
    np.testing.assert_array_equal(pixels, grid_array(images.bfloat16()))
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.png"]


def test_bad_shapes_are_refused(tmp_path: Path) -> None:
    for shape in [(0, 1, 4, 4), (1, 2, 4, 4), (1, 4, 4)]:
        with pytest.raises(ValueError, match="images must be"):
            grid_array(torch.zeros(shape))
    with pytest.raises(ValueError, match="columns=0"):
        grid_array(torch.zeros(1, 1, 4, 4), columns=0)
    with pytest.raises(RunFolderError, match="absent"):
        save_grid(torch.zeros(1, 1, 4, 4), tmp_path / "absent" / "x.png")
