"""What benchmarks of whole runs are told on the command line, checked before anything is measured."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.record import RECORDS_DIR, require_writable


def positive_int(text: str) -> int:
    """For argparse's `type`: a whole number of at least one.

    Raises:
        ArgumentTypeError: for anything else.
    """
    try:
        number = int(text.replace("_", ""))
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return number


def add_folders(parser: argparse.ArgumentParser) -> None:
    """The options that `picture_path` reads, and the folder of the record."""
    parser.add_argument("--out", type=Path, default=RECORDS_DIR, help="folder of the record (%(default)s)")
    parser.add_argument("--picture", type=Path, help="by default in benchmarks/reports, or in the folder of --out")


def picture_path(options: argparse.Namespace, usual: Path) -> Path:
    """Where the picture goes: `usual` only if the record goes to its usual folder, too.

    Raises:
        DataError: if the folder of the record or of the picture cannot be written.
    """
    picture: Path = options.picture or (usual if options.out == RECORDS_DIR else options.out / usual.name)
    require_writable(options.out)
    require_writable(picture.parent, option="--picture")
    return picture
