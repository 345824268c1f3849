"""The DCGAN networks: shapes at every size, labels, precision, and independence of the samples in a batch."""

import pytest
import torch

from fastgan.models import DCGANDiscriminator, DCGANGenerator


def networks(
    *, resolution: int = 32, image_channels: int = 1, num_classes: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    torch.manual_seed(0)
    generator = DCGANGenerator(
        resolution=resolution,
        image_channels=image_channels,
        latent_dim=6,
        channels=4,
        max_channels=16,
        num_classes=num_classes,
        label_dim=5,
        dtype=dtype,
    )
    discriminator = DCGANDiscriminator(
        resolution=resolution,
        image_channels=image_channels,
        channels=4,
        max_channels=16,
        num_classes=num_classes,
        dtype=dtype,
    )
    return generator, discriminator


@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("num_classes", [0, 7])
def test_shapes_and_range(resolution: int, image_channels: int, num_classes: int) -> None:
    generator, discriminator = networks(resolution=resolution, image_channels=image_channels, num_classes=num_classes)
    labels = torch.tensor([0, 6]) if num_classes else None
    images = generator(torch.randn(2, 6), labels)
    assert list(images.shape) == [2, image_channels, resolution, resolution]
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert list(discriminator(images, labels).shape) == [2]


def test_labels_matter() -> None:
    generator, discriminator = networks(num_classes=7)
    latents = torch.randn(1, 6).expand(2, 6)
    images = generator(latents, torch.tensor([0, 1]))
    assert not torch.allclose(images[0], images[1])
    logits = discriminator(images[:1].expand(2, -1, -1, -1), torch.tensor([0, 1]))
    assert logits[0] != logits[1]


def test_projection_is_the_inner_product_with_the_summed_features() -> None:
    _, discriminator = networks(num_classes=7)
    images, label = torch.randn(1, 1, 32, 32), torch.tensor([4])
    features = images
    scales = list(discriminator.scales())
    for layer, scale in zip(discriminator.hidden, scales, strict=False):
        features = layer(features, scale)
    assert discriminator.embedding is not None
    row = discriminator.embedding.weight[4] * scales[-1]
    unconditional = discriminator.to_logit(features, scales[-2]).flatten()
    expected = unconditional + (row * features.sum(dim=(2, 3))).sum()
    torch.testing.assert_close(discriminator(images, label), expected)


@pytest.mark.parametrize("index", [0, 1])
def test_missing_labels_are_refused(index: int) -> None:
    network = networks(num_classes=7)[index]
    argument = torch.randn(1, 6) if index == 0 else torch.randn(1, 1, 32, 32)
    with pytest.raises(ValueError, match="labels is None; a network with classes needs a label for each sample"):
        network(argument)


def test_no_sample_sees_another() -> None:
    """Gradient penalties rely on it: d logit_i / d image_j = 0."""
    generator, discriminator = networks()
    latents = torch.randn(3, 6, requires_grad=True)
    logits = discriminator(generator(latents))
    (gradient,) = torch.autograd.grad(logits[0], latents)
    assert gradient[0].abs().max() > 0
    assert gradient[1:].abs().max() == 0


def test_bf16_is_close_to_float32_and_logits_are_float32() -> None:
    generator, discriminator = networks()
    generator16, discriminator16 = networks(dtype=torch.bfloat16)
    latents = torch.randn(8, 6)
    images, images16 = generator(latents), generator16(latents)
    assert images16.dtype == torch.float32
    # Each hidden layer rounds its input, its weight and its output by at most 2^-9 of their size: over four layers the
    # root of the mean square error stays within 4 x 3 of these.
    assert relative_error(images16, images) < 12 * 2.0**-9
    logits, logits16 = discriminator(images), discriminator16(images)
    assert logits16.dtype == torch.float32
    # A logit is a sum of terms of both signs, here some three times smaller than they are together.
    assert relative_error(logits16, logits) < 3 * 12 * 2.0**-9


def relative_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return ((got - exact).square().mean() / exact.square().mean()).sqrt().item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 48}, "resolution=48 must be one of 32, 64, 128"),
        ({"channels": 0}, "channels=0 must lie between 1 and max_channels=16"),
        ({"channels": 32}, "channels=32 must lie between 1 and max_channels=16"),
        ({"normalization": "batch"}, "normalization='batch' must be one of pixel, none"),
    ],
)
def test_bad_arguments_name_themselves(change: dict[str, object], message: str) -> None:
    arguments = {"resolution": 32, "image_channels": 1, "latent_dim": 6, "channels": 4, "max_channels": 16} | change
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        DCGANGenerator(**arguments)  # type: ignore[arg-type]
