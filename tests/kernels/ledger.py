"""The ledger of what every kernel needs in every configuration on every architecture, compiled without a GPU.

`python -m tests.kernels.ledger ARCHITECTURE` prints the resources of one architecture as JSON.
`python -m tests.kernels.ledger --update` writes ledger.json anew; commit it with the change that caused it.
The numbers hold for the version of Triton that constraints.txt pins.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

LEDGER = Path(__file__).with_name("ledger.json")
ARCHITECTURES = (80, 90, 100)

# Shapes only: these tensors are never read. 32 images of 256 channels and 32 x 32 pixels, kernel 4, stride 2.
BATCH, CHANNELS, PIXELS, KERNEL = 32, 256, 32, 4


def cases(architecture: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """(name, launch): layers as networks run them, forward and as input gradient with the activation's slope inside."""
    from fastgan.kernels import bias_act, configs
    from fastgan.kernels.conv2d import conv2d
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad
    from fastgan.kernels.conv_transpose2d import conv_transpose2d
    from fastgan.kernels.spec import Activation, Geometry

    x, small = _images(PIXELS), _images(PIXELS // 2)
    weight, bias = _channels_last(CHANNELS, CHANNELS, KERNEL, KERNEL), torch.empty(CHANNELS)
    geometry, leaky = Geometry(2, (1, 1)), Activation("leaky_relu", 1.4)
    for tile in configs.CONV_TILES:
        size = f"{tile.m}x{tile.n}x{tile.k}, {tile.num_warps} warps, {tile.num_stages} stages"
        for name, kernel in (("conv2d", conv2d), ("conv_transpose2d", conv_transpose2d)):
            operands = (x, weight, None, None, bias, None, geometry, leaky, Activation())
            yield f"{name} {size}", functools.partial(kernel, *operands, tile=tile)
            operands = (x, weight, x, None, None, None, geometry, Activation(), leaky)
            yield f"{name} gated {size}", functools.partial(kernel, *operands, tile=tile)
        if architecture >= 90:
            operands = (x, weight, None, None, bias, None, geometry, leaky, Activation())
            yield f"conv_transpose2d tma {size}", functools.partial(kernel, *operands, tile=tile, use_tma=True)
            operands = (x, weight, x, None, None, None, geometry, Activation(), leaky)
            yield f"conv_transpose2d tma gated {size}", functools.partial(kernel, *operands, tile=tile, use_tma=True)
    for tile in configs.WEIGHT_GRAD_TILES:
        size = f"{tile.m}x{tile.n}x{tile.k}, {tile.num_warps} warps, {tile.num_stages} stages"
        launch = functools.partial(conv2d_weight_grad, x, small, (KERNEL, KERNEL), geometry, tile=tile)
        yield f"conv2d_weight_grad {size}", launch
    yield "bias_act", functools.partial(bias_act.bias_act, x, None, bias, None, leaky)
    yield "bias_act_grad", functools.partial(bias_act.bias_act_grad, x, x, leaky)


def _channels_last(*size: int) -> Tensor:
    return torch.empty(size, dtype=torch.bfloat16, memory_format=torch.channels_last)


def _images(pixels: int) -> Tensor:
    return _channels_last(BATCH, CHANNELS, pixels, pixels)


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
