"""The moving average: half-life in images, ramp-up, and buffers that are copied."""

import pytest
import torch

from fastgan.models import DCGANGenerator
from fastgan.train.ema import ema_decay, update_ema


def test_after_one_half_life_half_is_left() -> None:
    decay = ema_decay(half_life_images=1000, rampup=None, images_seen=0, num_images=100)
    assert decay**10 == pytest.approx(0.5)


def test_ramp_up_shortens_the_half_life_early_on() -> None:
    arguments = {"half_life_images": 1000, "rampup": 0.05, "num_images": 100}
    assert ema_decay(images_seen=0, **arguments) == 0.0
    assert ema_decay(images_seen=4000, **arguments) == pytest.approx(0.5 ** (100 / 200))
    assert ema_decay(images_seen=10**6, **arguments) == pytest.approx(0.5 ** (100 / 1000))


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
