"""The kernels that fetch boxes of pixels by the copy engine, in the interpreter or on a GPU, against float64."""

import importlib

import pytest
import torch
from torch import Tensor

from fastgan.kernels.configs import CONV_TILES, WEIGHT_GRAD_TILES, Tile
from fastgan.kernels.spec import Activation, Geometry
from fastgan.ops.conv2d_weight_grad import conv2d_weight_grad_op
from fastgan.ops.convolution import Linear, Operands, Settings, convolution_op, output_shape
from tests.kernels.tools import DEVICE, close_to_reference, kernels_of, prefilled, randn

pytestmark = pytest.mark.gpu

if DEVICE == "cuda" and torch.cuda.get_device_capability() < (9, 0):
    pytest.skip("this GPU has no copy engine", allow_module_level=True)

LINEARS: tuple[Linear, ...] = ("conv2d", "conv_transpose2d")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# ((N, C, H, W), output channels, kernel, stride, padding, output padding): channels in steps of 16 bytes.
# The padding is that of rows; columns have one less, and no output padding.
Row = tuple[tuple[int, int, int, int], int, int, int, int, int]
ROWS: list[Row] = [
    ((1, 8, 1, 1), 8, 4, 1, 0, 0),
    ((3, 40, 5, 4), 24, 4, 2, 1, 0),
    ((1, 8, 33, 31), 8, 3, 2, 1, 1),
    ((2, 16, 3, 7), 8, 3, 1, 1, 0),
    ((2, 8, 4, 5), 16, 6, 2, 2, 0),
    ((1, 8, 3, 3), 8, 1, 2, 0, 1),
]
# Stride 2 asks for even sizes and for whole blocks of channels; an image's three channels may come out.
CONV_ROWS: list[Row] = [
    ((1, 8, 4, 4), 3, 4, 1, 0, 0),
    ((3, 64, 6, 4), 24, 4, 2, 1, 0),
    ((1, 32, 34, 18), 5, 3, 2, 1, 0),
    ((2, 40, 3, 7), 17, 3, 1, 2, 0),
    ((2, 32, 8, 6), 16, 6, 2, 2, 0),
    ((1, 32, 4, 2), 8, 1, 2, 0, 0),
]
CASES = [("conv_transpose2d", row) for row in ROWS] + [("conv2d", row) for row in CONV_ROWS]
ACTIVATION, GATE = Activation("leaky_relu", 1.3, 1.5), Activation("relu", 1.2, 1.0)


def make(linear: str, row: Row, dtype: torch.dtype = torch.float32) -> tuple[Operands, Geometry]:
    shape, out, kernel, stride, padding, output_padding = row
    geometry = Geometry(stride, (padding, max(padding - 1, 0)), (output_padding, 0))
    x, gate = (randn(*shape, seed=seed, dtype=dtype) for seed in (0, 2))
    channels = (out, shape[1]) if linear == "conv2d" else (shape[1], out)
    weight = randn(*channels, kernel, kernel, seed=1, dtype=dtype) / kernel
    noise = randn(shape[0], 1, *output_shape(linear, x, weight, geometry)[2:], seed=5)  # type: ignore[arg-type]
    return Operands(x, weight, gate, randn(shape[0], out, seed=3), randn(out, seed=4), noise), geometry


