"""The convolution kernels in Triton's interpreter, or on a GPU, against the reference in float64."""

import importlib
import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from fastgan.kernels.configs import CONV_TILES, Tile
from fastgan.kernels.implicit_gemm import locate
from fastgan.kernels.spec import ACTIVATIONS, Activation, Geometry
from fastgan.ops import no_weight_gradients
from fastgan.ops.convolution import Linear, Operands, Settings, convolution_op, output_shape
from tests.kernels.tools import (
    DEVICE,
    LAYOUTS,
    all_close_to_reference,
    close_to_reference,
    derivatives,
    far_apart,
    kernels_of,
    layouts,
    prefilled,
    randn,
)

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


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read(linear: Linear, layout: str) -> None:
    operands, geometry = make(linear, ROWS[1])
    x, weight, gate, scale, bias, noise = operands
    assert gate is not None
    assert scale is not None
    assert bias is not None
    lain = Operands(
        layouts(x)[layout],
        layouts(weight)[layout],
        gate.contiguous(),
        scale.t().contiguous().t(),
        bias.repeat_interleave(2)[::2],
        noise,
    )
    got = convolution_op(linear, lain, settings(geometry, "triton"))
    assert got.is_contiguous(memory_format=torch.channels_last)
    expected = convolution_op(linear, lain, settings(geometry, "reference"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linear", LINEARS)
def test_many_addresses_rule_out_the_widest_tile(monkeypatch: pytest.MonkeyPatch, linear: Linear) -> None:
    chosen: list[Tile] = []
    monkeypatch.setattr(f"fastgan.kernels.{linear}._launch", lambda *_, tile, **__: chosen.append(tile))
    scale, noise = torch.empty(32, 256, device="meta"), torch.empty(64, 64, device="meta")
    rest = (Geometry(), Activation(), Activation())
    for channels, *epilogue in ((256, scale, None), (256, None, noise), (256, scale, noise), (200, None, None)):
        x, weight = (torch.empty(*size, device="meta") for size in ((32, channels, 64, 64), (channels, channels, 1, 1)))
        kernels_of(linear)(x, weight, None, epilogue[0], None, epilogue[1], *rest)
    wide, plain = CONV_TILES[:2]
    assert chosen == [wide, wide, plain, plain]


@pytest.mark.parametrize("linear", LINEARS)
def test_offsets_beyond_int32(linear: Linear) -> None:
    operands, geometry = make(linear, ((3, 3, 4, 4), 2, 4, 2, 1, 0, 1), torch.float16)
    operands = operands.without_epilogue._replace(gate=None)
    call = settings(geometry, "triton", "linear")
    expected = convolution_op(linear, operands, call)
    got = convolution_op(linear, operands._replace(x=far_apart(operands.x)), call)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@triton.jit
def locate_kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    out_ptr, block, num_images, rows, columns, BLOCK_M: tl.constexpr, WIDE: tl.constexpr
):
    """Writes (n, y, x, exists) of the pixels of a block."""
    n, y, x, exists = locate(block, num_images, rows, columns, BLOCK_M, WIDE)
    places = out_ptr + tl.arange(0, BLOCK_M) * 4
    tl.store(places, n)
    tl.store(places + 1, y)
    tl.store(places + 2, x)
    tl.store(places + 3, exists)


def test_pixels_beyond_int32() -> None:
    """The pixels around number 2^31 of a batch that is too large to be there."""
    columns, rows, first = 1000, 999, 2**31 - 8
    out = torch.zeros(16, 4, dtype=torch.int64, device=DEVICE)
    locate_kernel[(1,)](out, first // 16 + 1, 2150, rows, columns, BLOCK_M=16, WIDE=True)
    first = (first // 16 + 1) * 16
    expected = [
        (p // columns // rows, p // columns % rows, p % columns, p // columns // rows < 2150)
        for p in range(first, first + 16)
    ]
    assert out.tolist() == [list(map(int, row)) for row in expected]


class Launched:
    """Stands for a kernel that is not to run, and keeps whether it was asked for numbers beyond int32."""

    def __init__(self) -> None:
        self.wide: list[bool] = []

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *_, **constants: self.wide.append(constants["WIDE"])


CALLS: dict[str, Callable[[Callable[..., Tensor], Tensor], object]] = {
    "bias_act.bias_act": lambda call, x: call(x, None, None, None, Activation()),
    "bias_act.bias_act_grad": lambda call, x: call(x, x, Activation()),
    "conv2d.conv2d": lambda call, x: call(x, x[:1], *[None] * 4, Geometry(), Activation(), Activation()),
    "conv_transpose2d.conv_transpose2d": lambda call, x: call(
        x, x[:1], *[None] * 4, Geometry(2), Activation(), Activation()
    ),
    "conv2d_weight_grad.conv2d_weight_grad": lambda call, x: call(x, x, (1, 1), Geometry()),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_launch_that_overruns_int32_is_wide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module, function = name.split(".")
    launched, kernel = Launched(), "partial_sums" if function == "conv2d_weight_grad" else function
    monkeypatch.setattr(f"fastgan.kernels.{module}.{kernel}_kernel", launched)
    monkeypatch.setattr("fastgan.kernels.conv2d_weight_grad._add_parts", lambda parts, *_: parts)
    call = getattr(importlib.import_module(f"fastgan.kernels.{module}"), function)
    for num_pixels in (2**30, 2**31 - 2):
        CALLS[name](call, torch.empty(num_pixels, 1, 1, 1, device="meta"))
    assert launched.wide == [False, True]


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
    operands, geometry = make(linear, row, dtype)

    def call(backend: str, operands: Sequence[Tensor | None]) -> list[Tensor]:
        spec = settings(geometry, backend, "tanh")
        return derivatives(lambda *o: convolution_op(linear, Operands(*o), spec), operands)

    all_close_to_reference(call, operands._replace(gate=None), backend)


@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize(("dtype", "activation"), [(torch.float16, "leaky_relu"), (torch.bfloat16, "silu")], ids=str)
def test_a_penalty_runs_through_the_gate(linear: Linear, dtype: torch.dtype, activation: str) -> None:
    """The gradient by x alone, which one kernel with a gate computes, and that gradient's own gradients."""
    operands, geometry = make(linear, ((1, 3, 3, 4), 2, 3, 2, 1, 0, 1), dtype)
    y = convolution_op(linear, operands.without_epilogue._replace(gate=None), Settings(geometry, "reference"))

    def call(backend: str, operands: Sequence[Tensor | None]) -> list[Tensor]:
        x, weight, cotangent = (o.detach().requires_grad_() for o in operands if o is not None)
        y = convolution_op(linear, Operands(x, weight), Settings(geometry, backend, Activation(activation, 1.3, 4.0)))
        with no_weight_gradients():
            (gradient,) = torch.autograd.grad(y, x, cotangent, create_graph=True)
        wanted = (weight, cotangent, x) if activation == "silu" else (weight, cotangent)
        return [gradient, *torch.autograd.grad(gradient.float().square().sum(), wanted)]

    all_close_to_reference(call, (operands.x, operands.weight, randn(*y.shape, seed=6, dtype=dtype)), "triton")
