"""The loss picture of a run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastgan.errors import RunFolderError
from fastgan.train.plots import plot_losses, running_mean


def write_ticks(run_dir: Path, ticks: list[dict[str, float | None]]) -> None:
    lines = [json.dumps({"images_seen": 100 * (i + 1), "seconds": i} | tick) for i, tick in enumerate(ticks)]
    (run_dir / "stats.jsonl").write_text("".join(f"{line}\n" for line in lines))


def count_pixels(path: Path, colour: tuple[int, int, int]) -> int:
    with Image.open(path) as picture:
        return int((np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(axis=-1) < 8).sum())


@pytest.mark.parametrize("num_ticks", [1, 2, 100])
def test_every_recorded_curve_is_drawn(tmp_path: Path, num_ticks: int) -> None:
    tick = {"loss_discriminator": 0.6, "loss_generator": 1.4, "sign_statistic": 0.3}
    write_ticks(tmp_path, [tick] * num_ticks)
    path = plot_losses(tmp_path)
    assert path == tmp_path / "losses.png"
    for colour in [(0xC4, 0x4E, 0x52), (0x4C, 0x72, 0xB0), (0x55, 0xA8, 0x68)]:
        assert count_pixels(path, colour) > 5
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["losses.png", "stats.jsonl"]


def test_without_sign_statistic_there_is_one_panel_and_nan_is_a_gap(tmp_path: Path) -> None:
    write_ticks(tmp_path, [{"loss_discriminator": 0.6}, {"loss_discriminator": None}, {"loss_generator": 1.0}])
    assert count_pixels(plot_losses(tmp_path), (0x55, 0xA8, 0x68)) == 0


def test_no_tick_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"log\.every_images"):
        plot_losses(tmp_path)


def test_no_global_state_of_pyplot() -> None:
    assert "matplotlib.pyplot" not in sys.modules


def test_running_mean_leaves_nan_out() -> None:
    values = np.array([1.0, np.nan, 3.0, 8.0, np.nan, np.nan])
    expected = [1.0, 1.0, 3.0, 5.5, 8.0, np.nan]
    np.testing.assert_allclose(running_mean(values, 2), expected)
