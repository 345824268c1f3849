"""Layers: start values, precision, the matrix that spectral norm reads, and duals."""

import re

import pytest
import torch

from fastgan import nn as layers
from fastgan.nn import Conv2d, ConvTranspose2d, Dual, Embedding, PixelNorm
from fastgan.nn.conv import activation_gain
from fastgan.ops import bias_act


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (Conv2d(16, 64, kernel_size=4, stride=2, padding=1, activation="linear"), 16),
        (ConvTranspose2d(16, 64, kernel_size=4, stride=2, padding=1, activation="linear"), 16),
        (ConvTranspose2d(16, 64, kernel_size=4, activation="linear"), 1),
        (Conv2d(16, 64, kernel_size=4, activation="linear"), 4),
    ],
    ids=str,
)
def test_fresh_layers_keep_the_variance(layer: Conv2d, size: int) -> None:
    """Away from the border the output of unit normal input has variance 1."""
    torch.manual_seed(0)
    layer.reset_parameters()
    y = layer(torch.randn(256, 16, size, size))
    inner = y[:, :, 2:-2, 2:-2] if y.shape[2] > 4 else y
    assert inner.var().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("activation", ["linear", "relu", "leaky_relu", "silu"])
def test_gain_restores_the_second_moment(activation: str) -> None:
    x = torch.randn(1, 1, 1000, 1000, generator=torch.Generator().manual_seed(0))
    y = activation_gain(activation) * bias_act(x, activation=activation)
    assert y.square().mean().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels=0 must be at least 1"),
        ({"out_channels": 2.0}, TypeError, "out_channels=2.0 must be a whole number"),
        ({"kernel_size": 0}, ValueError, "kernel_size=0 must be at least 1"),
        ({"kernel_size": (3, 3)}, TypeError, "kernel_size=(3, 3) must be a whole number"),
        ({"stride": 0}, ValueError, "stride=0 must not be below 1"),
        ({"padding": -1}, ValueError, "padding=-1 must not be below 0"),
        (
            {"activation": "tahn"},
            ValueError,
            "activation='tahn' must be one of linear, relu, leaky_relu, tanh, silu, did",
        ),
        (
            {"impl": "tritn"},
            ValueError,
            "impl='tritn' must be one of auto, reference, triton, cudnn_fused, did you mean",
        ),
    ],
    ids=str,
)
def test_bad_arguments_name_themselves(
    kind: type[Conv2d], change: dict[str, object], error: type[Exception], message: str
) -> None:
    good: dict[str, object] = {"in_channels": 2, "out_channels": 2, "kernel_size": 3}
    with pytest.raises(error, match=f"^{kind._op.__name__}: {re.escape(message)}"):
        kind(**(good | change))  # type: ignore[arg-type]


def test_sizes_are_the_ops() -> None:
    for kind in (Conv2d, ConvTranspose2d):
        layer = kind(2, 2, kernel_size=3, stride=(2, 1), padding=(1, 0))
        assert layer.weight.std() > 0
        assert layer(torch.zeros(1, 2, 4, 4)).shape == ((1, 2, 2, 2) if kind is Conv2d else (1, 2, 7, 6))
    assert Conv2d(2, 2, kernel_size=3, padding="same")(torch.zeros(1, 2, 4, 4)).shape == (1, 2, 4, 4)


def test_input_decides_the_precision_and_parameters_stay_float32() -> None:
    layer = Conv2d(3, 4, kernel_size=3, padding=1, activation="leaky_relu")
    y = layer(torch.randn(2, 3, 5, 5).bfloat16())
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_matrix_has_one_row_per_output_channel(kind: type[Conv2d]) -> None:
    layer = kind(3, 5, kernel_size=2)
    matrix = layer.matrix()
    assert list(matrix.shape) == [5, 12]
    row = layer.weight[2] if kind is Conv2d else layer.weight[:, 2]
    assert sorted(matrix[2].tolist()) == sorted(row.flatten().tolist())


def test_matrix_of_a_channels_last_weight_is_a_view() -> None:
    layer = Conv2d(3, 5, kernel_size=4).to(memory_format=torch.channels_last)
    assert layer.matrix().data_ptr() == layer.weight.data_ptr()


def test_pixel_norm_makes_the_mean_square_one() -> None:
    x = 7 * torch.randn(2, 5, 3, 3)
    y = PixelNorm()(x)
    torch.testing.assert_close(y.square().mean(dim=1), torch.ones(2, 3, 3), rtol=1e-5, atol=0)
    torch.testing.assert_close(y * x.square().mean(dim=1, keepdim=True).sqrt(), x)


def test_embedding_picks_and_scales_rows() -> None:
    layer = Embedding(3, 4)
    rows = layer(torch.tensor([2, 0]), torch.tensor(0.5))
    torch.testing.assert_close(rows, 0.5 * layer.weight[[2, 0]])


def test_embedding_refuses_an_empty_table() -> None:
    with pytest.raises(ValueError, match="num_classes=0 and size=4 must be positive"):
        Embedding(0, 4)


DUALS = {
    "Conv2d": Conv2d(3, 4, kernel_size=3, stride=2, padding=1, activation="silu"),
    "ConvTranspose2d": ConvTranspose2d(3, 4, kernel_size=4, stride=2, padding=1, activation="tanh"),
    "PixelNorm": PixelNorm(),
}
# Nothing of an image passes through these: labels, weights, and the base class of whole networks.
WITHOUT_DUAL = {"Embedding", "SpectralNorm", "SpectrallyNormalized"}


def test_every_layer_has_a_dual() -> None:
    """A new layer needs one, and a line in DUALS: discriminators with it could not have penalties by the mode dual."""
    exported = {name: getattr(layers, name) for name in layers.__all__}
    modules = {name for name, kind in exported.items() if isinstance(kind, type) and issubclass(kind, torch.nn.Module)}
    assert modules - WITHOUT_DUAL == DUALS.keys()
    assert not [name for name in WITHOUT_DUAL if hasattr(exported[name], "dual")]


@pytest.mark.parametrize("name", DUALS)
def test_a_dual_carries_value_and_derivative(name: str) -> None:
    layer = DUALS[name].double()
    x, tangent = torch.randn(2, 2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, slope = torch.autograd.functional.jvp(layer, x, tangent)
    torch.testing.assert_close(layer.dual(Dual(x, tangent)), Dual(value, slope), rtol=1e-12, atol=1e-12)
