"""The digit classifier and the score made from its features."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.digit_classifier import Digits, load_digits, train_classifier
from benchmarks.digits_quality import Judge, format_figures, score_images, train_judge
from benchmarks.record import write_record
from fastgan.errors import DataError


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="module")
def judge(digits: Digits) -> Judge:
    return train_judge(digits, seed=0)


def test_the_classifier_reads_digits_it_has_not_seen(judge: Judge) -> None:
    assert judge.accuracy > 0.95


def test_training_is_a_function_of_the_seed(digits: Digits) -> None:
    few = Digits(digits.images[::50], digits.labels[::50])
    first, same, other = (train_classifier(few, num_epochs=1, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["logits.weight"], other["logits.weight"])


def test_scores_order_real_blurred_and_noise(digits: Digits, judge: Judge) -> None:
    some = digits.images[::2]
    real = score_images(judge, some, seed=0)
    blurred = score_images(judge, torch.nn.functional.avg_pool2d(some, 5, stride=1, padding=2), seed=0)
    noise = score_images(judge, torch.rand(some.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1, seed=0)
    assert real["frechet_floor_half"] > 0
    assert real["frechet_distance"] < 2 * real["frechet_floor_half"]
    assert real["frechet_distance"] < blurred["frechet_distance"] / 10
    assert blurred["frechet_distance"] < noise["frechet_distance"]


def test_a_missing_class_shows_in_the_counts_and_in_the_score(digits: Digits, judge: Judge) -> None:
    figures = score_images(judge, digits.images[digits.labels != 3], seed=0)
    assert figures["generated_per_class"][3] < 50 < min(figures["generated_per_class"][:3])
    assert figures["frechet_distance"] > 3 * figures["frechet_floor_half"]
    assert any("4,500 generated against 5,000 real" in line for line in format_figures(figures))


def test_images_of_another_shape_are_refused(judge: Judge) -> None:
    with pytest.raises(DataError, match=r"\[3, 64, 64\]"):
        score_images(judge, torch.zeros(4, 3, 64, 64), seed=0)


def test_records_are_never_overwritten(tmp_path: Path) -> None:
    paths = [
        write_record(
            "digits_quality", {"x": x}, configuration={"seed": 0}, arguments=["runs/a b"], records_dir=tmp_path
        )
        for x in (1, 2, 3)
    ]
    assert len(set(paths)) == 3
    records = [json.loads(path.read_text()) for path in paths]
    assert [record["figures"]["x"] for record in records] == [1, 2, 3]
    assert records[0]["command"] == "python -m benchmarks.digits_quality 'runs/a b'"
    assert records[0]["environment"]["packages"]["torch"] == torch.__version__
