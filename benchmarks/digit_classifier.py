"""A small classifier of handwritten digits; the layer before its logits is the feature space of digits_quality."""

# N images, F features; images are float32 [N, 1, 32, 32] in [-1, 1]

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan import rng
from fastgan.data import open_dataset
from fastgan.train.log import warn

NUM_FEATURES = 64
NUM_CLASSES = 10
HELD_OUT_IMAGES = 1_000
BATCH_IMAGES = 100
LEARNING_RATE = 4e-3


class Digits(NamedTuple):
    """images: float32 [N, 1, 32, 32] in [-1, 1]; labels: int64 [N]."""

    images: Tensor
    labels: Tensor


class DigitClassifier(nn.Module):
    """Three strided convolutions, one hidden layer of NUM_FEATURES rectified units, and logits; 0.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            *_convolution(1, 16),
            *_convolution(16, 32),
            *_convolution(32, 64),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, NUM_FEATURES, bias=False),
            nn.BatchNorm1d(NUM_FEATURES),
            nn.ReLU(),
        )
        self.logits = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, NUM_CLASSES]."""
        logits: Tensor = self.logits(self.hidden(images))
        return logits


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Halves the sides. Without the normalization, most units would see the dark background only, and die."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=5, stride=2, padding=2, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def load_digits() -> Digits:
    """The built-in digits, padded to 32 x 32."""
    dataset = open_dataset("digits", resolution=32, channels=1, fit="pad", labels=True, on_warning=warn)
    assert dataset.cache is not None
    assert dataset.cache.labels is not None
    return Digits(dataset.cache.pixels.float() / 127.5 - 1, dataset.cache.labels)


def split_digits(digits: Digits, *, held_out_images: int, seed: int) -> tuple[Digits, Digits]:
    """(the rest, `held_out_images` drawn at random)."""
    order = torch.from_numpy(rng.permutation(seed, "held_out", 0, len(digits.images)))
    held_out, rest = order[:held_out_images], order[held_out_images:]
    return Digits(digits.images[rest], digits.labels[rest]), Digits(digits.images[held_out], digits.labels[held_out])


def train_classifier(digits: Digits, *, num_epochs: int = 4, seed: int = 0) -> DigitClassifier:
    """Adam on the cross entropy, its rate going to zero. The same arguments and threads give the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = DigitClassifier()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE)
    num_steps = num_epochs * math.ceil(len(digits.images) / BATCH_IMAGES)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for epoch in range(num_epochs):
        order = torch.from_numpy(rng.permutation(seed, "classifier", epoch, len(digits.images)))
        for indices in order.split(BATCH_IMAGES):
            loss = nn.functional.cross_entropy(classifier(digits.images[indices]), digits.labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval().requires_grad_(False)


def extract_features(classifier: DigitClassifier, images: Tensor) -> Tensor:
    """float32 [N, NUM_FEATURES]."""
    return torch.cat([classifier.hidden(batch) for batch in images.split(500)])


def predict_classes(classifier: DigitClassifier, features: Tensor) -> Tensor:
    """int64 [N], the most likely digit for features [N, NUM_FEATURES]."""
    classes: Tensor = classifier.logits(features).argmax(dim=1)
    return classes
