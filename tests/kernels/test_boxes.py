"""The transposed convolution by copied tiles, in the interpreter or on a GPU, against the reference in float64."""

import pytest
import torch
from torch import Tensor

from fastgan.kernels.configs import CONV_TILES, Tile
from fastgan.kernels.spec import Activation, Geometry
from fastgan.ops.convolution import Operands, Settings, convolution_op, output_shape
from tests.kernels.tools import DEVICE, close_to_reference, prefilled, randn

pytestmark = pytest.mark.gpu

if DEVICE == "cuda" and torch.cuda.get_device_capability() < (9, 0):
    pytest.skip("this GPU has no copy engine", allow_module_level=True)

# ((N, C, H, W), output channels, kernel, stride, padding, output padding): channels in steps of 16 bytes.
Row = tuple[tuple[int, int, int, int], int, int, int, int, int]
ROWS: list[Row] = [
    ((1, 8, 1, 1), 8, 4, 1, 0, 0),
    ((3, 40, 5, 4), 24, 4, 2, 1, 0),
    ((1, 8, 33, 31), 8, 3, 2, 1, 1),
    ((2, 16, 3, 7), 8, 3, 1, 1, 0),
    ((2, 8, 4, 5), 16, 6, 2, 2, 0),
    ((1, 8, 3, 3), 8, 1, 2, 0, 1),
]
ACTIVATION, GATE = Activation("leaky_relu", 1.3, 1.5), Activation("relu", 1.2, 1.0)


def make(row: Row, dtype: torch.dtype = torch.float32) -> tuple[Operands, Geometry]:
    shape, out, kernel, stride, padding, output_padding = row
    geometry = Geometry(stride, (padding, padding), (output_padding, output_padding))
    x, gate = (randn(*shape, seed=seed, dtype=dtype) for seed in (0, 2))
    weight = randn(shape[1], out, kernel, kernel, seed=1, dtype=dtype) / kernel
    noise = randn(shape[0], 1, *output_shape("conv_transpose2d", x, weight, geometry)[2:], seed=5)
    return Operands(x, weight, gate, randn(shape[0], out, seed=3), randn(out, seed=4), noise), geometry


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_odd_shapes(row: Row, dtype: torch.dtype) -> None:
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    operands, geometry = make(row, dtype)

    def call(backend: str, operands: tuple[Tensor | None, ...]) -> Tensor:
        if backend == "reference":
            return convolution_op(
                "conv_transpose2d", Operands(*operands), Settings(geometry, backend, ACTIVATION, GATE)
            )
        return conv_transpose2d(*operands, geometry, ACTIVATION, GATE, use_tma=True)

    close_to_reference(call, operands)


@pytest.mark.parametrize("tile", CONV_TILES, ids=str)
def test_every_tile_writes_every_number(tile: Tile) -> None:
    from fastgan.kernels.conv_transpose2d import conv_transpose2d

    operands, geometry = make(((3, 40, 5, 9), tile.n + 8, 3, 2, 1, 1))
    settings = Settings(geometry, "reference", ACTIVATION, GATE)
    expected = convolution_op("conv_transpose2d", operands, settings)
    got = conv_transpose2d(*operands, geometry, ACTIVATION, GATE, tile=tile, out=prefilled(expected), use_tma=True)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "weight", "groups", "fits"),
    [
        ((1, 8, 4, 4), (8, 8, 4, 4), 1, True),
        ((1, 8, 4, 4), (8, 3, 4, 4), 1, False),
        ((1, 3, 4, 4), (3, 8, 4, 4), 1, False),
        ((1, 16, 4, 4), (16, 8, 4, 4), 2, False),
    ],
    ids=str,
)
def test_operands_that_do_not_fit_are_read_by_pointers(x, weight, groups: int, fits: bool) -> None:  # type: ignore[no-untyped-def]
    from fastgan.kernels.conv_transpose2d_tma import fits_tma

    tensors = (randn(*size, seed=0, dtype=torch.bfloat16) for size in (x, weight))
    assert fits_tma(*tensors, Geometry(groups=groups)) is fits
