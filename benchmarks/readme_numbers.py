"""The numbers of README.md, from the newest records: `python -m benchmarks.readme_numbers` writes them into it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.record import RECORDS_DIR, Record, read_records
from benchmarks.rows import Row
from benchmarks.text import format_bytes, format_milliseconds, format_ratio, machine_line
from benchmarks.train_step import VARIANTS
from fastgan.errors import DataError, FastganError
from fastgan.train.files import replace_file
from fastgan.train.log import fail, say

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = "<!-- numbers -->", "<!-- /numbers -->"
NOTHING = (
    "Nothing has been measured yet. `fastgan bench all --out benchmarks/records` does, "
    "and `python -m benchmarks.readme_numbers` writes the numbers here."
)
# Benchmarks of single ops, in the order of the table.
_KERNELS = ("conv_transpose2d", "conv2d", "gradient_penalty", "spectral_norm", "bias_act")


def replace_block(readme: str, block: str) -> str:
    """`readme` with `block` between the markers.

    Raises:
        DataError: if it does not have each marker once, in order.
    """
    if readme.count(START) != 1 or readme.count(END) != 1 or readme.index(START) > readme.index(END):
        raise DataError(f"README.md must hold {START} and then {END}, each once")
    before, _, rest = readme.partition(START)
    return f"{before}{START}\n{block}\n{END}{rest.partition(END)[2]}"


def numbers(records: Mapping[Path, Record]) -> str:
    """The Markdown between the markers: what each kind of record says, from the newest that is not quick.

    Args:
        records: by path, the oldest first.
    """
    slow = {path: record for path, record in records.items() if not record.configuration.get("quick")}
    parts = [*_steps(slow), *_parallel(slow), *_kernels(slow), *_import_time(slow), *_digits(slow), *_precision(slow)]
    parts += _calibration(slow)
    return "\n".join(parts).strip() or NOTHING


def _newest(records: Mapping[Path, Record], benchmark: str) -> Iterator[tuple[Path, Record, list[Row]]]:
    """The newest record with rows of `benchmark` on each kind of device."""
    found: dict[str, tuple[Path, Record, list[Row]]] = {}
    for path, record in records.items():
        rows = [row for row in record.rows().rows if row.benchmark == benchmark]
        for device in {row.device for row in rows}:
            found[device] = path, record, [row for row in rows if row.device == device]
    yield from (found[device] for device in sorted(found))


def _steps(records: Mapping[Path, Record]) -> Iterator[str]:
    for path, record, rows in _newest(records, "train_step"):
        for case in dict.fromkeys(row.case for row in rows):
            yield from _step_table(_with_changes(case), [row for row in rows if row.case == case])
        yield from [*_sources({path: record}), ""]


def _with_changes(case: str) -> str:
    """The case, and what a preset that only the benchmarks know changes of which other one."""
    name, _, size = case.partition(",")
    if name not in VARIANTS:
        return case
    preset, changes = VARIANTS[name]
    keys = " ".join(f"`{change}`" for change in changes if not change.startswith("name="))
    return f"{name} ({preset} with {keys}),{size}"


def _step_table(case: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"Training steps, {case}:"
    yield ""
    yield "| step | images/s | 20th to 80th percentile | compared | peak memory |"
    yield "|---|---|---|---|---|"
    for row in rows:
        if row.time is None or row.num_items is None:
            yield f"| {row.provider} | {row.refused} | | | |"
            continue
        memory = row.process_peak_bytes if row.process_peak_bytes is not None else row.peak_memory_bytes
        yield f"| {' | '.join([*_speed(row, rows[0]), format_bytes(memory)])} |"
    yield ""


def _speed(row: Row, base: Row) -> tuple[str, ...]:
    """Provider, items per second with their spread, and how they compare; of a row with a time and items."""
    assert row.time is not None
    assert row.num_items is not None
    slow, fast = (row.num_items / milliseconds * 1e3 for milliseconds in (row.time.p80, row.time.p20))
    return row.provider, f"{row.items_per_second:,.0f}", f"{slow:,.0f} to {fast:,.0f}", format_ratio(row, base)


def _parallel(records: Mapping[Path, Record]) -> Iterator[str]:
    for path, record, rows in _newest(records, "parallel"):
        yield f"Training steps by engine, {rows[0].case}; the last three columns are those of one process:"
        yield ""
        yield "| engine | images/s | 20th to 80th percentile | compared | collectives | sent | tensors kept |"
        yield "|---|---|---|---|---|---|---|"
        for row in rows:
            if row.time is None or row.num_items is None:
                yield f"| {row.provider} | {row.refused} | | | | | |"
                continue
            sent = str(row.num_collectives), format_bytes(row.num_bytes_sent)
            yield f"| {' | '.join([*_speed(row, rows[0]), *sent, format_bytes(row.num_bytes_kept)])} |"
        yield from ["", *_sources({path: record}), ""]


def _kernels(records: Mapping[Path, Record]) -> Iterator[str]:
    """fastgan's fastest implementation of every case against PyTorch's fastest, a table for each kind of device."""
    found = [source for benchmark in _KERNELS for source in _newest(records, benchmark)]
    for device in sorted({rows[0].device for _, _, rows in found}):
        sources: dict[Path, Record] = {}
        lines: list[str] = []
        for path, record, rows in found:
            new = list(_kernel_lines(rows)) if rows[0].device == device else []
            lines += new
            sources |= {path: record} if new else {}
        if lines:
            yield "Single ops and losses, the fastest way of PyTorch's own against the fastest of fastgan:"
            yield ""
            if device == "cpu":
                yield "(Ops that run as plain PyTorch on a CPU have no line: but for the memory layout they would be"
                yield "compared with themselves. Their records have all layouts.)"
                yield ""
            yield "| op | case | PyTorch | fastgan | PyTorch | fastgan | compared |"
            yield "|---|---|---|---|---|---|---|"
            yield from [*lines, "", *_sources(sources), ""]


def _kernel_lines(rows: Sequence[Row]) -> Iterator[str]:
    """One for each case and number format in which both have a time."""
    for case, dtype in dict.fromkeys((row.case, row.dtype) for row in rows):
        timed = [row for row in rows if (row.case, row.dtype) == (case, dtype) and row.time is not None]
        theirs = [row for row in timed if not row.provider.startswith("fastgan")]
        ours = [row for row in timed if row.provider.startswith("fastgan")]
        # The reference of an op is plain PyTorch itself, where that stands beside it.
        if any(row.provider == "eager" for row in theirs):
            ours = [row for row in ours if row.provider != "fastgan reference"]
        if theirs and ours:
            yield _kernel_line(*(min(some, key=_median) for some in (theirs, ours)))


def _kernel_line(base: Row, best: Row) -> str:
    times = " | ".join(format_milliseconds(_median(row)) for row in (base, best))
    ways = f"{base.provider} | {best.provider.removeprefix('fastgan ')}"
    return f"| {base.benchmark} | {base.case}, {base.dtype} | {ways} | {times} | {format_ratio(best, base)} |"


def _median(row: Row) -> float:
    assert row.time is not None
    return row.time.p50


def _import_time(records: Mapping[Path, Record]) -> Iterator[str]:
    for path, record, rows in _newest(records, "import_time"):
        times = {row.provider: row.time.p50 for row in rows if row.time is not None}
        floor, imports, helps, torch = (format_milliseconds(milliseconds) for milliseconds in _starts(times))
        yield f"`import fastgan` takes {imports} on top of the {floor} of Python itself; in all, `fastgan --help` takes"
        yield f"{helps} and `import torch` {torch}."
        yield from [*_sources({path: record}), ""]


def _starts(times: Mapping[str, float]) -> tuple[float, float, float, float]:
    """Python alone, what `import fastgan` adds, the help, and torch."""
    floor = times["nothing"]
    return floor, max(times["import fastgan"] - floor, 0.0), times["fastgan --help"], times["import torch"]


def _digits(records: Mapping[Path, Record]) -> Iterator[str]:
    scores = [(path, record) for path, record in records.items() if record.benchmark == "digits_quality"]
    for path, record in scores[-1:]:
        facts = record.figures
        generated, real = f"{facts['num_generated']:,} generated digits", f"{facts['num_real']:,} real ones"
        images = f"{facts['images_seen']:,} images"
        yield f"Fréchet distance of {generated} from {real}, after {images}: {facts['frechet_distance']:.2f}."
        ours, floor = facts["frechet_distance_half"], facts["frechet_floor_half"]
        half = f"{facts['num_half']:,}"
        yield f"Between samples of {half} it is {ours:.2f}; the floor, real from other real ones, {floor:.2f}."
        yield "The features are those of a digit classifier trained here; the score is no FID of other projects."
        yield from [*_sources({path: record}), ""]


def _precision(records: Mapping[Path, Record]) -> Iterator[str]:
    runs = [(path, record) for path, record in records.items() if record.benchmark == "wgan_gp_precision"]
    for path, record in runs[-1:]:
        scores: dict[str, list[str]] = {}
        for run in record.figures["runs"]:
            scores.setdefault(run["precision"], []).append(f"{run['frechet_distance']:.1f}")
        found = " and ".join(f"{', '.join(values)} in {precision}" for precision, values in scores.items())
        images = f"{record.configuration['total_images']:,} images"
        yield f"WGAN-GP by number format, Fréchet distance after {images}, narrow networks, one run per seed: {found}"
        yield "([curves](benchmarks/reports/wgan_gp_precision.png))."
        yield from [*_sources({path: record}), ""]


def _calibration(records: Mapping[Path, Record]) -> Iterator[str]:
    runs = [(path, record) for path, record in records.items() if record.benchmark == "calibrate_simulator"]
    for path, record in runs[-1:]:
        found = record.figures["runs"]
        texts = [f"{run['predicted']:.1f} ms for {run['measured']:.1f} ms on {run['num_ranks']}" for run in found]
        yield f"The simulator predicts a training step from its parts and the link: {', '.join(texts)} ranks that share"
        yield f"the cores; errors {', '.join(format(run['error'], '+.0%') for run in found)}."
        yield from [*_sources({path: record}), ""]


def _sources(records: Mapping[Path, Record]) -> Iterator[str]:
    """One line per machine and commit, with the records that come from there."""
    links: dict[str, list[str]] = {}
    for path, record in records.items():
        commit, dirty, _ = (record.environment.get("git_commit") or "unknown").partition("-dirty")
        origin = f"{machine_line(record.environment)}; commit {commit[:10]}{dirty}"
        links.setdefault(origin, []).append(f"[{path.stem}](benchmarks/records/{path.name})")
    for origin, names in links.items():
        yield f"({', '.join(names)}: {origin})"


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme_numbers", description=__doc__)
    parser.parse_args()
    try:
        text = README.read_text(encoding="utf-8")
        replace_file(README, replace_block(text, numbers(read_records(RECORDS_DIR))).encode())
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    say(f"{README.name}: numbers from {RECORDS_DIR.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
