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
GEOMETRY, LEAKY = Geometry(2, (1, 1)), Activation("leaky_relu", 1.4)

# Every configuration is in the ledger in the first dtype, the one that needs most registers in the others.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

Cases = Iterator[tuple[str, Callable[[], object]]]


def cases(architecture: int) -> Cases:
    """(name, launch): every configuration of the convolutions, and all other kernels."""
    for dtype in DTYPES:
        rows = slice(None) if dtype == "bf16" else slice(1)
        for tile in CONV_TILES[rows]:
            yield from _convolutions(tile, dtype, architecture)
        for tile in WEIGHT_GRAD_TILES[rows]:
            yield from _weight_gradients(tile, dtype, architecture)
        yield from _elementwise(dtype)
    yield from _noisy_convolutions(architecture)
    yield from _layers_of_other_widths()
    for dtype in ("bf16", "fp32"):
        yield from _spectral_norms(dtype)
        yield from _gradient_penalties(dtype)


def _convolutions(tile: Tile, dtype: str, architecture: int) -> Cases:
    """Layers as networks run them, forward and as input gradient with the activation's slope inside."""
    from fastgan.kernels.conv2d import conv2d
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    x, weight = _images(PIXELS, dtype), _channels_last(CHANNELS, CHANNELS, KERNEL, KERNEL, dtype=dtype)
    plain = (x, weight, None, None, torch.empty(CHANNELS), None, GEOMETRY, LEAKY, Activation())
    gated = (x, weight, x, None, None, None, GEOMETRY, Activation(), LEAKY)
    for name, kernel in (("conv2d", conv2d), ("conv_transpose2d", conv_transpose2d)):
        for way, use_tma in _ways(architecture):
            for title, operands in ((f"{name}{way}", plain), (f"{name}{way} gated", gated)):
                yield _named(title, dtype, tile), functools.partial(kernel, *operands, tile=tile, use_tma=use_tma)


def _noisy_convolutions(architecture: int) -> Cases:
    """The fullest epilogues, in the tiles that are picked for them."""
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    x, weight = _images(PIXELS, "bf16"), _channels_last(CHANNELS, CHANNELS, KERNEL, KERNEL, dtype="bf16")
    noise, clamped = torch.empty(BATCH, 1, 2 * PIXELS, 2 * PIXELS), LEAKY._replace(clamp=256.0)
    for epilogue, scale in (("noisy", None), ("scaled, noisy", torch.empty(BATCH, CHANNELS))):
        operands = (x, weight, None, scale, torch.empty(CHANNELS), noise, GEOMETRY, clamped, Activation())
        for way, use_tma in _ways(architecture):
            name = _named(f"conv_transpose2d{way} {epilogue}", "bf16")
            yield name, functools.partial(conv_transpose2d, *operands, use_tma=use_tma)


