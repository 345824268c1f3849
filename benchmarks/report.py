"""Records as a page: `python -m benchmarks.report RECORD...` writes Markdown tables and pictures."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from benchmarks.record import Record, read_record, read_records, require_writable
from benchmarks.rows import Figures, Row
from benchmarks.text import (
    format_bytes,
    format_milliseconds,
    format_rate,
    format_ratio,
    format_share,
    machine_line,
)
from fastgan.errors import DataError, FastganError
from fastgan.train.files import replace_file
from fastgan.train.log import fail, say

REPORT = "report.md"
# The benchmarks of a GPU have hundreds: one picture of all would be higher than matplotlib can draw.
_CASES_PER_PICTURE = 30
_HEADER = (
    "provider",
    "dtype",
    "time",
    "p20 to p80",
    "runs",
    "rate",
    "compared",
    "roofline",
    "GB/s",
    "memory",
    "launches",
    "longest kernel",
)


def write_report(records: Mapping[Path, Record], folder: Path, *, redraw: bool = True) -> Path:
    """Writes FOLDER/report.md, and the pictures that it shows; what is there is replaced.

    Args:
        redraw: False keeps pictures that are newer than their record, which takes longer to draw than all else.
    Raises:
        DataError: if no record holds rows.
    """
    with_rows = _with_rows(records)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Benchmarks", ""]
    for path, stem in _stems(with_rows).items():
        record = with_rows[path]
        since = math.inf if redraw else path.stat().st_mtime_ns
        pictures = _pictures(record.rows(), folder, stem=stem, since=since)
        lines += [*_section(path, record), *(f"![{name}]({name})" for name in pictures), ""]
    report = folder / REPORT
    replace_file(report, "\n".join(lines).encode())
    return report


def _with_rows(records: Mapping[Path, Record]) -> dict[Path, Record]:
    found = {path: record for path, record in records.items() if record.rows().rows}
    if not found:
        raise DataError("no record holds rows; give records that `fastgan bench` wrote")
    return found


def _pictures(figures: Figures, folder: Path, *, stem: str, since: float) -> list[str]:
    """Names of the pictures; none where matplotlib is not installed, and the tables say all the same.

    Args:
        since: in nanoseconds; what has been drawn later is kept.
    """
    try:
        from benchmarks.plots import case_title, plot_bars, plot_roofline
    except ImportError:
        return []
    cases = [list(rows) for _, rows in groupby(figures.rows, key=case_title)]
    draw: dict[str, Callable[[], bytes | None]] = {}
    for number, first in enumerate(range(0, len(cases), _CASES_PER_PICTURE), start=1):
        rows = list(itertools.chain.from_iterable(cases[first:][:_CASES_PER_PICTURE]))
        draw[f"{stem}.png" if number == 1 else f"{stem}-bars{number}.png"] = partial(plot_bars, rows)
    draw[f"{stem}-roofline.png"] = partial(plot_roofline, figures)
    return [name for name, picture in draw.items() if _is_there(folder / name, picture, since=since)]


def _is_there(path: Path, draw: Callable[[], bytes | None], *, since: float) -> bool:
    """Whether the picture has been drawn after `since`, or can be now."""
    if path.exists() and path.stat().st_mtime_ns > since:
        return True
    picture = draw()
    if picture is not None:
        replace_file(path, picture)
    return picture is not None


def _stems(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for the pictures of each record: that of its file, numbered where another folder has one of that name."""
    stems: dict[Path, str] = {}
    for path in paths:
        names = itertools.chain([path.stem], (f"{path.stem}~{number}" for number in itertools.count(2)))
        stems[path] = next(name for name in names if name not in stems.values())
    return stems


def _section(path: Path, record: Record) -> Iterator[str]:
    figures = record.rows()
    yield f"## {record.benchmark}, {record.date:%Y-%m-%d}"
    yield ""
    yield machine_line(record.environment)
    yield ""
    yield f"`{record.command}`, record `{path.name}`, commit {record.environment.get('git_commit') or 'unknown'}."
    if record.configuration.get("quick"):
        yield "**Quick**: few samples of small cases, which show that it works and not how fast it is."
    if figures.ceilings is not None:
        products = figures.ceilings.matmul_flops_per_second.items()
        rates = ", ".join(f"{rate / 1e12:,.3g} TFLOP/s in {name}" for name, rate in products)
        copy = figures.ceilings.copy_bytes_per_second / 1e9
        yield f"Ceilings measured in the same run: copy {copy:,.3g} GB/s, matrix product {rates}."
    yield ""
    for title, rows in groupby(figures.rows, key=lambda row: f"{row.benchmark}: {row.case}"):
        cases = list(rows)
        yield from [f"### {title}", "", *table(cases), ""]
        yield from (f"{row.provider}, {row.dtype}: incomplete: {row.missing}\n" for row in cases if row.missing)


def table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table; every row is compared with the first."""
    cells = [_HEADER, tuple("---" for _ in _HEADER), *(_cells(row, rows[0]) for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _cells(row: Row, base: Row) -> tuple[str, ...]:
    if row.time is None:
        return (row.provider, row.dtype, str(row.refused), *[""] * (len(_HEADER) - 3))
    memories = {" (process)": row.process_peak_bytes, "": row.peak_memory_bytes, " (kept)": row.num_bytes_kept}
    kind, memory = next(((kind, found) for kind, found in memories.items() if found is not None), ("", None))
    return (
        row.provider,
        row.dtype,
        format_milliseconds(row.time.p50),
        f"{format_milliseconds(row.time.p20)} to {format_milliseconds(row.time.p80)}",
        str(row.time.num_runs),
        format_rate(row),
        format_ratio(row, base),
        format_share(row),
        f"{row.num_bytes / row.time.p50 / 1e6:,.3g}" if row.num_bytes is not None else "",
        format_bytes(memory) + kind,
        "" if row.num_launches is None else str(row.num_launches),
        f"`{row.kernels[0].name[:60]}`" if row.kernels else "",
    )


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, help="records, or folders of records")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/report"), help="folder (%(default)s)")
    arguments = parser.parse_args()
    try:
        records: dict[Path, Record] = {}
        for path in arguments.records:
            records |= read_records(path) if path.is_dir() else {path: read_record(path)}
        with_rows = _with_rows(records)
        require_writable(arguments.out)
        say(f"report: {write_report(with_rows, arguments.out)}")
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
