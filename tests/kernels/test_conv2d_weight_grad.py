"""The weight gradient's kernels in the interpreter, or on a GPU, against the reference in float64."""

import pytest
import torch

from fastgan.kernels.configs import WEIGHT_GRAD_TILES, Tile
from fastgan.kernels.spec import Geometry
from fastgan.ops.conv2d_weight_grad import conv2d_weight_grad_op
from tests.kernels.tools import DEVICE, LAYOUTS, close_to_reference, far_apart, layouts, randn

pytestmark = pytest.mark.gpu

# ((N, C, H, W), output channels, kernel, stride, padding, groups)
Row = tuple[tuple[int, int, int, int], int, int, int, int, int]
ROWS: list[Row] = [
    ((1, 1, 1, 1), 1, 1, 1, 0, 1),
    ((2, 3, 5, 4), 17, 4, 2, 1, 1),
    ((1, 17, 3, 7), 3, 3, 1, 1, 1),
    ((3, 63, 6, 5), 5, 3, 2, 1, 1),
    ((1, 6, 7, 9), 9, 6, 2, 2, 3),
    ((0, 3, 8, 8), 2, 4, 2, 1, 1),
]


def make(row: Row, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, Geometry]:
    shape, out, kernel, stride, padding, groups = row
    geometry = Geometry(stride, (padding, padding), groups=groups)
    size = geometry.conv_size((shape[2], shape[3]), (kernel, kernel))
    return randn(*shape, seed=0, dtype=dtype), randn(shape[0], out, *size, seed=1, dtype=dtype), geometry


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_odd_shapes(row: Row, dtype: torch.dtype) -> None:
    x, grad, geometry = make(row, dtype)
    kernel = (row[2], row[2])
    close_to_reference(lambda backend, o: conv2d_weight_grad_op(o[0], o[1], kernel, geometry, backend), (x, grad))


@pytest.mark.parametrize("tile", WEIGHT_GRAD_TILES, ids=str)
@pytest.mark.parametrize("splits", [1, 3])
def test_every_tile_and_split_writes_every_number(tile: Tile, splits: int) -> None:
    """Twice, with the parts in memory full of NaN: all are written, and both runs give the same bits."""
    from fastgan.kernels.conv2d_weight_grad import conv2d_weight_grad

    x, grad, geometry = make(((2, 20, 13, 11), tile.n + 3, 1, 2, 1, 1))
    expected = conv2d_weight_grad_op(x, grad, (1, 1), geometry, "reference")
    results = []
    for _ in range(2):
        parts = torch.full((splits, grad.shape[1], 1, 1, x.shape[1]), torch.nan, device=DEVICE)
        results.append(conv2d_weight_grad(x, grad, (1, 1), geometry, tile=tile, splits=splits, out=parts))
    torch.testing.assert_close(results[0], expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read(layout: str) -> None:
    x, grad, geometry = make(ROWS[1])
    lain = layouts(x)[layout], layouts(grad)[layout]
    got, expected = (conv2d_weight_grad_op(*lain, (4, 4), geometry, backend) for backend in ("triton", "reference"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def test_offsets_beyond_int32() -> None:
    x, grad, geometry = make(((3, 3, 4, 4), 2, 4, 2, 1, 1), torch.float16)
    expected = conv2d_weight_grad_op(x, grad, (4, 4), geometry, "triton")
    for lain in ((far_apart(x), grad), (x, far_apart(grad))):
        assert torch.equal(conv2d_weight_grad_op(*lain, (4, 4), geometry, "triton"), expected)


def test_splitting_an_empty_batch_gives_zeros() -> None:
    x, grad, geometry = make(ROWS[-1])
    assert conv2d_weight_grad_op(x, grad, (4, 4), geometry, "triton").abs().max() == 0
