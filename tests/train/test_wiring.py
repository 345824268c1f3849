"""What a configuration asks for reaches the run: averages, intervals, mirrored images, power iterations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.nn import spectral_norm
from fastgan.train import loop
from fastgan.train.checkpoint import list_checkpoints, load_newest_checkpoint
from fastgan.train.config import RunConfig
from fastgan.train.grid import grid_array
from fastgan.train.loop import prepare_run, train
from fastgan.train.sample import generate, load_generator
from fastgan.train.stats import read_stats

RUN = Path("run")


def test_samples_and_loaded_generators_are_averages(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[loop.Run] = []

    def remember(config: RunConfig, **options: Any) -> loop.Run:
        runs.append(prepare_run(config, **options))
        return runs[-1]

    monkeypatch.setattr(loop, "prepare_run", remember)
    train(tiny("total_images=64", "run_dir=run", "ema.half_life_images=1000", "ema.rampup=null"))
    (run,) = runs
    state, number = run.state, run.config.log.num_samples
    pictures = [
        grid_array(generate(network, num_images=number, seed=run.config.seed))
        for network in (state.generator_ema, state.generator)
    ]
    assert not np.array_equal(*pictures)
    with Image.open(RUN / "samples.png") as picture:
        assert np.array_equal(np.asarray(picture), pictures[0].squeeze())
    loaded = load_generator(RUN).generator
    assert all(map(torch.equal, loaded.parameters(), state.generator_ema.parameters()))


def test_each_interval_is_kept(tiny: Callable[..., RunConfig]) -> None:
    intervals = (
        "log.every_images=16",
        "log.samples_every_images=24",
        "checkpoint.every_images=32",
        "checkpoint.keep=9",
    )
    train(tiny("total_images=72", "run_dir=run", *intervals))
    assert [tick["images_seen"] for tick in read_stats(RUN)] == [16, 32, 48, 64, 72]
    assert [int(path.stem) for path in sorted((RUN / "samples").iterdir())] == [24, 48, 72]
    assert [int(path.name) for path in list_checkpoints(RUN)] == [32, 64, 72]


def test_samples_come_from_fixed_latents(tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def remember(generator: object, *, num_images: int, seed: int) -> torch.Tensor:
        seeds.append(seed)
        return generate(generator, num_images=num_images, seed=seed)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "generate", remember)
    train(tiny("total_images=32", "run_dir=run", "log.samples_every_images=8", "seed=5"))
    assert seeds == [5] * 4


def test_mirroring_changes_what_is_trained_on(tiny: Callable[..., RunConfig]) -> None:
    weights = []
    for mirror in ("false", "true"):
        train(tiny("total_images=16", f"run_dir=mirror-{mirror}", f"data.mirror={mirror}"))
        checkpoint = load_newest_checkpoint(Path(f"mirror-{mirror}"), on_damage=pytest.fail)
        run = prepare_run(tiny("total_images=16", f"run_dir=again-{mirror}"), resume=None)
        checkpoint.restore_network("discriminator", run.state.discriminator)
        weights.append(torch.cat([p.flatten() for p in run.state.discriminator.parameters()]))
    assert not torch.equal(*weights)


def test_power_iterations_are_as_many_as_asked_for(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    original = spectral_norm.power_iteration_

    def remember(*arguments: object, num_iterations: int = 1, **options: object) -> None:
        asked.append(num_iterations)
        original(*arguments, num_iterations=num_iterations, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(spectral_norm, "power_iteration_", remember)
    train(tiny("total_images=8", "run_dir=run", "discriminator.spectral_norm_iterations=3"))
    assert 3 in asked
