"""Cases of convolution and transposed convolution.

Shape legend: N batch, C input channels, O output channels, R input resolution, K kernel size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.baselines.usual_ops import usual_conv2d, usual_conv_transpose2d
from benchmarks.ceilings import product_of_convolutions
from benchmarks.harness import Case, Inputs
from benchmarks.machine import DTYPES
from benchmarks.op_cases import BACKWARD, FORWARD, LAYER_DIRECTIONS, PENALTY, op_providers, random_tensor, run_of
from benchmarks.runner import Options
from fastgan.ops import conv2d, conv_transpose2d


@dataclass(frozen=True)
class Shape:
    """One convolution layer: N images of C channels and R x R pixels, to O channels."""

    batch: int
    in_channels: int
    out_channels: int
    resolution: int
    kernel_size: int = 4
    stride: int = 2
    padding: int = 1
    output_padding: int = 0
    transposed: bool = True

    @property
    def mirrored(self) -> Shape:
        """The convolution from this transposed one's output to its input, which has as many products."""
        return replace(
            self,
            in_channels=self.out_channels,
            out_channels=self.in_channels,
            resolution=self.out_resolution,
            output_padding=0,
            transposed=False,
        )

    @property
    def out_resolution(self) -> int:
        """Height and width of the output."""
        if self.transposed:
            inner = (self.resolution - 1) * self.stride - 2 * self.padding
            return inner + self.kernel_size + self.output_padding
        return (self.resolution + 2 * self.padding - self.kernel_size) // self.stride + 1

    @property
    def num_outputs(self) -> int:
        """Numbers of the output."""
        return self.batch * self.out_channels * self.out_resolution**2

    @property
    def name(self) -> str:
        """For example "N16 64 to 32, 512 to 1024 px, k4 s2"."""
        sizes = f"{self.resolution} to {self.out_resolution} px, k{self.kernel_size} s{self.stride}"
        return f"N{self.batch} {self.in_channels} to {self.out_channels}, {sizes}"

    def num_flops(self, direction: str) -> int:
        """Two per product; each gradient takes as many as the value. Padding is not left out."""
        pixels = self.resolution if self.transposed else self.out_resolution
        products = self.batch * pixels**2 * self.in_channels * self.out_channels * self.kernel_size**2
        # The penalty: the value, the gradient by x, and that one's gradients by cotangent and weight.
        return 2 * products * {FORWARD: 1, BACKWARD: 3, PENALTY: 4}[direction]

    def num_bytes(self, direction: str, dtype: torch.dtype) -> int:
        """Each tensor once per pass: input and weight read, output written; then what each gradient reads and writes.

        Backward reads x, weight, y (for the activation) and the cotangent, and writes the gradients of x and weight.
        The penalty reads cotangent, y and weight for the gradient by x; that, weight and y for the gradient by the
        cotangent; all but the weight for the gradient by it.
        """
        x = self.batch * self.in_channels * self.resolution**2
        y = self.batch * self.out_channels * self.out_resolution**2
        weight = self.in_channels * self.out_channels * self.kernel_size**2
        times = {FORWARD: (1, 1, 1), BACKWARD: (3, 3, 3), PENALTY: (4, 7, 4)}[direction]
        return sum(count * numbers for count, numbers in zip(times, (x, y, weight), strict=True)) * dtype.itemsize

    def make_inputs(self, seed: int, *, dtype: torch.dtype, device: torch.device) -> Inputs:
        """Images, weight, bias, and a cotangent of the output."""
        channels = self.in_channels, self.out_channels
        kernel = (*(channels if self.transposed else channels[::-1]), self.kernel_size, self.kernel_size)
        images = (self.batch, self.in_channels, self.resolution, self.resolution)
        out = (self.batch, self.out_channels, self.out_resolution, self.out_resolution)
        scale = 1 / math.sqrt(self.in_channels * self.kernel_size**2)
        return (
            random_tensor(*images, seed=4 * seed, dtype=dtype, device=device),
            random_tensor(*kernel, seed=4 * seed + 1, dtype=dtype, device=device, scale=scale),
            random_tensor(self.out_channels, seed=4 * seed + 2, dtype=dtype, device=device),
            random_tensor(*out, seed=4 * seed + 3, dtype=dtype, device=device, requires_grad=False),
        )


