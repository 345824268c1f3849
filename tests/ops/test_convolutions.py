"""conv2d and conv_transpose2d: the contract, the epilogue, both derivatives, and what is refused."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.ops import ACTIVATIONS, conv2d, conv2d_weight_grad, conv_transpose2d

OPS = {"conv2d": (conv2d, F.conv2d), "conv_transpose2d": (conv_transpose2d, F.conv_transpose2d)}

# (N, C, H, W), output channels, kernel, stride, padding, groups: the sizes at which index arithmetic goes wrong.
CASES = [
    ((2, 3, 5, 4), 6, 4, 2, 1, 1),
    ((1, 1, 1, 1), 1, 1, 1, 0, 1),
    ((2, 17, 3, 7), 5, 3, 1, 1, 1),
    ((3, 4, 6, 6), 6, 3, 2, 0, 2),
    ((2, 4, 7, 6), 4, 6, 2, 2, 4),
    ((0, 3, 8, 8), 2, 4, 2, 1, 1),
]


def make(  # noqa: PLR0917 - a table's row
    op: str, shape: tuple[int, ...], out: int, kernel: int, groups: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight_shape = (out, shape[1] // groups) if op == "conv2d" else (shape[1], out // groups)
    sizes = (shape, (*weight_shape, kernel, kernel), (out,))
    x, weight, bias = (torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes)
    return x, weight, bias


def naive_epilogue(y: Tensor, bias: Tensor, *, scale: Tensor, noise: Tensor, gain: float, clamp: float) -> Tensor:
    """leaky ReLU of scale * y + noise + bias, times gain, clamped: spelled out on the output."""
    scale = scale[:, :, None, None] if scale.dim() == 2 else scale.expand(y.shape[1])[None, :, None, None]
    z = y * scale + noise + bias[None, :, None, None]
    z = torch.where(z > 0, z, 0.2 * z) * gain
    return torch.minimum(torch.maximum(z, torch.tensor(-clamp)), torch.tensor(clamp))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_plain_call_is_torchs(
    op: str, case: tuple[tuple[int, ...], int, int, int, int, int], channels_last: bool
) -> None:
    shape, out, kernel, stride, padding, groups = case
    ours, torchs = OPS[op]
    x, weight, bias = make(op, shape, out, kernel, groups)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    got = ours(x, weight, bias, stride, padding, groups=groups)
    torch.testing.assert_close(got, torchs(x, weight, bias, stride, padding, groups=groups))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("scale_shape", [(), (1,), (6,), (2, 6)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_epilogue_order(op: str, scale_shape: tuple[int, ...], groups: int) -> None:
    ours, torchs = OPS[op]
    x, weight, bias = make(op, (2, 4, 5, 5), 6, 4, groups)
    scale = torch.rand(scale_shape, dtype=torch.float64) + 0.5
    plain = torchs(x, weight, None, 2, 1, groups=groups)
    noise = torch.randn(2, 1, *plain.shape[2:], dtype=torch.float64)
    got = ours(
        x, weight, bias, 2, 1, groups=groups, scale=scale, noise=noise, activation="leaky_relu", gain=1.5, clamp=2.0
    )
    expected = naive_epilogue(plain, bias, scale=scale, noise=noise, gain=1.5, clamp=2.0)
    assert expected.abs().max() == 2.0  # the clamp took part
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("activation", "scale_shape"), list(itertools.product(["tanh", "leaky_relu"], [(4,), (2, 4)])))
def test_first_and_second_derivatives(op: str, activation: str, scale_shape: tuple[int, ...]) -> None:
    ours, _ = OPS[op]
    x, weight, bias = make(op, (2, 2, 3, 3), 4, 3, 2)
    scale = torch.rand(scale_shape, dtype=torch.float64) + 0.5
    inputs = tuple(t.requires_grad_() for t in (x, weight, bias, scale))

    def call(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        return ours(x, weight, bias, 2, 1, groups=2, scale=scale, activation=activation, gain=1.3)

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close_and_keeps_its_dtype(op: str, dtype: torch.dtype) -> None:
    ours, torchs = OPS[op]
    x, weight, bias = make(op, (2, 8, 6, 6), 4, 4, 1, dtype)
    scale = torch.tensor(0.37)
    got = ours(x, weight, bias, 2, 1, scale=scale)
    exact = torchs(x.double(), weight.double(), None, 2, 1) * 0.37 + bias.double()[:, None, None]
    assert got.dtype == dtype
    # Two roundings of the weight and one of the result, against the size of the sum of 128 products.
    error = (got.double() - exact).abs().max() / exact.abs().max()
    assert error < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 4)}, ValueError, "x has shape [3, 4]; it must be [N, C, H, W]"),
        ({"x": torch.zeros(1, 4, 4, 4, dtype=torch.int64)}, TypeError, "x has dtype torch.int64; it must be one of"),
        ({"weight": torch.zeros(4, 4, 4)}, ValueError, "weight has shape [4, 4, 4]; it must have 4 dimensions"),
        (
            {"weight": torch.zeros(4, 4, 2, 2).half()},
            TypeError,
            "weight has dtype torch.float16 and x has torch.float32",
        ),
        ({"weight": torch.zeros(5, 5, 2, 2)}, ValueError, "5 input channels; x has 4 in 1 groups"),
        ({"groups": 3}, ValueError, "groups=3 must be positive and divide the 4 channels of x"),
        ({"groups": -1}, ValueError, "groups=-1 must be positive"),
        ({"groups": 2.0}, TypeError, "groups=2.0 must be a whole number"),
        (
            {"weight": torch.zeros(0, 4, 2, 2), "x": torch.zeros(1, 0, 4, 4)},
            ValueError,
            "weight has shape [0, 4, 2, 2]",
        ),
        (
            {"weight": torch.zeros(4, 0, 2, 2), "x": torch.zeros(1, 0, 4, 4)},
            ValueError,
            "weight has shape [4, 0, 2, 2]",
        ),
        ({"bias": torch.zeros(3)}, ValueError, "bias has shape [3]; it must be [4], one number per output channel"),
        ({"scale": torch.ones(2)}, ValueError, "scale has shape [2]; it must be [], [1], [4] or [2, 4]"),
        (
            {"bias": torch.zeros(4, dtype=torch.int64)},
            TypeError,
            "bias has dtype torch.int64; it must be floating point",
        ),
        ({"scale": torch.ones(4, device="meta")}, ValueError, "scale is on meta and x on cpu"),
        ({"noise": torch.zeros(1, device="meta")}, ValueError, "noise is on meta and x on cpu"),
        ({"x": [1.0]}, TypeError, "x is of type list; it must be a tensor"),
        ({"weight": None}, TypeError, "weight is of type NoneType; it must be a tensor"),
        ({"scale": 2.0}, TypeError, "scale is of type float; it must be a tensor"),
        ({"activation": None}, ValueError, "activation=None must be one of linear, relu"),
        ({"activation": "leaky_rellu"}, ValueError, "tanh, silu, did you mean 'leaky_relu'?"),
        ({"gain": 0.0}, ValueError, "gain=0.0 must be finite and not 0"),
        ({"gain": float("nan")}, ValueError, "gain=nan must be finite and not 0"),
        ({"stride": 0}, ValueError, "stride=0 must not be below 1"),
        ({"stride": True}, TypeError, "stride=True must be a whole number, or two for height and width"),
        ({"groups": True}, TypeError, "groups=True must be a whole number"),
        ({"stride": np.float64(2)}, TypeError, "must be a whole number, or two for height and width"),
        ({"stride": 1.5}, TypeError, "stride=1.5 must be a whole number, or two for height and width"),
        ({"dilation": (1, None)}, TypeError, "dilation=(1, None) must be a whole number, or two"),
        ({"stride": (1, 2, 3)}, ValueError, "stride=(1, 2, 3) must be one number, or two for height and width"),
        ({"padding": -1}, ValueError, "padding=-1 must not be below 0"),
        ({"padding": "sme"}, ValueError, "padding='sme' must be a number, or two; conv2d's may be 'same' or 'valid'"),
        ({"dilation": (1, -2)}, ValueError, "dilation=(1, -2) must not be below 1"),
        (
            {"noise": torch.zeros(2, 4, 9, 9)},
            ValueError,
            "noise has shape [2, 4, 9, 9]; it must broadcast to the output",
        ),
        ({"weight": torch.zeros(4, 4, 0, 3)}, ValueError, "there must be at least one each way"),
        ({"weight": torch.zeros(4, 4, 2, 2, device="meta")}, ValueError, "weight is on meta and x on cpu"),
        ({"clamp": -1.0}, ValueError, "clamp=-1.0 must be positive, or None for no clamp"),
        (
            {"impl": "refrence"},
            ValueError,
            "impl='refrence' must be one of auto, reference, triton, cudnn_fused, did you mean 'reference'?",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_name_themselves(
    op: str, change: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments: dict[str, object] = {"x": torch.zeros(2, 4, 4, 4), "weight": torch.zeros(4, 4, 2, 2)} | change
    with pytest.raises(error) as caught:
        OPS[op][0](**arguments)
    assert str(caught.value).startswith(f"{op}: ")
    assert message in str(caught.value)


def test_whole_numbers_of_other_kinds_are_taken() -> None:
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 1, 3, 3)
    two, one = np.int64(2), np.uint8(1)
    for op in (conv2d, conv_transpose2d):
        got = op(x, weight, None, two, (one, 1), groups=two)
        torch.testing.assert_close(got, op(x, weight, None, 2, 1, groups=2))
    grad, size = torch.randn(1, 2, 2, 2), list(weight.shape)
    got = conv2d_weight_grad(x, list(map(np.int64, size)), grad, two, one, groups=two)
    torch.testing.assert_close(got, conv2d_weight_grad(x, size, grad, 2, 1, groups=2))


def test_sizes_that_leave_no_pixel_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x \[1, 1, 2, 2\] and weight \[1, 1, 3, 3\] give \[0, 0\] pixels"):
        conv2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"give \[-1, -1\] pixels"):
        conv_transpose2d(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 3, 3), padding=2)


def test_groups_divide_the_output_channels() -> None:
    with pytest.raises(ValueError, match="conv2d: groups=2 must divide the 3 output channels of weight"):
        conv2d(torch.zeros(1, 4, 4, 4), torch.zeros(3, 2, 2, 2), groups=2)


def test_output_padding_is_below_the_stride() -> None:
    with pytest.raises(ValueError, match="output_padding=2 must be below the larger of stride=2 and dilation=1"):
        conv_transpose2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3), stride=2, output_padding=2)


@pytest.mark.parametrize("op", OPS)
def test_torch_compile_leaves_sizes_and_gain_open(op: str) -> None:
    weight = torch.randn(3, 3, 3, 3)

    def call(x: Tensor, gain: float) -> Tensor:
        return OPS[op][0](x, weight, padding=1, activation="silu", gain=gain)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="eager")
    for size, gain in (((2, 3, 4, 5), 1.5), ((3, 3, 7, 6), 0.5)):
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x, gain), call(x, gain))


def test_every_activation_is_known_to_both_ops() -> None:
    x, weight = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)
    for activation in ACTIVATIONS:
        assert conv2d(x, weight, activation=activation).shape == x.shape
        assert conv_transpose2d(x, weight, activation=activation).shape == x.shape
