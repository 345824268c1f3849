"""Spectral norm of a whole network against torch's parametrization: `python -m benchmarks.bench_spectral_norm`.

One call is what an update needs at least: one power iteration of every layer, the normalised weights, and the
gradients of the weights. fastgan keeps the weights as they are and hands 1 / sigma on to the convolutions; the product
is formed here so that both compute the same.

Shape legend: L matrices; matrix i is [R_i, K_i].
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.baselines.usual_ops import UsualSpectralNorm
from benchmarks.cuda_graph import graphed
from benchmarks.harness import Case, Inputs, Provider, Run
from benchmarks.op_cases import implementations_of, random_tensor
from benchmarks.runner import Options, main_of
from fastgan.ops import power_iteration_, spectral_norm

# [R, K] of each layer: DCGAN's discriminator at 64 px, and twenty layers of a StyleGAN2-like one.
DCGAN = ((64, 48), (128, 1024), (256, 2048), (512, 4096), (1, 8192))
TWENTY = tuple((width, 9 * width) for width in (32, 64, 128, 256, 512) for _ in range(4))
QUICK = ((16, 16), (32, 256), (1, 512))


def cases(options: Options) -> Iterator[Case]:
    """The networks, the small one first."""
    sets = {"quick, 3 layers": QUICK} if options.is_quick else {"dcgan-64, 5 layers": DCGAN, "20 layers": TWENTY}
    for name, sizes in sets.items():
        yield spectral_norm_case(name, sizes, options)


def spectral_norm_case(name: str, sizes: Sequence[tuple[int, int]], options: Options) -> Case:
    """All layers of one network. A run keeps weights and vectors of its own, since every call changes the vectors."""
    start = make_inputs(sizes, options.device)
    providers = [Provider("torch parametrization", build=lambda: usual_run(start))]
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


def usual_run(inputs: Inputs) -> Run:
    """The same by `torch.nn.utils.parametrizations.spectral_norm`."""
    matrices, left, right, cotangents = split(inputs)
    network = UsualSpectralNorm(matrices, left, right).train()
    weights = list(network.parameters())

    def run(*unused: Tensor) -> Sequence[Tensor]:
        del unused
        normalised = network()
        return (*normalised, *torch.autograd.grad(normalised, weights, cotangents))

    return run


if __name__ == "__main__":
    sys.exit(main_of("spectral_norm", cases, description=__doc__))
