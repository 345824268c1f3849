"""Whole networks on the kernels, and the gradient penalty's count of convolutions."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan.kernels.spec import Activation, Geometry
from fastgan.models import DCGANDiscriminator, DCGANGenerator
from fastgan.nn import Conv2d
from fastgan.objectives import PENALTIES, PenaltyMode, r1_penalty
from fastgan.objectives.modes import judge
from fastgan.ops import no_weight_gradients
from fastgan.ops.convolution import Linear, Operands, Settings, convolution_op
from tests.kernels.tools import DEVICE

pytestmark = pytest.mark.gpu


def generator(impl: str) -> DCGANGenerator:
    torch.manual_seed(0)
    return DCGANGenerator(
        resolution=32,
        image_channels=3,
        latent_dim=5,
        channels=2,
        max_channels=4,
        # With so few channels some pixels are all but zero, and normalising those would magnify rounding errors.
        normalization="none",
        spectral_norm=True,
        num_classes=3,
        label_dim=2,
        impl=impl,
    ).to(DEVICE)


def discriminator(impl: str) -> DCGANDiscriminator:
    torch.manual_seed(0)
    return DCGANDiscriminator(resolution=32, image_channels=3, channels=2, max_channels=4, num_classes=3, impl=impl).to(
        DEVICE
    )


def losses_and_gradients(impl: str) -> list[Tensor]:
    """Images, the loss with R1, and every parameter's gradient, of both networks of the main job."""
    g, d = generator(impl), discriminator(impl)
    latents = torch.randn(1, 5, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    labels = torch.tensor([2], device=DEVICE)
    images = g(latents, labels)
    inputs = images.detach().requires_grad_()
    logits = d(inputs, labels)
    loss = logits.mean() + 10 * r1_penalty(logits, inputs) - d(images, labels).mean()
    loss.backward()
    gradients = [p.grad for network in (g, d) for p in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [images, loss, *(gradient for gradient in gradients if gradient is not None)]


@pytest.mark.parametrize("impl", ["triton", "cudnn_fused"])
def test_the_networks_of_the_main_job_give_the_references_numbers(impl: str) -> None:
    for got, expected in zip(losses_and_gradients(impl), losses_and_gradients("reference"), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-5 * expected.abs().max().item())


class Counted(TorchDispatchMode):
    """Counts the custom ops by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = str(func)
        if name.startswith("fastgan."):
            self.count[name.split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def three_layers(impl: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        Conv2d(2, 3, kernel_size=4, stride=2, padding=1, activation="leaky_relu", impl=impl),
        Conv2d(3, 4, kernel_size=4, stride=2, padding=1, activation="leaky_relu", impl=impl),
        Conv2d(4, 1, kernel_size=1, impl=impl),
    ).to(DEVICE)


def test_the_inner_pass_of_r1_computes_no_weight_gradient() -> None:
    network = three_layers("cudnn_fused")
    images = torch.randn(1, 2, 8, 8, device=DEVICE, requires_grad=True)
    logits = network(images).mean((1, 2, 3))
    with Counted() as inner:
        penalty = r1_penalty(logits, images)
    # One transposed convolution for each layer, with the activation's slope inside: no pass of its own.
    assert inner.count == {"conv_transpose2d": 3}
    with Counted() as outer:
        penalty.backward()
    assert outer.count["conv2d_weight_grad"] == 3
    with Counted() as plain:
        torch.autograd.grad(network(images).sum(), images, create_graph=True)
    assert plain.count["conv2d_weight_grad"] == 3  # what the context saves


def test_the_first_pass_of_dual_computes_no_weight_gradient() -> None:
    network = discriminator("cudnn_fused")
    num_layers = sum(isinstance(module, Conv2d) for module in network.modules())
    images, labels = torch.randn(1, 3, 32, 32, device=DEVICE), torch.tensor([1], device=DEVICE)
    with Counted() as forward:
        judged = judge(network, images, labels, rule=PENALTIES["r1"], mode=PenaltyMode("dual"), noise=None)
    assert forward.count["conv2d_weight_grad"] == 0
    with Counted() as backward:
        judged.penalties.sum().backward()
    assert backward.count["conv2d_weight_grad"] == num_layers


def test_no_weight_gradients_changes_no_gradient() -> None:
    results = []
    for context in (no_weight_gradients, torch.enable_grad):
        network = three_layers("cudnn_fused")
        images = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE).requires_grad_()
        with context():
            (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
        gradient.square().sum().backward()
        results.append([p.grad for p in network.parameters()])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_r1_of_three_layers_in_float64() -> None:
    """The whole loss by the weights: the penalty is a first derivative, so these check the second and the third."""
    linears: tuple[Linear, ...] = ("conv2d",) * 3
    geometry = Settings(Geometry(2, (1, 1)), "reference", Activation("silu", 1.3))
    images = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = [torch.randn(o, i, 4, 4, dtype=torch.float64) / 4 for i, o in ((2, 2), (2, 2), (2, 1))]

    def loss(*weights: Tensor) -> Tensor:
        x = images
        for linear, weight in zip(linears, weights, strict=True):
            x = convolution_op(linear, Operands(x, weight), geometry)
        with no_weight_gradients():
            (gradient,) = torch.autograd.grad(x.sum(), images, create_graph=True)
        return x.mean() + gradient.square().sum()

    leaves = tuple(weight.requires_grad_() for weight in weights)
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, leaves, fast_mode=True)


def test_compiled_forward_pass_is_equal() -> None:
    """fullgraph=True: the custom ops do not break the graph, and `auto` is decided while tracing."""
    for impl in ("auto", "triton"):
        network, images = discriminator(impl), torch.randn(1, 3, 32, 32, device=DEVICE)
        labels = torch.tensor([1], device=DEVICE)
        with torch.no_grad():
            expected = network(images, labels)
            got = torch.compile(network, fullgraph=True, backend="aot_eager")(images, labels)
        torch.testing.assert_close(got, expected)
