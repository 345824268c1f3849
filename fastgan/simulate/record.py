"""The times of a step's parts out of a record of `fastgan bench step`.

The record has rows of the benchmark step_parts: a case per preset and batch size, a row per part. Two batch sizes give
the time of a pass and that of an image.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fastgan.errors import ConfigError
from fastgan.simulate.cost import Part

BENCHMARK = "step_parts"
NEEDED = ("generate", "judge_real", "update discriminator", "update generator")


class _Row(NamedTuple):
    """The median time of a part of a step of `preset` on a batch."""

    preset: str
    dtype: str
    part: str
    num_images: int
    seconds: float


def parts_from_record(path: Path, *, preset: str, dtype: str | None = None) -> dict[str, Part]:
    """The parts of `preset`, in the number format `dtype`; None where the record has one only.

    Raises:
        ConfigError: if the file is no such record, or does not hold the preset at two batch sizes.
    """
    rows = _rows(path)
    mine = [row for row in rows if row.preset == preset and dtype in (None, row.dtype)]
    dtypes = sorted({row.dtype for row in mine})
    if len(dtypes) > 1:
        raise ConfigError(f"--record {path} holds {preset} in {' and '.join(dtypes)}; choose with precision=")
    times: dict[str, dict[int, float]] = {}
    for row in mine:
        times.setdefault(row.part, {})[row.num_images] = row.seconds
    if not times or any(len(by_images) < 2 for by_images in times.values()):
        known = sorted({row.preset for row in rows})
        raise ConfigError(
            f"--record {path} does not hold the parts of {preset} at two batch sizes, but of "
            f"{', '.join(known) or 'nothing'}; make one with: fastgan bench step"
        )
    missing = [name for name in NEEDED if name not in times]
    if missing:
        raise ConfigError(f"--record {path} lacks {', '.join(missing)} of {preset}; make one with: fastgan bench step")
    return parts_from_times(times)


def parts_from_times(times: Mapping[str, Mapping[int, float]]) -> dict[str, Part]:
    """The parts of a step from measured seconds, by what was measured and by the number of images.

    An update is measured without its optimizer step, that of the discriminator on fakes that are there already; with
    the penalty KIND it is "update discriminator, KIND".

    Args:
        times: at least those of NEEDED, each at two batch sizes or more.
    """
    return dict(_parts({name: _line(by_images) for name, by_images in times.items()}))


def _rows(path: Path) -> list[_Row]:
    """What was timed of the parts of steps."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["figures"]["rows"]
        mine = [row for row in rows if row.get("benchmark") == BENCHMARK and row.get("time")]
        return [
            _Row(
                row["case"].split(",")[0],
                row["dtype"],
                row["provider"],
                int(row["num_items"]),
                row["time"]["p50"] / 1e3,
            )
            for row in mine
        ]
    except OSError as error:
        raise ConfigError(f"--record {path} cannot be read: {error.strerror}; give a file of fastgan bench") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"--record {path} is not a record of fastgan bench; give a file that it wrote") from None


def _line(seconds: Mapping[int, float]) -> Part:
    """The line through the times of the smallest and the largest batch; a pass never takes less than nothing."""
    few, many = min(seconds), max(seconds)
    slope = max(0.0, (seconds[many] - seconds[few]) / (many - few)) if few < many else 0.0
    return Part(max(0.0, seconds[few] - slope * few), slope)


def _parts(measured: Mapping[str, Part]) -> Iterator[tuple[str, Part]]:
    """What was measured together with what comes before it, without that."""
    update = measured["update discriminator"]
    for name, part in measured.items():
        if name.startswith("update discriminator, "):
            yield f"penalty {name.partition(', ')[2]}", _difference(part, update)
        elif not name.startswith("update "):
            yield name, part
    yield "learn discriminator", _difference(update, measured["judge_real"])
    yield "learn generator", _difference(measured["update generator"], measured["generate"])
    if "update joint" in measured:
        before = measured["generate"].plus(measured["judge_real"])
        yield "learn joint", _difference(measured["update joint"], before)


def _difference(whole: Part, other: Part) -> Part:
    """Never less than nothing, which differences of measurements may be."""
    return Part(max(0.0, whole.fixed - other.fixed), max(0.0, whole.per_image - other.per_image))
