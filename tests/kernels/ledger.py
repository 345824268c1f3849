"""The ledger of what every kernel needs in every configuration on every architecture, compiled without a GPU.

`python -m tests.kernels.ledger ARCHITECTURE` prints the resources of one architecture as JSON.
`python -m tests.kernels.ledger --update` writes ledger.json anew; commit it with the change that caused it.
The sizes hold for the version of Triton that constraints.txt pins; no version may spill or miss an instruction.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fastgan.kernels.configs import CONV_TILES, WEIGHT_GRAD_TILES, Tile
from fastgan.kernels.spec import Activation, Geometry

LEDGER = Path(__file__).with_name("ledger.json")
ARCHITECTURES = (80, 90, 100)

# Shapes only: these tensors are never read. 32 images of 256 channels and 32 x 32 pixels, kernel 4, stride 2.
BATCH, CHANNELS, PIXELS, KERNEL = 32, 256, 32, 4

# Every configuration is in the ledger in the first dtype, the one that needs most registers in the others.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

Cases = Iterator[tuple[str, Callable[[], Tensor]]]


def cases(architecture: int) -> Cases:
    """(name, launch): layers as networks run them, forward and as input gradient with the activation's slope inside."""
    for dtype in DTYPES:
        rows = slice(None) if dtype == "bf16" else slice(1)
        for tile in CONV_TILES[rows]:
            yield from _convolutions(tile, dtype, architecture)
        for tile in WEIGHT_GRAD_TILES[rows]:
            yield from _weight_gradients(tile, dtype, architecture)
        yield from _elementwise(dtype)


def _convolutions(tile: Tile, dtype: str, architecture: int) -> Cases:
    from fastgan.kernels.conv2d import conv2d
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    x, weight, bias = _images(PIXELS, dtype), _channels_last(CHANNELS, CHANNELS, KERNEL, KERNEL, dtype=dtype), _bias()
    geometry, leaky = Geometry(2, (1, 1)), Activation("leaky_relu", 1.4)
    plain = (x, weight, None, None, bias, None, geometry, leaky, Activation())
    gated = (x, weight, x, None, None, None, geometry, Activation(), leaky)
    for name, kernel in (("conv2d", conv2d), ("conv_transpose2d", conv_transpose2d)):
        for use_tma in _ways(architecture):
            way = f"{name} tma" if use_tma else name
            yield _named(way, dtype, tile), functools.partial(kernel, *plain, tile=tile, use_tma=use_tma)
            yield _named(f"{way} gated", dtype, tile), functools.partial(kernel, *gated, tile=tile, use_tma=use_tma)


def _weight_gradients(tile: Tile, dtype: str, architecture: int) -> Cases:
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad

    operands = (_images(PIXELS, dtype), _images(PIXELS // 2, dtype), (KERNEL, KERNEL), Geometry(2, (1, 1)))
    for use_tma in _ways(architecture):
        name = _named("conv2d_weight_grad tma" if use_tma else "conv2d_weight_grad", dtype, tile)
        yield name, functools.partial(conv2d_weight_grad, *operands, tile=tile, use_tma=use_tma)


def _elementwise(dtype: str) -> Cases:
    from fastgan.kernels.bias_act import bias_act, bias_act_grad

    x, leaky = _images(PIXELS, dtype), Activation("leaky_relu", 1.4)
    yield _named("bias_act", dtype), functools.partial(bias_act, x, None, _bias(), None, leaky)
    yield _named("bias_act_grad", dtype), functools.partial(bias_act_grad, x, x, leaky)


def _ways(architecture: int) -> tuple[bool, ...]:
    """Whether tiles are copied by the engine that GPUs have from 9.0 on."""
    return (False, True) if architecture >= 90 else (False,)


def _named(kernel: str, dtype: str, tile: Tile | None = None) -> str:
    size = "" if tile is None else f" {tile.m}x{tile.n}x{tile.k}, {tile.num_warps} warps, {tile.num_stages} stages"
    return f"{kernel} {dtype}{size}"


def _channels_last(*size: int, dtype: str) -> Tensor:
    return torch.empty(size, dtype=DTYPES[dtype], memory_format=torch.channels_last)


def _images(pixels: int, dtype: str) -> Tensor:
    return _channels_last(BATCH, CHANNELS, pixels, pixels, dtype=dtype)


def _bias() -> Tensor:
    return torch.empty(CHANNELS)


def measure(architecture: int) -> dict[str, object]:
    """ "case / kernel" -> resources, for one architecture. Triton's interpreter must be off."""
    from tests.kernels.resources import resources_of

    found = {case: resources_of(launch, architecture) for case, launch in cases(architecture)}
    return {f"{case} / {kernel}": one for case, kernels in found.items() for kernel, one in kernels.items()}


def main() -> None:
    """See the module's docstring."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    if sys.argv[1:] == ["--update"]:
        import triton

        ledger = {"triton": triton.__version__} | {f"sm_{arch}": measure(arch) for arch in ARCHITECTURES}
        LEDGER.write_text(json.dumps(ledger, indent=1) + "\n", encoding="utf-8")
    else:
        sys.stdout.write(json.dumps(measure(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
