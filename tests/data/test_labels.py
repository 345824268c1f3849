"""Labels from dataset.json, and every way in which they can be wrong, with the whole message."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fastgan.data import ImageDataset
from fastgan.data.labels import parse_labels
from fastgan.errors import DataError

WriteData = Callable[..., str]
OpenData = Callable[..., ImageDataset]
Files = Callable[[int], dict[str, bytes]]
RULE = 'dataset.json must be {"labels": [[image name, integer from 0], ...]} or {"labels": null}'


@pytest.mark.parametrize("to", ["images", "images.zip"])
def test_labels_go_with_their_images(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, to: str
) -> None:
    labels = [["002.png", 5], ["000.png", 3], ["001.png", 0]]
    path = write_data(numbered_files(3), to=to, labels=labels)
    dataset = open_data(path, labels=True)
    assert [dataset.read(index).label for index in range(3)] == [3, 0, 5]
    assert dataset.num_classes == 6
    assert open_data(path, labels=True, num_classes=10).num_classes == 10
    unlabelled = open_data(path)
    assert unlabelled.num_classes == 0
    assert unlabelled.read(0).label is None


def test_null_and_absent_labels(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    assert parse_labels(b'{"labels": null}', path="p") is None
    assert parse_labels(b'{"about": "no labels"}', path="p") is None
    path = write_data(numbered_files(2), labels=None)
    assert open_data(path).num_images == 2
    message = f"data.labels=true, but {path} has no labels: put a dataset.json into its root, or set data.labels=false"
    with pytest.raises(DataError) as caught:
        open_data(path, labels=True)
    assert str(caught.value) == message


def test_unlabelled_images(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    path = write_data(numbered_files(3), labels=[["001.png", 0]])
    with pytest.raises(DataError) as caught:
        open_data(path, labels=True)
    assert str(caught.value) == (
        f"2 of 3 images in {path} have no label in dataset.json, e.g. '000.png'; "
        "add them to it, or set data.labels=false"
    )
    assert open_data(path).num_images == 3


def test_more_labels_than_classes(write_data: WriteData, open_data: OpenData, numbered_files: Files) -> None:
    path = write_data(numbered_files(2), labels=[["000.png", 1], ["001.png", 12]])
    with pytest.raises(DataError) as caught:
        open_data(path, labels=True, num_classes=10)
    assert str(caught.value) == (
        f"label 12 of image '001.png' in {path} must be below data.num_classes=10; "
        "set data.num_classes=13, or correct the label"
    )


@pytest.mark.parametrize("label", [-1, 1.0, "3", True, None, [1, 2], 1 << 31])
def test_label_that_is_no_class_number(label: Any) -> None:
    with pytest.raises(DataError) as caught:
        parse_labels(json.dumps({"labels": [["a.png", 0], ["b.png", label]]}).encode(), path="p.zip")
    assert str(caught.value) == (
        f"label {json.dumps(label)} of image 'b.png' in dataset.json in p.zip is no class number; {RULE}"
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[1]", "dataset.json in p holds a list"),
        ('{"labels": {"a.png": 1}}', '"labels" of dataset.json in p is a dict'),
        ('{"labels": [["a.png", 1], ["b.png"]]}', 'entry 1 of dataset.json in p is ["b.png"]'),
        ('{"labels": ["a.png"]}', 'entry 0 of dataset.json in p is "a.png"'),
        ('{"labels": [[1, "a.png"]]}', 'entry 0 of dataset.json in p is [1, "a.png"]'),
    ],
)
def test_other_forms(text: str, start: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_labels(text.encode(), path="p")
    assert str(caught.value) == f"{start}; {RULE}"


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\xfd", b"[" * 100_000])
def test_not_json(text: bytes) -> None:
    with pytest.raises(DataError, match=r"^dataset\.json in p is not valid JSON \(.*\); dataset\.json must be"):
        parse_labels(text, path="p")


def test_image_named_twice() -> None:
    with pytest.raises(DataError) as caught:
        parse_labels(b'{"labels": [["a.png", 1], ["a.png", 1]]}', path="p")
    assert str(caught.value) == "dataset.json in p names image 'a.png' twice; keep one of the two entries"


@pytest.mark.parametrize("labels", [[["000.png", [0.1, 0.2]]], [["000.png", "cat"]], {"000.png": 1}, [3]], ids=str)
def test_labels_of_another_kind_do_not_matter_without_labels(
    write_data: WriteData, open_data: OpenData, numbered_files: Files, labels: Any
) -> None:
    path = write_data(numbered_files(2), labels=labels)
    assert open_data(path).num_classes == 0
    with pytest.raises(DataError):
        open_data(path, labels=True)
