"""Gradient penalties against plain PyTorch: `python -m benchmarks.bench_gradient_penalty`.

The op by itself, |g_n|^2 for each sample, and the whole of R1: logits of a preset's discriminator, their gradient with
respect to the images, its squared norm, and the gradient of that with respect to the weights.

Shape legend: N batch, C channels, R resolution, L parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.baselines.usual_networks import UsualDiscriminator
from benchmarks.baselines.usual_ops import usual_gradient_penalty
from benchmarks.cuda_graph import graphed
from benchmarks.harness import Case, Inputs, Provider, Run
from benchmarks.machine import DTYPES
from benchmarks.op_cases import DIRECTIONS, FORWARD, op_providers, random_tensor, run_of
from benchmarks.runner import Options, main_of
from fastgan.models import DCGANDiscriminator
from fastgan.objectives import r1_penalty
from fastgan.ops import gradient_penalty
from fastgan.train.build import build_networks
from fastgan.train.config import RunConfig, load_config

# (N, C, R) of the images.
GPU_SIZES = ((64, 3, 64), (16, 3, 256), (4, 3, 1024))
CPU_SIZES = ((64, 3, 64),)
QUICK_SIZES = ((16, 1, 32),)


def cases(options: Options) -> Iterator[Case]:
    """R1 first: the op is a small part of it."""
    for preset in ("digits",) if options.is_quick else ("digits", "dcgan-64"):
        yield r1_case(load_config(preset), options)
    sizes = GPU_SIZES if options.device.type == "cuda" else CPU_SIZES
    for size in QUICK_SIZES if options.is_quick else sizes:
        for direction in DIRECTIONS:
            yield op_case(size, direction, options)


def op_case(size: tuple[int, int, int], direction: str, options: Options) -> Case:
    """The squared norm of each sample, and its gradient."""
    batch, channels, resolution = size
    shape = (batch, channels, resolution, resolution)

    def make_inputs(seed: int) -> Inputs:
        facts = {"dtype": torch.float32, "device": options.device}
        cotangent = random_tensor(batch, seed=2 * seed + 1, requires_grad=False, **facts)
        return random_tensor(*shape, seed=2 * seed, **facts), cotangent

    num_numbers = batch * channels * resolution**2
    return Case(
        benchmark="gradient_penalty",
        name=f"N{batch} {channels} channels, {resolution} px, {direction}",
        device=options.device,
        dtype="fp32",
        make_inputs=make_inputs,
        exact=run_of(usual_gradient_penalty, direction),
        providers=op_providers(
            "gradient_penalty", gradient_penalty, usual_gradient_penalty, direction, is_quick=options.is_quick
        ),
        num_bytes=num_numbers * (1 if direction == FORWARD else 3) * 4,
        num_flops=num_numbers * (2 if direction == FORWARD else 3),
        num_items=batch,
        item="images",
    )


def r1_case(config: RunConfig, options: Options) -> Case:
    """The gradient of R1 with respect to all weights, by double backward, at equal spectral-norm vectors."""
    device, batch, size = options.device, config.batch_images, config.data.resolution
    shape = batch, config.data.channels, size, size

    def make_inputs(seed: int) -> Inputs:
        return (random_tensor(*shape, seed=seed, dtype=torch.float32, device=device),)

    def discriminator(dtype: torch.dtype = torch.float32) -> DCGANDiscriminator:
        return build_networks(config, dtype=dtype, device=device)[1]

    def exact(images: Tensor) -> Sequence[Tensor]:
        return _r1_run(discriminator(torch.float64).double())(images)

    dtypes = ("fp32", "bf16") if device.type == "cuda" else ("fp32",)
    providers = [Provider("usual", build=lambda: _r1_run(UsualDiscriminator(discriminator()).eval()))]
    providers += [
        Provider(f"fastgan {name}", build=lambda name=name: _r1_run(discriminator(DTYPES[name])), dtype=name)
        for name in dtypes
    ]
    if device.type == "cuda":
        providers += [graphed(provider) for provider in providers]
    return Case(
        benchmark="gradient_penalty",
        name=f"R1 of {config.name}'s discriminator, batch {batch}",
        device=device,
        dtype="fp32",
        make_inputs=make_inputs,
        exact=exact,
        providers=tuple(providers),
        num_items=batch,
        item="images",
    )


def _r1_run(network: nn.Module) -> Run:
    """From images to the penalty and its gradients, layer by layer."""
    weights = [parameter for parameter in network.parameters() if parameter.dim() == 4]

    def run(images: Tensor) -> Sequence[Tensor]:
        penalty = r1_penalty(network(images), images)
        return (penalty, *torch.autograd.grad(penalty, weights))

    return run


if __name__ == "__main__":
    sys.exit(main_of("gradient_penalty", cases, description=__doc__))
