"""`fastgan.ops.bias_act` against plain PyTorch and torch.compile: `python -m benchmarks.bench_bias_act`.

Shape legend: N batch, C channels, R resolution.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from torch import Tensor

from benchmarks.baselines.usual_ops import usual_bias_act
from benchmarks.convolutions import shapes
from benchmarks.harness import Case, Inputs
from benchmarks.machine import DTYPES
from benchmarks.op_cases import BACKWARD, FORWARD, LAYER_DIRECTIONS, PENALTY, op_providers, random_tensor, run_of
from benchmarks.runner import Options, main_of
from fastgan.ops import bias_act


def cases(options: Options) -> Iterator[Case]:
    """leaky_relu(x + bias), what it costs beside each convolution of `benchmarks.convolutions` that it follows."""
    layers = shapes(options, transposed=True)
    for size in dict.fromkeys((layer.batch, layer.out_channels, layer.out_resolution) for layer in layers):
        for direction in LAYER_DIRECTIONS:
            yield bias_act_case(size, direction, options)


def bias_act_case(size: tuple[int, int, int], direction: str, options: Options) -> Case:
    """One size in one direction."""
    batch, channels, resolution = size
    name = "bf16" if options.device.type == "cuda" else "fp32"
    images = (batch, channels, resolution, resolution)
    num_numbers = batch * channels * resolution**2

    def make_inputs(seed: int) -> Inputs:
        facts = {"dtype": DTYPES[name], "device": options.device}
        cotangent = random_tensor(*images, seed=3 * seed + 2, requires_grad=False, **facts)
        return (
            random_tensor(*images, seed=3 * seed, **facts),
            random_tensor(channels, seed=3 * seed + 1, **facts),
            cotangent,
        )

    def function(*tensors: Tensor, impl: str) -> Tensor:
        return bias_act(*tensors, activation="leaky_relu", impl=impl)

    return Case(
        benchmark="bias_act",
        name=f"N{batch} {channels} channels, {resolution} px, {direction}",
        device=options.device,
        dtype=name,
        make_inputs=make_inputs,
        exact=run_of(usual_bias_act, direction),
        providers=op_providers("bias_act", function, usual_bias_act, direction, is_quick=options.is_quick),
        # Forward reads x and writes y; each gradient reads y and what it is of, and writes itself.
        num_bytes=num_numbers * {FORWARD: 2, BACKWARD: 5, PENALTY: 8}[direction] * DTYPES[name].itemsize,
        num_flops=num_numbers * {FORWARD: 2, BACKWARD: 4, PENALTY: 6}[direction],
        num_items=batch,
        item="images",
    )


if __name__ == "__main__":
    sys.exit(main_of("bias_act", cases, description=__doc__))
