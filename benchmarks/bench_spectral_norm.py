"""Spectral norm of a whole network against torch's parametrization: `python -m benchmarks.bench_spectral_norm`.

One call is what an update of a discriminator needs: one power iteration of every layer, the normalised weights, and
the gradients of the weights. The usual update passes through the network twice, for real and for fake images. fastgan
keeps the weights as they are and hands 1 / sigma on to the convolutions; the product is formed here so that both
compute the same.

Shape legend: L matrices; matrix i is [R_i, K_i].
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from benchmarks.baselines.usual_ops import UsualSpectralNorm
from benchmarks.cuda_graph import graphed
from benchmarks.harness import Case, Inputs, Provider, Run
from benchmarks.op_cases import implementations_of, random_tensor
from benchmarks.runner import Options, main_of
from fastgan.ops import power_iteration_, spectral_norm

# [R, K] of each layer.
Sizes = tuple[tuple[int, int], ...]
ONE: Sizes = ((512, 4608),)
DCGAN_64: Sizes = ((64, 48), (128, 1024), (256, 2048), (512, 4096), (1, 8192))
QUICK: Sizes = ((16, 16), (32, 256), (1, 512))


def residual_sizes(widths: Sequence[int], *, image_channels: int = 3) -> Sizes:
    """Residual blocks of two 3x3 convolutions and a 1x1 shortcut where the width changes, and a last linear layer."""
    sizes: list[tuple[int, int]] = []
    for wide, narrow in zip(widths, (image_channels, *widths), strict=False):
        sizes += [(wide, 9 * narrow), (wide, 9 * wide), *([(wide, narrow)] if wide != narrow else [])]
    return (*sizes, (1, widths[-1]))


# Miyato et al. 2018 for CIFAR-10, Brock et al. 2019 without its attention, and the widths of Karras et al. 2020.
SNGAN_32 = residual_sizes((128, 128, 128, 128))
BIGGAN_128 = residual_sizes((96, 192, 384, 768, 1536, 1536))
STYLEGAN2_1024 = residual_sizes((32, 64, 128, 256, 512, 512, 512, 512, 512))
# As many small layers as no single network here has: launches are all that counts.
SIXTY: Sizes = ((128, 1152),) * 60


def cases(options: Options) -> Iterator[Case]:
    """The networks, the small ones first."""
    networks = {"one layer": ONE, "dcgan-64": DCGAN_64, "sngan-32": SNGAN_32, "small layers": SIXTY}
    large = {"biggan-128": BIGGAN_128, "stylegan2-1024": STYLEGAN2_1024}
    if options.is_quick:
        networks = {"quick": QUICK}
    elif options.device.type == "cuda":
        networks |= large
    for name, sizes in networks.items():
        yield spectral_norm_case(f"{name}, {len(sizes)} layers" if len(sizes) > 1 else name, sizes, options)


def spectral_norm_case(name: str, sizes: Sequence[tuple[int, int]], options: Options) -> Case:
    """All layers of one network. A run keeps weights and vectors of its own, since every call changes the vectors."""
    start = make_inputs(sizes, options.device)
    providers = [
        Provider("torch, real and fake pass", build=lambda: usual_run(start, num_passes=2)),
        Provider("torch, both passes cached", build=lambda: cached_run(start)),
        Provider("torch, one pass", build=lambda: usual_run(start, num_passes=1)),
    ]
    providers += [
        Provider(f"fastgan {impl}", build=lambda impl=impl: fastgan_run(start, impl=impl))
        for impl in implementations_of("spectral_norm")
    ]
    if options.device.type == "cuda":
        providers += [graphed(provider, has_state=True) for provider in providers]
    num_numbers = sum(rows * columns for rows, columns in sizes)
    return Case(
        benchmark="spectral_norm",
        name=name,
        device=options.device,
        dtype="fp32",
        make_inputs=lambda seed: start,
        exact=lambda *tensors: fastgan_run(tensors, impl="reference")(),
        providers=tuple(providers),
        # The matrix is read for Wv, W'u, u'Wv and the product with 1 / sigma, which is written; backward reads the
        # cotangent and the matrix and writes the gradient.
        num_bytes=8 * num_numbers * 4,
        num_flops=11 * num_numbers,
        num_items=len(sizes),
        item="layers",
    )


def make_inputs(sizes: Sequence[tuple[int, int]], device: torch.device) -> Inputs:
    """L matrices, L left vectors, L right vectors, and a cotangent for each matrix."""
    facts = {"dtype": torch.float32, "device": device, "requires_grad": False}
    matrices = [random_tensor(*size, seed=4 * i, **facts) for i, size in enumerate(sizes)]
    left = [F.normalize(random_tensor(rows, seed=4 * i + 1, **facts), dim=0) for i, (rows, _) in enumerate(sizes)]
    right = [
        F.normalize(random_tensor(columns, seed=4 * i + 2, **facts), dim=0) for i, (_, columns) in enumerate(sizes)
    ]
    cotangents = [random_tensor(*size, seed=4 * i + 3, **facts) for i, size in enumerate(sizes)]
    return (*matrices, *left, *right, *cotangents)


def split(inputs: Inputs) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """The four groups of `make_inputs`; matrices and vectors are copies."""
    count = len(inputs) // 4
    matrices, left, right, cotangents = (list(inputs[i * count : (i + 1) * count]) for i in range(4))
    return *([x.detach().clone() for x in group] for group in (matrices, left, right)), cotangents


def fastgan_run(inputs: Inputs, *, impl: str) -> Run:
    """Normalised weights and gradients by the ops of fastgan."""
    matrices, left, right, cotangents = split(inputs)
    weights = [matrix.requires_grad_() for matrix in matrices]

    def run(*unused: Tensor) -> Sequence[Tensor]:
        del unused
        power_iteration_([weight.detach() for weight in weights], left, right, impl=impl)
        scales = spectral_norm(weights, left, right, impl=impl).reciprocal().unbind()
        normalised = [weight * scale for weight, scale in zip(weights, scales, strict=True)]
        return (*normalised, *torch.autograd.grad(normalised, weights, cotangents))

    return run


def usual_run(inputs: Inputs, *, num_passes: int) -> Run:
    """The same by `torch.nn.utils.parametrizations.spectral_norm`, which works anew in each pass of an update.

    The passes' gradients are formed one by one, as a backward pass through real and fake images does. What is returned
    is of the first pass, since the second one sees vectors that have moved on.
    """
    matrices, left, right, cotangents = split(inputs)
    network = UsualSpectralNorm(matrices, left, right).train()
    weights = list(network.parameters())

    def run(*unused: Tensor) -> Sequence[Tensor]:
        del unused
        passes = [network() for _ in range(num_passes)]
        gradients = [torch.autograd.grad(normalised, weights, cotangents) for normalised in passes]
        return (*passes[0], *gradients[0])

    return run


def cached_run(inputs: Inputs) -> Run:
    """Two passes of torch's parametrization under `parametrize.cached()`: the second finds the first's weights."""
    matrices, left, right, cotangents = split(inputs)
    network = UsualSpectralNorm(matrices, left, right).train()
    weights = list(network.parameters())

    def run(*unused: Tensor) -> Sequence[Tensor]:
        del unused
        with parametrize.cached():
            network()
            normalised = network()
        return (*normalised, *torch.autograd.grad(normalised, weights, cotangents))

    return run


if __name__ == "__main__":
    sys.exit(main_of("spectral_norm", cases, description=__doc__))
