"""The convolution kernels in Triton's interpreter, or on a GPU, against the reference in float64."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fastgan.kernels.configs import CONV_TILES, Tile
from fastgan.kernels.spec import ACTIVATIONS, Activation, Geometry
from fastgan.ops.convolution import Linear, Operands, Settings, convolution_op, output_shape
from tests.kernels.tools import DEVICE, close_to_reference, kernels_of, prefilled, randn

pytestmark = pytest.mark.gpu

LINEARS: tuple[Linear, ...] = ("conv2d", "conv_transpose2d")

# ((N, C, H, W), output channels, kernel, stride, padding, output padding, groups)
Row = tuple[tuple[int, int, int, int], int, int, int, int, int, int]
ROWS: list[Row] = [
    ((1, 1, 1, 1), 1, 1, 1, 0, 0, 1),
    ((2, 3, 5, 4), 17, 4, 2, 1, 0, 1),
    ((1, 17, 3, 7), 3, 3, 1, 1, 0, 1),
    ((3, 63, 6, 5), 5, 3, 2, 1, 1, 1),
    ((1, 6, 7, 9), 9, 6, 2, 2, 0, 3),
    ((2, 4, 6, 6), 8, 1, 2, 0, 1, 4),
    ((0, 3, 8, 8), 2, 4, 2, 1, 0, 1),
]


def make(linear: Linear, row: Row, dtype: torch.dtype = torch.float32) -> tuple[Operands, Geometry]:
    """Operands with everything on: gate, scale, bias and noise."""
    shape, out, kernel, stride, padding, output_padding, groups = row
    if linear == "conv2d":
        weight_shape, extra = (out, shape[1] // groups, kernel, kernel), 0
    else:
        weight_shape, extra = (shape[1], out // groups, kernel, kernel), output_padding
    geometry = Geometry(stride, (padding, padding), (extra, extra), groups)
    x, weight = randn(*shape, seed=0, dtype=dtype), randn(*weight_shape, seed=1, dtype=dtype) / kernel
    result = output_shape(linear, x, weight, geometry)
    gate = randn(*shape, seed=2, dtype=dtype)
    noise = randn(shape[0], 1, *result[2:], seed=5)
    return Operands(x, weight, gate, randn(shape[0], out, seed=3), randn(out, seed=4), noise), geometry


def settings(geometry: Geometry, backend: str, activation: str = "leaky_relu", gate: str = "relu") -> Settings:
    return Settings(geometry, backend, Activation(activation, 1.3, 1.5), Activation(gate, 1.2, 1.0))


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_odd_shapes(linear: Linear, row: Row, dtype: torch.dtype) -> None:
    operands, geometry = make(linear, row, dtype)
    close_to_reference(lambda backend, o: convolution_op(linear, Operands(*o), settings(geometry, backend)), operands)


@pytest.mark.parametrize("linear", LINEARS)
def test_more_pixels_than_one_block(linear: Linear) -> None:
    operands, geometry = make(linear, ((1, 3, 33, 31), 3, 4, 2, 1, 0, 1))
    close_to_reference(lambda backend, o: convolution_op(linear, Operands(*o), settings(geometry, backend)), operands)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_behind_and_before(linear: Linear, activation: str) -> None:
    operands, geometry = make(linear, ROWS[1])
    both = (settings(geometry, backend, activation, activation) for backend in ("triton", "reference"))
    got, expected = (convolution_op(linear, operands, one) for one in both)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4))[::3], ids=str)
def test_every_optional_operand_may_be_missing(linear: Linear, present: tuple[bool, ...]) -> None:
    operands, geometry = make(linear, ROWS[1])
    optional = (tensor if is_there else None for tensor, is_there in zip(operands[2:], present, strict=True))
    close_to_reference(
        lambda backend, o: convolution_op(linear, Operands(*o), settings(geometry, backend)),
        (*operands[:2], *optional),
    )


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("tile", CONV_TILES, ids=str)
def test_every_tile_writes_every_number(linear: Linear, tile: Tile) -> None:
    """Twice into memory full of NaN: everything is written, and both runs give the same bits."""
    operands, geometry = make(linear, ((2, 40, 9, 9), tile.n + 3, 3, 2, 1, 0, 1))
    kernel = kernels_of(linear)
    expected = convolution_op(linear, operands, settings(geometry, "reference"))
    results = []
    for _ in range(2):
        out = prefilled(expected)
        results.append(kernel(*operands, geometry, *settings(geometry, "")[2:], tile=tile, out=out))
    torch.testing.assert_close(results[0], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(results[0], results[1])


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The numbers of `x` in other places in memory."""
    padded = torch.full((x.shape[0], x.shape[1] + 2, x.shape[2] + 1, x.shape[3] * 2), torch.nan, device=x.device)
    spread = padded[:, 1:-1, 1:, ::2]
    channels_last = padded.contiguous(memory_format=torch.channels_last)[:, 1:-1, 1:, ::2]
    return {
        "contiguous": x.contiguous(),
        "spread": spread.copy_(x),
        "spread channels_last": channels_last.copy_(x),
        "one image for all": x[:1].expand_as(x),
    }


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("layout", ["contiguous", "spread", "spread channels_last", "one image for all"])
def test_any_layout_is_read(linear: Linear, layout: str) -> None:
    operands, geometry = make(linear, ROWS[1])
    x = layouts(operands.x)[layout]
    assert operands.gate is not None
    operands = operands._replace(x=x, gate=operands.gate.contiguous())
    got = convolution_op(linear, operands, settings(geometry, "triton"))
    assert got.is_contiguous(memory_format=torch.channels_last)
    expected = convolution_op(linear, operands, settings(geometry, "reference"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linear", LINEARS)
def test_offsets_beyond_int32(linear: Linear) -> None:
    """The second image lies more than 2^31 numbers behind the first; only the pages that are touched take memory."""
    operands, geometry = make(linear, ((2, 3, 4, 4), 2, 4, 2, 1, 0, 1), torch.float16)
    operands = operands.without_epilogue._replace(gate=None)
    far = 2**31 + 64
    memory = torch.empty(far + 64, dtype=torch.float16, device=DEVICE)
    x = memory.as_strided((2, 3, 4, 4), (far, 1, 12, 3)).copy_(operands.x)
    call = settings(geometry, "triton", "linear")
    expected = convolution_op(linear, operands, call)
    torch.testing.assert_close(convolution_op(linear, operands._replace(x=x), call), expected, rtol=0, atol=0)


def gradients(linear: Linear, geometry: Geometry, backend: str, operands: Sequence[Tensor | None]) -> list[Tensor]:
    """y, the gradients of sum(y^2) by all operands, and the gradients of their squares, as a penalty takes them."""
    leaves = [None if o is None else o.detach().requires_grad_() for o in operands]
    y = convolution_op(linear, Operands(*leaves), settings(geometry, backend, "tanh"))
    wanted = [leaf for leaf in leaves if leaf is not None]
    first = torch.autograd.grad(y.square().sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum(g.float().square().sum() for g in first), wanted)
    return [y, *first, *second]


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize(
    ("backend", "dtype", "row"),
    [
        ("triton", torch.float32, ((2, 3, 5, 4), 4, 4, 2, 1, 0, 1)),
        ("cudnn_fused", torch.float32, ((2, 3, 5, 4), 4, 4, 2, 1, 0, 1)),
        ("triton", torch.float16, ((1, 4, 4, 3), 2, 1, 1, 0, 0, 2)),
        ("triton", torch.bfloat16, ((1, 2, 4, 3), 3, 3, 2, 1, 1, 1)),
    ],
    ids=str,
)
def test_first_and_second_derivatives(linear: Linear, backend: str, dtype: torch.dtype, row: Row) -> None:
    """The kernels' derivatives against float64: at most twice the reference's error in the same dtype, and rounding."""
    operands, geometry = make(linear, row, dtype)
    operands = operands._replace(gate=None)
    exact = gradients(linear, geometry, "reference", [None if o is None else o.double() for o in operands])
    plain = gradients(linear, geometry, "reference", operands)
    for got, theirs, truth in zip(gradients(linear, geometry, backend, operands), plain, exact, strict=True):
        rounding = max(4 * torch.finfo(dtype).eps, 3e-5) * truth.abs().max().item()
        allowed = 2 * (theirs.double() - truth).abs().max().item() + rounding
        torch.testing.assert_close(got.double(), truth, rtol=0, atol=allowed)
