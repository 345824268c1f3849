"""StyleGAN's `dataset.json`: `{"labels": [[name, int], ...]}`, or `"labels": null` for images without labels."""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastgan.data.source import LABELS_NAME
from fastgan.errors import DataError

# One embedding row per class: more than this is a mistake in the labels.
MAX_CLASSES = 1 << 20

_RULE = f'{LABELS_NAME} must be {{"labels": [[image name, integer from 0], ...]}} or {{"labels": null}}'


def parse_labels(text: bytes, *, path: str) -> dict[str, int] | None:
    """Label by image name, None when `labels` is null or absent.

    Raises:
        DataError: if it is not JSON, not of that form, names an image twice, or has a label that is no class number.
    """
    where = f"{LABELS_NAME} in {path}"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON ({error}); {_RULE}") from error
    if not isinstance(content, dict):
        raise DataError(f"{where} holds a {type(content).__name__}; {_RULE}")
    pairs = content.get("labels")
    if pairs is None:
        return None
    if not isinstance(pairs, list):
        raise DataError(f'"labels" of {where} is a {type(pairs).__name__}; {_RULE}')
    labels: dict[str, int] = {}
    for position, pair in enumerate(pairs):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise DataError(f"entry {position} of {where} is {json.dumps(pair)[:80]}; {_RULE}")
        name, label = pair
        if name in labels:
            raise DataError(f"{where} names image {name!r} twice; keep one of the two entries")
        # True and False are integers to Python, but not to whoever wrote the file.
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < MAX_CLASSES:
            raise DataError(f"label {json.dumps(label)[:80]} of image {name!r} in {where} is no class number; {_RULE}")
        labels[name] = label
    return labels


def parse_names(text: bytes) -> list[str]:
    """The image names in a `dataset.json` whose labels are not asked for, and so may be anything."""
    try:
        pairs = json.loads(text)["labels"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return []
    pairs = pairs if isinstance(pairs, list) else []
    return [pair[0] for pair in pairs if isinstance(pair, list) and pair and isinstance(pair[0], str)]


def label_images(
    names: Sequence[str], labels: dict[str, int] | None, *, path: str, num_classes: int | None
) -> tuple[NDArray[np.int64], int]:
    """(labels [N] in the order of `names`, number of classes: `num_classes`, or the largest label plus one).

    Raises:
        DataError: if there are no labels, an image has none, or a label is not below `num_classes`.
    """
    if labels is None:
        raise DataError(
            f"data.labels=true, but {path} has no labels: put a {LABELS_NAME} into its root, or set data.labels=false"
        )
    unlabelled = [name for name in names if name not in labels]
    if unlabelled:
        raise DataError(
            f"{len(unlabelled)} of {len(names)} images in {path} have no label in {LABELS_NAME}, e.g. "
            f"{unlabelled[0]!r}; add them to it, or set data.labels=false"
        )
    values = np.array([labels[name] for name in names], dtype=np.int64)
    needed = int(values.max()) + 1
    if num_classes is not None and needed > num_classes:
        name = names[int(values.argmax())]
        raise DataError(
            f"label {needed - 1} of image {name!r} in {path} must be below data.num_classes={num_classes}; "
            f"set data.num_classes={needed}, or correct the label"
        )
    return values, num_classes if num_classes is not None else needed
