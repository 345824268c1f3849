"""The file RUN/stats.jsonl: one JSON object a line, one line a tick, in the order of images_seen.

Every line has images_seen, seconds (since the run began, resumes not counted twice) and images_per_second (since the
tick before), then what the training loop measured. A number that is not finite is written as null, as JSON asks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from fastgan.errors import RunFolderError
from fastgan.train.files import replace_file

STATS_FILE = "stats.jsonl"


def read_stats(run_dir: Path) -> list[dict[str, float]]:
    """All ticks of a run, oldest first; null becomes NaN. Empty if there is no file.

    A last line without its newline was being written when the run died: it is left out.

    Raises:
        RunFolderError: a line before it is not a JSON object with images_seen.
    """
    path = run_dir / STATS_FILE
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from error
    return [_parse_line(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def rewind_stats(run_dir: Path, images_seen: int) -> list[dict[str, float]]:
    """Drop the ticks after `images_seen`, atomically, and return those that stay: the run goes back to a checkpoint."""
    path = run_dir / STATS_FILE
    kept = [tick for tick in read_stats(run_dir) if tick["images_seen"] <= images_seen]
    if path.exists():
        replace_file(path, "".join(map(_format_line, kept)).encode())
    return kept


class StatsFile:
    """Appends ticks to RUN/stats.jsonl; every line is handed to the operating system at once."""

    def __init__(self, run_dir: Path) -> None:
        """Raises RunFolderError if the file cannot be opened for appending."""
        path = run_dir / STATS_FILE
        try:
            self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error.strerror}; choose another run_dir") from error

    def append(self, tick: Mapping[str, float]) -> None:
        """Write one line."""
        self._file.write(_format_line(tick))
        self._file.flush()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()


def _format_line(tick: Mapping[str, float]) -> str:
    finite = {key: value if math.isfinite(value) else None for key, value in tick.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _parse_line(line: bytes, place: str) -> dict[str, float]:
    try:
        tick = json.loads(line)
    except ValueError:
        tick = None
    if not isinstance(tick, dict) or not isinstance(tick.get("images_seen"), int):
        raise RunFolderError(f"{place} is not a JSON object with images_seen; delete that line or the file")
    return {str(key): math.nan if value is None else value for key, value in tick.items()}
