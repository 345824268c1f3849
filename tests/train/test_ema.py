"""The moving average: half-life in images, ramp-up, and buffers that are copied."""

import math
from collections.abc import Callable

import pytest
import torch

from fastgan.models import DCGANGenerator
from fastgan.train import step
from fastgan.train.config import RunConfig
from fastgan.train.ema import ema_decay, update_ema
from fastgan.train.loop import train


def test_after_one_half_life_half_is_left() -> None:
    decay = ema_decay(half_life_images=1000, rampup=None, images_seen=0, num_images=100)
    assert decay**10 == pytest.approx(0.5)


def test_ramp_up_shortens_the_half_life_early_on() -> None:
    arguments = {"half_life_images": 1000, "rampup": 0.05, "num_images": 100}
    assert ema_decay(images_seen=0, **arguments) == 0.0
    assert ema_decay(images_seen=4000, **arguments) == pytest.approx(0.5 ** (100 / 200))
    assert ema_decay(images_seen=10**6, **arguments) == pytest.approx(0.5 ** (100 / 1000))


@pytest.mark.parametrize("generator_updates", [1, 2])
def test_half_life_does_not_depend_on_the_updates_per_step(
    tiny: Callable[..., RunConfig], generator_updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decays of a step multiply to 0.5 ^ (images of the step / half life)."""
    decays = []
    monkeypatch.setattr(step, "update_ema", lambda average, network, *, decay: decays.append(decay))
    settings = ["ema.half_life_images=32", "ema.rampup=null", "total_images=16"]
    train(tiny(f"schedule.generator_updates={generator_updates}", *settings))
    assert len(decays) == 2 * generator_updates
    assert math.prod(decays) == pytest.approx(0.5 ** (16 / 32))


def test_parameters_are_averaged_and_buffers_copied() -> None:
    torch.manual_seed(0)
    shape = {"resolution": 32, "image_channels": 1, "latent_dim": 4, "channels": 2, "max_channels": 8}
    average = DCGANGenerator(spectral_norm=True, **shape)  # type: ignore[arg-type]
    network = DCGANGenerator(spectral_norm=True, **shape)  # type: ignore[arg-type]
    expected = [0.75 * old + 0.25 * new for old, new in zip(average.parameters(), network.parameters(), strict=True)]
    update_ema(average, network, decay=0.75)
    torch.testing.assert_close(list(average.parameters()), [p.detach() for p in expected])
    buffers = dict(average.named_buffers())
    assert buffers
    for name, buffer in network.named_buffers():
        assert torch.equal(buffers[name], buffer)
        assert buffer.norm().item() == pytest.approx(1.0)
