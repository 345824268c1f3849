"""The number format that hidden layers compute in, and the device they compute on."""

import statistics
import time

import torch

from fastgan.dist import ALONE, World
from fastgan.errors import ConfigError
from fastgan.train.build import build_networks
from fastgan.train.config import RunConfig
from fastgan.train.environment import cpu_facts

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

# bf16 must be this much faster to be worth its rounding.
_REQUIRED_SPEEDUP = 1.1
_NUM_TRIALS = 5
_MAX_IMAGES = 64


def choose_device(name: str, world: World = ALONE) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`: of several GPUs in a machine, each of its processes has its own.

    Raises:
        ConfigError: if `cuda` is asked for and there is none, or there are fewer than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda' but torch sees no CUDA device; run `fastgan doctor`, or set device=cpu")
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if device.type == "cpu" or not world.is_launched:
        return device
    num_gpus = torch.cuda.device_count()
    if world.local_rank >= num_gpus:
        raise ConfigError(
            f"process {world.local_rank} of this machine has no GPU of its own: torch sees {num_gpus}; "
            f"start with --nproc-per-node={num_gpus}, or set device=cpu"
        )
    return torch.device("cuda", world.local_rank)


def choose_precision(config: RunConfig, *, num_classes: int, device: torch.device) -> str:
    """`fp32` or `bf16`: what the configuration says, or for `auto` what a measurement finds faster.

    A CPU without bf16 instructions emulates them slowly: it is not asked. Where there are some, trying tells more
    reliably than a table of names whether they help.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cpu" and not cpu_facts()["bf16_instructions"]:
        return "fp32"
    seconds = {name: _seconds_per_pass(config, num_classes, dtype, device) for name, dtype in DTYPES.items()}
    return "bf16" if seconds["fp32"] > _REQUIRED_SPEEDUP * seconds["bf16"] else "fp32"


def _seconds_per_pass(config: RunConfig, num_classes: int, dtype: torch.dtype, device: torch.device) -> float:
    """Median time of one forward and backward pass through both networks."""
    generator, discriminator = build_networks(config, num_classes=num_classes, dtype=dtype, device=device)
    num_images = min(config.micro_batch_images or config.batch_images, _MAX_IMAGES)
    latents = torch.zeros(num_images, config.generator.latent_dim, device=device)
    labels = torch.zeros(num_images, dtype=torch.int64, device=device) if num_classes else None
    times = []
    for _ in range(_NUM_TRIALS + 1):
        start = _now(device)
        discriminator(generator(latents, labels), labels).sum().backward()
        times.append(_now(device) - start)
    # The first pass sets kernels up.
    return statistics.median(times[1:])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
