"""bias_act against values worked out by hand, and its derivatives."""

import math

import pytest
import torch
from torch import Tensor

from fastgan.ops import ACTIVATIONS, bias_act

HAND_VALUES = {
    "linear": (-2.0, 3.0),
    "relu": (0.0, 3.0),
    "leaky_relu": (-0.4, 3.0),
    "tanh": (math.tanh(-2.0), math.tanh(3.0)),
    "silu": (-2.0 / (1 + math.exp(2.0)), 3.0 / (1 + math.exp(-3.0))),
}


def test_hand_values_cover_every_activation() -> None:
    assert set(HAND_VALUES) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_of_x_plus_bias(activation: str) -> None:
    x = torch.tensor([-3.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1)
    got = bias_act(x, torch.tensor([1.0, 2.0], dtype=torch.float64), activation=activation)
    assert got.flatten().tolist() == pytest.approx(HAND_VALUES[activation], abs=1e-12)


def test_order_is_noise_bias_activation_gain_clamp() -> None:
    x = torch.tensor([-3.0, 0.5, 2.0]).view(1, 1, 1, 3)
    noise = torch.tensor([0.5, 0.0, 0.0]).view(1, 1, 1, 3)
    got = bias_act(x, torch.tensor([0.5]), noise=noise, activation="relu", gain=2.0, clamp=3.0)
    # max(0, x + noise + 0.5) = 0, 1, 2.5; doubled 0, 2, 5; clamped at 3.
    assert got.flatten().tolist() == [0.0, 2.0, 3.0]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_and_second_derivatives(activation: str) -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    bias = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()

    def call(x: Tensor, bias: Tensor) -> Tensor:
        return bias_act(x, bias, activation=activation, gain=1.4, clamp=1.0)

    assert torch.autograd.gradcheck(call, (x, bias))
    assert torch.autograd.gradgradcheck(call, (x, bias))


def test_memory_format_and_dtype_are_kept() -> None:
    x = torch.randn(2, 3, 4, 4).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    y = bias_act(x, torch.zeros(3), activation="silu", gain=2.0)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_torch_compile_leaves_the_gain_open() -> None:
    def call(x: Tensor, gain: float) -> Tensor:
        return bias_act(x, activation="relu", gain=gain)

    compiled, x = torch.compile(call, fullgraph=True, backend="eager"), torch.randn(1, 2, 3, 3)
    for gain in (1.0, 2.0, 3.0):
        torch.testing.assert_close(compiled(x, gain), call(x, gain))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 4)}, ValueError, "x has shape [3, 4]; it must be [N, C, H, W]"),
        ({"x": torch.zeros(1, 3, 2, 2).int()}, TypeError, "x has dtype torch.int32; it must be one of"),
        ({"bias": torch.zeros(2)}, ValueError, "bias has shape [2]; it must be [3]"),
        ({"bias": torch.zeros(3).bool()}, TypeError, "bias has dtype torch.bool; it must be floating point"),
        ({"noise": torch.zeros(2, 1, 2, 2)}, ValueError, "noise has shape [2, 1, 2, 2]; it must broadcast to"),
        ({"noise": torch.zeros(1, device="meta")}, ValueError, "noise is on meta and x on cpu"),
        ({"activation": "gelu"}, ValueError, "activation='gelu' must be one of linear, relu"),
        ({"gain": float("inf")}, ValueError, "gain=inf must be finite and not 0"),
        ({"clamp": -2.0}, ValueError, "clamp=-2.0 must be positive, or None for no clamp"),
        ({"impl": "cuda"}, ValueError, "impl='cuda' must be one of auto, reference, triton, cudnn_fused"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_name_themselves(change: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        bias_act(**({"x": torch.zeros(1, 3, 2, 2)} | change))  # type: ignore[arg-type]
    assert str(caught.value).startswith("bias_act: ")
    assert message in str(caught.value)
