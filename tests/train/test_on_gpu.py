"""Training on a GPU: the same first losses as on the CPU, and samples from what was saved there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastgan.train.config import RunConfig
from fastgan.train.loop import train
from fastgan.train.sample import generate, load_generator

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def first_losses(run_dir: str) -> tuple[float, float]:
    tick = json.loads((Path(run_dir) / "stats.jsonl").read_text().splitlines()[0])
    return tick["loss_discriminator"], tick["loss_generator"]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_a_run_begins_as_on_the_cpu(tiny: Callable[..., RunConfig], precision: str, tolerance: float) -> None:
    shared = ("total_images=24", "log.every_images=8")
    train(tiny(*shared, "run_dir=cpu", "device=cpu", "precision=fp32"))
    train(tiny(*shared, "run_dir=gpu", "device=cuda", f"precision={precision}"))
    assert first_losses("gpu") == pytest.approx(first_losses("cpu"), rel=tolerance)
    images = generate(load_generator(Path("gpu"), device="cuda").generator, num_images=4, seed=0)
    assert images.shape[0] == 4
    assert images.isfinite().all()