# Blocks of a StyleGAN2-like generator at 256 px, the last one of 1024 px, then the layers of DCGAN at 64 px: what
# enlarges images, then layers of stride 1, which follow in each block or begin the network.
GPU_SHAPES = (
    Shape(16, 256, 128, 64),
    Shape(16, 64, 32, 512),
    Shape(16, 512, 256, 32),
    Shape(64, 128, 64, 16),
    Shape(16, 128, 64, 128),
    Shape(64, 256, 128, 8),
    Shape(64, 512, 256, 4),
    Shape(16, 512, 512, 16),
    Shape(16, 512, 512, 8),
    Shape(64, 64, 3, 32),
    Shape(16, 128, 128, 128, kernel_size=3, stride=1),
    Shape(16, 32, 32, 1024, kernel_size=3, stride=1),
    Shape(16, 512, 512, 32, kernel_size=3, stride=1),
    Shape(64, 100, 512, 1, stride=1, padding=0),
)
CPU_SHAPES = (Shape(64, 64, 32, 8), Shape(64, 128, 64, 4), Shape(64, 64, 3, 32), Shape(64, 128, 64, 16))
QUICK_SHAPES = (Shape(16, 32, 16, 8),)


GPU_BATCHES = (16, 32, 64)
# Inputs, outputs and gradients of the float64 comparison fit into 80 GB below so many numbers of output.
_MAX_NUMBERS = 2**30


def shapes(options: Options, *, transposed: bool) -> Iterator[Shape]:
    """The layers above, then on a GPU the first ones with kernel 3, then all in other batches.

    Or their mirror images.
    """
    chosen = CPU_SHAPES if options.device.type == "cpu" else GPU_SHAPES
    chosen = QUICK_SHAPES if options.is_quick else chosen
    if options.device.type == "cuda" and not options.is_quick:
        chosen += tuple(replace(block, kernel_size=3, output_padding=1) for block in chosen[:3])
        others = (replace(block, batch=batch) for batch in GPU_BATCHES for block in GPU_SHAPES if block.batch != batch)
        chosen += tuple(block for block in others if block.num_outputs <= _MAX_NUMBERS)
    for block in chosen:
        yield block if transposed else block.mirrored


def convolution_cases(options: Options, *, transposed: bool) -> Iterator[Case]:
    """All shapes in all directions, in bf16 on a GPU and in fp32 on a CPU."""
    dtype = "bf16" if options.device.type == "cuda" else "fp32"
    for shape in shapes(options, transposed=transposed):
        for direction in LAYER_DIRECTIONS:
            yield convolution_case(shape, direction, options, dtype=dtype)


def convolution_case(shape: Shape, direction: str, options: Options, *, dtype: str) -> Case:
    """leaky_relu(convolution + bias), its gradients, or what a gradient penalty asks of it."""
    convolve, usual = (conv_transpose2d, usual_conv_transpose2d) if shape.transposed else (conv2d, usual_conv2d)
    benchmark = convolve.__name__
    settings = {"stride": shape.stride, "padding": shape.padding}
    if shape.transposed:
        settings["output_padding"] = shape.output_padding

    def function(*tensors: Tensor, impl: str) -> Tensor:
        return convolve(*tensors, **settings, activation="leaky_relu", impl=impl)

    def usual_function(*tensors: Tensor) -> Tensor:
        return usual(*tensors, **settings)

    return Case(
        benchmark=benchmark,
        name=f"{shape.name}, {direction}",
        device=options.device,
        dtype=dtype,
        make_inputs=lambda seed: shape.make_inputs(seed, dtype=DTYPES[dtype], device=options.device),
        exact=run_of(usual_function, direction),
        providers=op_providers(benchmark, function, usual_function, direction, is_quick=options.is_quick),
        num_bytes=shape.num_bytes(direction, DTYPES[dtype]),
        num_flops=shape.num_flops(direction),
        product=product_of_convolutions(dtype, options.device),
        num_items=shape.batch,
        item="images",
    )
