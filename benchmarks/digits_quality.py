"""How close a run's digits are to real ones: `python -m benchmarks.digits_quality RUN [--num 5000] [--seed 0]`.

The score is the Fréchet distance between features of generated and of real digits. A small classifier trained here
gives the features, so the figures compare with each other but not with the FID of other projects. A distance between
finite samples is never zero, so the distance between disjoint halves of the real digits is printed as the floor, and
next to it the distance of generated digits at the same sample size.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.digit_classifier import (
    HELD_OUT_IMAGES,
    NUM_CLASSES,
    DigitClassifier,
    Digits,
    extract_features,
    load_digits,
    predict_classes,
    split_digits,
    train_classifier,
)
from benchmarks.frechet import fit_gaussian, frechet_distance
from benchmarks.record import write_record
from fastgan import rng
from fastgan.errors import DataError, FastganError
from fastgan.train.grid import to_uint8
from fastgan.train.log import fail, say
from fastgan.train.run_folder import read_config
from fastgan.train.sample import generate, load_generator

NUM_SPLITS = 10


class Judge(NamedTuple):
    """A trained classifier, its accuracy in [0, 1] on digits it was not trained on, and features of all real digits."""

    classifier: DigitClassifier
    accuracy: float
    real_features: Tensor


def train_judge(digits: Digits, *, seed: int, num_epochs: int = 4) -> Judge:
    """Train on all but HELD_OUT_IMAGES digits, measure on those, and extract the features of all."""
    training, held_out = split_digits(digits, held_out_images=HELD_OUT_IMAGES, seed=seed)
    classifier = train_classifier(training, num_epochs=num_epochs, seed=seed)
    predictions = predict_classes(classifier, extract_features(classifier, held_out.images))
    accuracy = (predictions == held_out.labels).double().mean().item()
    return Judge(classifier, accuracy, extract_features(classifier, digits.images))


def score_images(judge: Judge, images: Tensor, *, seed: int) -> dict[str, Any]:
    """Figures for `images` [N, 1, 32, 32] in [-1, 1]; they are rounded to 8 bits first, as a picture file would.

    Raises:
        DataError: the images have another shape.
    """
    if images.shape[1:] != (1, 32, 32):
        raise DataError(f"images of shape {list(images.shape[1:])} cannot be scored: give a run with [1, 32, 32]")
    features = extract_features(judge.classifier, to_uint8(images).float() / 127.5 - 1)
    half = len(judge.real_features) // 2
    floors, at_half = [], []
    for split in range(NUM_SPLITS):
        first, second = _shuffle(judge.real_features, split, seed=seed).split(half)[:2]
        floors.append(_distance(first, second))
        at_half.append(_distance(_shuffle(features, split, seed=seed)[:half], first))
    classes = predict_classes(judge.classifier, features).bincount(minlength=NUM_CLASSES)
    return {
        "frechet_distance": _distance(features, judge.real_features),
        "frechet_distance_half": statistics.median(at_half),
        "frechet_floor_half": statistics.median(floors),
        "num_generated": len(features),
        "num_real": len(judge.real_features),
        "num_half": half,
        "classifier_accuracy": judge.accuracy,
        "generated_per_class": classes.tolist(),
    }


def _distance(first: Tensor, second: Tensor) -> float:
    return frechet_distance(fit_gaussian(first), fit_gaussian(second))


def _shuffle(features: Tensor, split: int, *, seed: int) -> Tensor:
    return features[torch.from_numpy(rng.permutation(seed, "split", split, len(features)))]


def format_figures(figures: dict[str, Any]) -> list[str]:
    """The figures as lines for people."""
    sizes = f"{figures['num_generated']:,} generated against {figures['num_real']:,} real"
    half = figures["num_half"]
    return [
        f"Fréchet distance, {sizes}:  {figures['frechet_distance']:.3f}",
        f"the same, at most {half:,} of each:  {figures['frechet_distance_half']:.3f}",
        f"floor, {half:,} real against {half:,} other real:  {figures['frechet_floor_half']:.3f}",
        f"(median of {NUM_SPLITS} random splits for the last two)",
        f"classifier accuracy on {HELD_OUT_IMAGES:,} held-out digits:  {figures['classifier_accuracy']:.1%}",
        f"generated per class 0 to 9:  {' '.join(str(count) for count in figures['generated_per_class'])}",
    ]


def measure(run_dir: Path, *, num_images: int, seed: int) -> dict[str, Any]:
    """Sample the averaged generator of the run's newest checkpoint and score it.

    Raises:
        FastganError: the folder holds no run, no intact checkpoint, or a run of other images than digits.
    """
    loaded = load_generator(run_dir)
    images = generate(loaded.generator, num_images=num_images, seed=seed)
    figures = score_images(train_judge(load_digits(), seed=seed), images, seed=seed)
    return {"images_seen": loaded.images_seen, **figures}


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits_quality", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="run folder, trained on the built-in digits")
    parser.add_argument("--num", type=int, default=5000, help="images to generate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.num < 2:
        parser.error(f"--num {options.num} must be at least 2: one image has no covariance")
    try:
        figures = measure(options.run, num_images=options.num, seed=options.seed)
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    for line in format_figures(figures):
        say(line)
    configuration = read_config(options.run).model_dump(mode="json")
    say(f"record: {write_record('digits_quality', figures, configuration=configuration)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
