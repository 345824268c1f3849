"""The public convolutions under every implementation: what users call, with all that an epilogue can hold."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from fastgan.ops import conv2d, conv2d_weight_grad, conv_transpose2d
from tests.kernels.tools import randn

pytestmark = pytest.mark.gpu

IMPLEMENTATIONS = ["triton", "cudnn_fused"]
N, C, O, PIXELS, KERNEL = 2, 4, 6, (6, 5), 3  # noqa: E741
PADDING, OUTPUT_PADDING = (2, 1), (1, 0)


@pytest.fixture(autouse=True)
def _new_memory_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `torch.empty` gives is full of NaN, so that a number which is never written shows."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *args, make=make, **kwargs: make(*args, **kwargs).fill_(torch.nan))


def test_new_memory_is_nan() -> None:
    assert torch.empty(2).isnan().all()
    assert torch.empty_like(torch.zeros(2, dtype=torch.bfloat16)).isnan().all()


def call(op: str, tensors: list[Tensor], impl: str, *, groups: int, activation: str, clamp: float | None) -> Tensor:
    x, weight, bias, noise, *scale = tensors
    epilogue = {"noise": noise, "activation": activation, "gain": 1.3, "clamp": clamp, "impl": impl}
    epilogue["scale"] = scale[0] if scale else None
    if op == "conv2d":
        return conv2d(x, weight, bias, 2, PADDING, groups=groups, **epilogue)  # type: ignore[arg-type]
    return conv_transpose2d(x, weight, bias, 2, PADDING, OUTPUT_PADDING, groups, **epilogue)  # type: ignore[arg-type]


def make(op: str, groups: int, dtype: torch.dtype, scale_shape: tuple[int, ...] | None) -> list[Tensor]:
    """x, weight, bias, noise and perhaps scale; those of the epilogue stay in float32, as parameters do."""
    channels = (O, C // groups) if op == "conv2d" else (C, O // groups)
    out = (4, 3) if op == "conv2d" else (10, 9)
    tensors = [randn(N, C, *PIXELS, seed=0, dtype=dtype), randn(*channels, KERNEL, KERNEL, seed=1, dtype=dtype)]
    tensors += [randn(O, seed=2), randn(N, 1, *out, seed=3)]
    if scale_shape is not None:
        tensors.append(randn(*scale_shape, seed=4).abs() + 0.5)
    return tensors


def values_and_gradients(op: str, tensors: list[Tensor], impl: str, **settings: object) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = call(op, leaves, impl, **settings)  # type: ignore[arg-type]
    cotangent = randn(*y.shape, seed=5).to(y.dtype)
    return [y, *torch.autograd.grad(y, leaves, cotangent)]


@pytest.mark.parametrize("op", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("dtype", "activation", "scale_shape", "clamp", "groups"),
    [
        (torch.float32, "linear", None, 1.5, 1),
        (torch.float16, "relu", (), None, 1),
        (torch.bfloat16, "leaky_relu", (O,), None, 2),
        (torch.float32, "leaky_relu", (N, O), 1.5, 2),
        (torch.float32, "tanh", (O,), 1.1, 1),
        (torch.bfloat16, "silu", (N, O), None, 1),
    ],
    ids=str,
)
def test_epilogue_and_gradients(  # noqa: PLR0917 - a table's row
    op: str,
    impl: str,
    dtype: torch.dtype,
    activation: str,
    scale_shape: tuple[int, ...] | None,
    clamp: float,
    groups: int,
) -> None:
    """Error against float64 at most twice that of the reference in the same dtype, plus a few roundings."""
    tensors = make(op, groups, dtype, scale_shape)
    settings = {"groups": groups, "activation": activation, "clamp": clamp}
    exact = values_and_gradients(op, [tensor.double() for tensor in tensors], "reference", **settings)
    plain = values_and_gradients(op, tensors, "reference", **settings)
    got = values_and_gradients(op, tensors, impl, **settings)
    for mine, theirs, truth in zip(got, plain, exact, strict=True):
        assert mine.dtype == theirs.dtype
        allowed = 2 * (theirs.double() - truth).abs().max() + 4 * torch.finfo(dtype).eps * truth.abs().max()
        assert (mine.double() - truth).abs().max() <= allowed


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_weight_gradient_with_unequal_padding(impl: str) -> None:
    x, grad = randn(N, C, *PIXELS, seed=0), randn(N, O, 4, 3, seed=1)
    got, expected = (
        conv2d_weight_grad(x, (O, C, KERNEL, KERNEL), grad, 2, PADDING, impl=i) for i in (impl, "reference")
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def registered_calls() -> Iterator[tuple[str, tuple[object, ...]]]:
    """(op, arguments) of the custom ops on the kernels."""
    x, weight, saved = (randn(*size, seed=0).requires_grad_() for size in ((2, 4, 4, 4), (4, 4, 3, 3), (2, 4, 4, 4)))
    scale, bias = randn(2, 4, seed=1).requires_grad_(), randn(4, seed=2).requires_grad_()
    tail = (2, [1, 1], [0, 0], 1, "silu", 1.2, 0.9, "tanh", 1.0, None, "triton")
    for op in ("conv2d", "conv_transpose2d"):
        yield op, (x, weight, saved, scale, bias, None, *tail)
    yield "conv2d_weight_grad", (x, randn(2, 4, 2, 2, seed=3), [4, 4], 2, [1, 1], 1, "triton")
    yield "bias_act", (x, scale, bias, None, "silu", 1.2, 0.9, "triton")
    yield "bias_act_grad", (x, saved, "tanh", 1.2, 0.9, "triton")


@pytest.mark.parametrize(
    ("op", "arguments"), list(registered_calls()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_opcheck(op: str, arguments: tuple[object, ...]) -> None:
    """Schema, registration, and that shapes, strides and dtypes are those that fake tensors promise."""
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.fastgan, op).default, arguments, test_utils=utilities)


@pytest.mark.parametrize("impl", ["reference", "cudnn_fused", "triton"])
@pytest.mark.parametrize("op", [conv2d, conv_transpose2d])
def test_autocast_means_the_same_to_all_implementations(op: Callable[..., Tensor], impl: str) -> None:
    x, weight, bias = (randn(*size, seed=seed) for seed, size in enumerate([(2, 4, 5, 4), (4, 4, 3, 3), (4,)]))
    weight.requires_grad_()
    expected = op(x.bfloat16(), weight.bfloat16(), bias, activation="relu", impl=impl)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            y = op(given, weight, bias, activation="relu", impl=impl)
            assert y.dtype == torch.bfloat16
            assert torch.equal(y, expected)
        assert op(x.double(), weight.double(), impl="reference").dtype == torch.float64
    y.float().sum().backward()
    assert weight.grad.dtype == torch.float32