def _layers_of_other_widths() -> Cases:
    """To and from the three channels of an image, and a number of channels that is no multiple of 16."""
    from fastgan.kernels.conv2d import conv2d
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    for name, kernel, (wide, narrow), is_upwards in (
        ("conv2d gated, 3 to 256 channels", conv2d, (CHANNELS, 3), True),
        ("conv_transpose2d gated, 256 to 3 channels", conv_transpose2d, (CHANNELS, 3), False),
        ("conv2d gated, 200 to 200 channels", conv2d, (200, 200), False),
        ("conv_transpose2d gated, 200 to 200 channels", conv_transpose2d, (200, 200), False),
    ):
        x = _channels_last(BATCH, narrow if is_upwards else wide, PIXELS, PIXELS, dtype="bf16")
        weight = _channels_last(wide, narrow, KERNEL, KERNEL, dtype="bf16")
        operands = (x, weight, x, None, None, None, GEOMETRY, Activation(), Activation("tanh"))
        yield _named(name, "bf16"), functools.partial(kernel, *operands, use_tma=False)
    x, grad = (_channels_last(BATCH, 200, pixels, pixels, dtype="bf16") for pixels in (PIXELS, PIXELS // 2))
    name = _named("conv2d_weight_grad, 200 to 200 channels", "bf16")
    yield name, functools.partial(conv2d_weight_grad, x, grad, (KERNEL, KERNEL), GEOMETRY, use_tma=False)


def _weight_gradients(tile: Tile, dtype: str, architecture: int) -> Cases:
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad

    operands = (_images(PIXELS, dtype), _images(PIXELS // 2, dtype), (KERNEL, KERNEL), GEOMETRY)
    for way, use_tma in _ways(architecture):
        name = _named(f"conv2d_weight_grad{way}", dtype, tile)
        yield name, functools.partial(conv2d_weight_grad, *operands, tile=tile, use_tma=use_tma)


def _elementwise(dtype: str) -> Cases:
    from fastgan.kernels.bias_act import bias_act, bias_act_grad

    x = _images(PIXELS, dtype)
    yield _named("bias_act", dtype), functools.partial(bias_act, x, None, torch.empty(CHANNELS), None, LEAKY)
    yield _named("bias_act_grad", dtype), functools.partial(bias_act_grad, x, x, LEAKY)


def _spectral_norms(dtype: str) -> Cases:
    from fastgan.kernels.spectral_norm import bilinear, outer, power_iteration_

    vectors = [torch.empty(CHANNELS)]
    matrices = [torch.empty(CHANNELS, CHANNELS, dtype=DTYPES[dtype])]
    yield _named("power_iteration_", dtype), functools.partial(power_iteration_, matrices, vectors, vectors)
    yield _named("bilinear", dtype), functools.partial(bilinear, matrices, vectors, vectors)
    yield _named("outer", dtype), functools.partial(outer, torch.empty(1), vectors, vectors, dtype=DTYPES[dtype])


def _gradient_penalties(dtype: str) -> Cases:
    from fastgan.kernels.gradient_penalty import gradient_penalty, interpolate, scale_samples

    rows, numbers = torch.empty(BATCH, 3 * PIXELS**2, dtype=DTYPES[dtype]), torch.empty(BATCH)
    yield (
        _named("gradient_penalty", dtype),
        functools.partial(gradient_penalty, rows, center=1.0, one_sided=True),
    )
    yield _named("scale_samples", dtype), functools.partial(scale_samples, rows, numbers, numbers)
    yield _named("interpolate", dtype), functools.partial(interpolate, rows, rows, rows, weights=numbers)


def _ways(architecture: int) -> tuple[tuple[str, bool], ...]:
    """(word for the name, whether tiles are copied by the engine that GPUs have from 9.0 on)."""
    return (("", False), (" tma", True)) if architecture >= 90 else (("", False),)


def _named(kernel: str, dtype: str, tile: Tile | None = None) -> str:
    size = "" if tile is None else f" {tile.m}x{tile.n}x{tile.k}, {tile.num_warps} warps, {tile.num_stages} stages"
    return f"{kernel} {dtype}{size}"


def _channels_last(*size: int, dtype: str) -> Tensor:
    return torch.empty(size, dtype=DTYPES[dtype], memory_format=torch.channels_last)


def _images(pixels: int, dtype: str) -> Tensor:
    return _channels_last(BATCH, CHANNELS, pixels, pixels, dtype=dtype)


def measure(architecture: int) -> dict[str, object]:
    """ "case / kernel" -> resources, for one architecture. Triton's interpreter must be off."""
    from tests.kernels.resources import resources_of

    found = {case: resources_of(launch, architecture) for case, launch in cases(architecture)}
    return {f"{case} / {kernel}": one for case, kernels in found.items() for kernel, one in kernels.items()}


def text_of(ledger: dict[str, object]) -> str:
    """`ledger` as JSON with one line for each kernel, so that a difference of two ledgers can be read."""
    sections = []
    for name, content in ledger.items():
        if isinstance(content, dict):
            rows = [f"  {json.dumps(case)}: {json.dumps(one)}" for case, one in content.items()]
            sections.append(f' "{name}": {{\n' + ",\n".join(rows) + "\n }")
        else:
            sections.append(f' "{name}": {json.dumps(content)}')
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """See the module's docstring."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise SystemExit("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    if sys.argv[1:] == ["--update"]:
        import triton

        ledger = {"triton": triton.__version__} | {f"sm_{arch}": measure(arch) for arch in ARCHITECTURES}
        LEDGER.write_text(text_of(ledger), encoding="utf-8")
    else:
        sys.stdout.write(json.dumps(measure(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
