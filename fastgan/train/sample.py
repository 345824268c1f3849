"""Images from a generator: fixed latents, keyed by seed and number.

Shape legend: N images, C channels, H W pixels.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastgan import rng
from fastgan.errors import ConfigError
from fastgan.models import DCGANGenerator
from fastgan.train.build import build_networks
from fastgan.train.checkpoint import load_newest_checkpoint
from fastgan.train.log import warn
from fastgan.train.precision import DTYPES
from fastgan.train.run_folder import read_config

_IMAGES_PER_PASS = 256


class LoadedGenerator(NamedTuple):
    """The averaged generator of a run, and how many images the discriminator had seen."""

    generator: DCGANGenerator
    images_seen: int


def load_generator(run_dir: Path, *, device: torch.device | str = "cpu") -> LoadedGenerator:
    """The averaged generator of the newest intact checkpoint.

    Raises:
        CheckpointError, RunFolderError: if the folder holds no run or no intact checkpoint.
    """
    config = read_config(run_dir)
    checkpoint = load_newest_checkpoint(run_dir, on_damage=warn)
    facts = checkpoint.facts
    generator, _ = build_networks(config, num_classes=facts.num_classes, dtype=DTYPES[facts.precision], device=device)
    checkpoint.restore_network("generator_ema", generator)
    return LoadedGenerator(generator.requires_grad_(False).eval(), checkpoint.schedule.images_seen)


@torch.no_grad()
def generate(generator: DCGANGenerator, *, num_images: int, seed: int, label: int | None = None) -> Tensor:
    """[N, C, H, W] float32 in [-1, 1], on the CPU: image i depends on the seed and i.

    Args:
        num_images: N, at least 1.
        seed: of the latents.
        label: class of all images; None goes through the classes in turn.
    Raises:
        ConfigError: if `num_images` is below 1, or `label` is not a class of this generator.
    """
    if num_images < 1:
        raise ConfigError(f"num={num_images} must be at least 1")
    if label is not None and not 0 <= label < generator.num_classes:
        known = f"its classes are 0 to {generator.num_classes - 1}" if generator.num_classes else "it has no classes"
        raise ConfigError(f"label={label} is not a class of this generator: {known}")
    device = next(generator.parameters()).device
    parts = []
    for first in range(0, num_images, _IMAGES_PER_PASS):
        count = min(_IMAGES_PER_PASS, num_images - first)
        latents = torch.from_numpy(rng.normal(seed, "sample", first, count, generator.latent_dim)).to(device)
        labels = _labels(generator.num_classes, first, count, label).to(device) if generator.num_classes else None
        parts.append(generator(latents, labels).cpu())
    return torch.cat(parts)


def _labels(num_classes: int, first: int, count: int, label: int | None) -> Tensor:
    if label is not None:
        return torch.full((count,), label, dtype=torch.int64)
    return torch.arange(first, first + count) % num_classes