@pytest.mark.parametrize(("linear", "row"), CASES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_odd_shapes(linear: Linear, row: Row, dtype: torch.dtype) -> None:
    operands, geometry = make(linear, row, dtype)

    def call(backend: str, operands: tuple[Tensor | None, ...]) -> Tensor:
        if backend == "reference":
            return convolution_op(linear, Operands(*operands), Settings(geometry, backend, ACTIVATION, GATE))
        return kernels_of(linear)(*operands, geometry, ACTIVATION, GATE, use_tma=True)

    close_to_reference(call, operands)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("tile", CONV_TILES, ids=str)
def test_every_tile_writes_every_number(linear: Linear, tile: Tile) -> None:
    channels, pixels = (64, (6, 10)) if linear == "conv2d" else (40, (5, 9))
    operands, geometry = make(linear, ((3, channels, *pixels), tile.n + 8, 3, 2, 1, int(linear != "conv2d")))
    expected = convolution_op(linear, operands, Settings(geometry, "reference", ACTIVATION, GATE))
    arguments = (*operands, geometry, ACTIVATION, GATE)
    got = kernels_of(linear)(*arguments, tile=tile, out=prefilled(expected), use_tma=True)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_weight_that_lies_between_two_steps_is_copied() -> None:
    """As a piece of a flat buffer of parameters may."""
    for linear in LINEARS:
        operands, geometry = make(linear, ((1, 32, 4, 4), 32, 3, 2, 1, 0))
        buffer = torch.empty(operands.weight.numel() + 1, device=DEVICE)
        weight = buffer[1:].as_strided(operands.weight.shape, operands.weight.stride(), 1).copy_(operands.weight)
        expected = convolution_op(linear, operands, Settings(geometry, "reference", ACTIVATION, GATE))
        arguments = (*operands._replace(weight=weight), geometry, ACTIVATION, GATE)
        torch.testing.assert_close(kernels_of(linear)(*arguments, use_tma=True), expected, rtol=1e-5, atol=1e-5)


# ((N, C, H, W), output channels, kernel, stride, padding): remainders that no pixel of the gradient meets among them.
GRAD_ROWS: list[tuple[tuple[int, int, int, int], int, int, int, int]] = [
    ((1, 8, 1, 1), 8, 1, 1, 0),
    ((3, 24, 6, 4), 40, 4, 2, 1),
    ((2, 8, 3, 7), 16, 3, 1, 1),
    ((1, 16, 34, 18), 8, 3, 2, 1),
    ((2, 40, 8, 10), 8, 6, 2, 2),
]


@pytest.mark.parametrize("row", GRAD_ROWS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weight_gradient(row: tuple[tuple[int, int, int, int], int, int, int, int], dtype: torch.dtype) -> None:
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad

    shape, out, kernel, stride, padding = row
    geometry = Geometry(stride, (padding, max(padding - 1, 0)))
    x = randn(*shape, seed=0, dtype=dtype)
    grad = randn(shape[0], out, *geometry.conv_size(shape[2:], (kernel, kernel)), seed=1, dtype=dtype)

    def call(backend: str, operands: tuple[Tensor, ...]) -> Tensor:
        if backend == "reference":
            return conv2d_weight_grad_op(*operands, (kernel, kernel), geometry, backend)
        return conv2d_weight_grad(*operands, (kernel, kernel), geometry, use_tma=True)

    close_to_reference(call, (x, grad))


@pytest.mark.parametrize("tile", WEIGHT_GRAD_TILES, ids=str)
@pytest.mark.parametrize("splits", [1, 3])
def test_every_tile_and_split_of_the_weight_gradient_writes_every_number(tile: Tile, splits: int) -> None:
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad

    x, grad, geometry = randn(3, 24, 8, 10, seed=0), randn(3, tile.n + 8, 4, 5, seed=1), Geometry(2)
    parts = torch.full((splits, grad.shape[1], 1, 1, x.shape[1]), torch.nan, device=DEVICE)
    got = conv2d_weight_grad(x, grad, (1, 1), geometry, tile=tile, splits=splits, out=parts, use_tma=True)
    expected = conv2d_weight_grad_op(x, grad, (1, 1), geometry, "reference")
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def randn_bf16(*size: int) -> Tensor:
    return randn(*size, seed=0, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("x", "weight", "geometry", "fits"),
    [
        ((1, 64, 4, 4), (64, 8, 4, 4), Geometry(), (True, True)),
        ((1, 64, 4, 4), (64, 3, 4, 4), Geometry(), (True, False)),
        ((1, 3, 4, 4), (3, 8, 4, 4), Geometry(), (False, False)),
        ((1, 16, 4, 4), (16, 8, 4, 4), Geometry(groups=2), (False, False)),
        ((1, 40, 4, 4), (40, 8, 4, 4), Geometry(2), (False, True)),
        ((1, 64, 4, 5), (64, 8, 4, 4), Geometry(2), (False, True)),
    ],
    ids=str,
)
def test_operands_that_do_not_fit_are_read_by_pointers(x, weight, geometry, fits) -> None:  # type: ignore[no-untyped-def]
    from fastgan.kernels import conv2d_tma, conv_transpose2d_tma

    images = randn_bf16(*x)
    as_conv = conv2d_tma.fits_tma(images, geometry, 32)
    assert (as_conv, conv_transpose2d_tma.fits_tma(images, randn_bf16(*weight), geometry)) == fits


def test_a_weight_gradient_that_does_not_fit_is_read_by_pointers() -> None:
    from fastgan.kernels.conv2d_weight_grad_tma import fits_tma

    assert fits_tma(randn_bf16(1, 8, 4, 4), randn_bf16(1, 24, 2, 2), Geometry(2))
    assert not fits_tma(randn_bf16(1, 8, 4, 5), randn_bf16(1, 24, 2, 3), Geometry(2))
    assert not fits_tma(randn_bf16(1, 3, 4, 4), randn_bf16(1, 24, 2, 2), Geometry(2))
    assert not fits_tma(randn_bf16(0, 8, 4, 4), randn_bf16(0, 24, 2, 2), Geometry(2))


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "conv2d_weight_grad"])
@pytest.mark.parametrize("channels", [64, 3])
def test_a_gpu_with_a_copy_engine_copies_what_fits(monkeypatch: pytest.MonkeyPatch, name: str, channels: int) -> None:
    module = importlib.import_module(f"fastgan.kernels.{name}")
    chosen: list[str] = []
    for way in ("launch_tma", "_launch"):
        monkeypatch.setattr(module, way, lambda *_, way=way, **__: chosen.append(way))
    monkeypatch.setattr(f"fastgan.kernels.{name}_tma.has_copy_engine", lambda x: True)
    if name == "conv2d_weight_grad":
        monkeypatch.setattr(module, "_add_parts", lambda parts, *_: parts)  # nobody has written them
        module.conv2d_weight_grad(randn_bf16(1, channels, 4, 4), randn_bf16(1, 64, 2, 2), (4, 4), Geometry(2, (1, 1)))
    else:
        operands, geometry = make(name, ((1, channels, 4, 4), 64, 4, 2, 1, 0), torch.bfloat16)
        kernels_of(name)(*operands, geometry, ACTIVATION, GATE)
    assert chosen == ["launch_tma" if channels == 64 else "_launch"]
