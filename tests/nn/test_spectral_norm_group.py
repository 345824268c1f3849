"""The spectral norm of a network as one group: when it steps, what it keeps, what copies of it keep."""

import copy

import pytest
import torch

from fastgan.errors import TrainingError
from fastgan.models import DCGANDiscriminator
from fastgan.nn import Conv2d, ConvTranspose2d, SpectrallyNormalized, SpectralNorm, from_parametrizations
from fastgan.nn.spectral_norm import HasMatrix


def make() -> DCGANDiscriminator:
    torch.manual_seed(0)
    return DCGANDiscriminator(resolution=32, image_channels=1, channels=4, max_channels=16, num_classes=3)


def group(network: DCGANDiscriminator) -> SpectralNorm:
    assert network.spectral_norm is not None
    return network.spectral_norm


def vectors(network: DCGANDiscriminator) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in group(network).buffers()]


def test_scales_bring_every_layer_to_norm_one() -> None:
    network = make()
    for _ in range(200):
        network.step_spectral_norm()
    for layer, scale in zip(network.normalized_layers(), network.scales(), strict=True):
        assert scale is not None
        norm = torch.linalg.matrix_norm(layer.matrix() * scale, ord=2)
        assert norm.item() == pytest.approx(1.0, rel=1e-3)


def test_forward_passes_do_not_step() -> None:
    network = make()
    before = vectors(network)
    network.train()(torch.randn(2, 1, 32, 32), torch.tensor([0, 2]))
    torch.testing.assert_close(vectors(network), before, rtol=0, atol=0)
    network.step_spectral_norm()
    changed = [not torch.equal(old, new) for old, new in zip(before, vectors(network), strict=True)]
    assert any(changed)


def test_forward_follows_the_weights_between_steps() -> None:
    """1 / sigma is computed from today's weights, so that doubling a layer changes nothing."""
    network = make()
    images = torch.randn(2, 1, 32, 32)
    before = network(images, torch.tensor([0, 1]))
    with torch.no_grad():
        network.hidden[0].weight.mul_(2.0)
    torch.testing.assert_close(network(images, torch.tensor([0, 1])), before)


def test_deepcopy_and_state_dict_carry_the_vectors() -> None:
    network = make()
    for _ in range(3):
        network.step_spectral_norm()
    twin, loaded = copy.deepcopy(network), make()
    loaded.load_state_dict(network.state_dict())
    for other in (twin, loaded):
        torch.testing.assert_close(vectors(other), vectors(network), rtol=0, atol=0)
        other.step_spectral_norm()
        assert group(other).u0 is not group(network).u0
    network.step_spectral_norm()
    torch.testing.assert_close(vectors(twin), vectors(network), rtol=0, atol=0)


def test_bad_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="layers is empty"):
        SpectralNorm([])
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match=f"num_iterations={wrong} must be a whole number, at least 1"):
            SpectralNorm(make().normalized_layers(), num_iterations=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"layer 0 is a Linear without a method matrix; take a layer of fastgan\.nn"):
        SpectralNorm([torch.nn.Linear(2, 2)])  # type: ignore[list-item]


def test_the_vectors_stay_in_float32_when_the_weights_become_bf16() -> None:
    network = make()
    before = vectors(network)
    network.bfloat16()
    assert network.hidden[0].weight.dtype == torch.bfloat16
    torch.testing.assert_close(vectors(network), before, rtol=0, atol=0)
    network.step_spectral_norm()
    assert {vector.dtype for vector in vectors(network)} == {torch.float32}
    assert {vector.dtype for vector in vectors(network.double())} == {torch.float64}


def test_the_vectors_are_frozen_in_eval() -> None:
    network = make().eval()
    before = vectors(network)
    network.step_spectral_norm()
    torch.testing.assert_close(vectors(network), before, rtol=0, atol=0)
    network.train().step_spectral_norm()
    assert any(not torch.equal(old, new) for old, new in zip(before, vectors(network), strict=True))


def test_a_weight_that_is_not_finite_ends_training_with_its_name() -> None:
    network = make()
    with torch.no_grad():
        network.hidden[1].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(TrainingError, match=r"layer 1 \(Conv2d\(.*holds numbers that are not finite after an update"):
        network.step_spectral_norm()


class Pair(SpectrallyNormalized):
    """A convolution and a transposed one in a group."""

    def __init__(self) -> None:
        super().__init__()
        self.down = Conv2d(3, 5, kernel_size=4, stride=2, padding=1)
        self.up = ConvTranspose2d(5, 2, kernel_size=4, stride=2, padding=1)
        self.spectral_norm = SpectralNorm(self.normalized_layers())

    def normalized_layers(self) -> list[HasMatrix]:
        return [self.down, self.up]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scales = self.scales()
        y: torch.Tensor = self.up(self.down(x, next(scales)), next(scales))
        return y


def test_torchs_parametrizations_import_and_continue_alike() -> None:
    torch.manual_seed(0)
    wrap = torch.nn.utils.parametrizations.spectral_norm
    theirs = torch.nn.ModuleDict(
        {"down": wrap(torch.nn.Conv2d(3, 5, 4, 2, 1)), "up": wrap(torch.nn.ConvTranspose2d(5, 2, 4, 2, 1))}
    )
    ours = Pair()
    ours.load_state_dict(from_parametrizations(theirs.state_dict(), ["down", "up"]))
    x = torch.randn(2, 3, 8, 8)
    for _ in range(3):
        ours.step_spectral_norm()
        expected = theirs["up"](theirs["down"](x))  # steps torch's own power iteration
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)
    half = from_parametrizations(theirs.bfloat16().state_dict(), ["down", "up"])
    ours.load_state_dict(half, assign=True)  # takes the dtypes, too
    assert {t.dtype for t in ours.parameters()} == {torch.bfloat16}
    ours.step_spectral_norm()
    assert ours(x.bfloat16()).isfinite().all()
    with pytest.raises(ValueError, match=r"layer 'side' is not in the state; it needs side\.parametrizations"):
        from_parametrizations(theirs.state_dict(), ["side"])
    other = torch.nn.ModuleDict({"down": torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(2, 2))})
    with pytest.raises(ValueError, match=r"it needs down\.parametrizations\.weight\.0\._u"):
        from_parametrizations(other.state_dict(), ["down"])


class Single(Conv2d, SpectrallyNormalized):
    """A network that is one layer."""

    def __init__(self) -> None:
        super().__init__(3, 5, kernel_size=4)
        self.spectral_norm = SpectralNorm(self.normalized_layers())

    def normalized_layers(self) -> list[HasMatrix]:
        return [self]


def test_a_bare_layer_imports() -> None:
    theirs = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 5, 4)).eval()
    ours = Single()
    ours.load_state_dict(from_parametrizations(theirs.state_dict(), [""]))
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(ours(x, next(ours.scales())), theirs(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"layer '' is not in the state; it needs parametrizations\.weight\.original"):
        from_parametrizations({}, [""])
