"""From the command line of a benchmark to lines on the terminal and a record."""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.ceilings import TF32, measure_ceilings
from benchmarks.compare import compare_rows, environment_differences
from benchmarks.gate import WRONG
from benchmarks.harness import Case, measure_cases
from benchmarks.machine import computes_bf16, default_device, gpu_clocks
from benchmarks.record import Record, read_record, require_writable, write_record
from benchmarks.rows import Ceilings, Figures, Row
from benchmarks.stop import StoppedError, stop_signals_raise
from benchmarks.text import row_line
from benchmarks.timing import FULL, QUICK
from fastgan.errors import ConfigError, DataError, FastganError
from fastgan.train.log import fail, say, warn

DEFAULT_OUT = Path("runs/bench")


class Options(NamedTuple):
    """What all benchmarks can be told.

    is_quick: few samples of few small cases; its figures show that it works, not how fast it is.
    seconds: no case begins later; None is no limit.
    out: folder of the record. compare: an earlier record.
    """

    device: torch.device
    is_quick: bool = False
    seconds: float | None = None
    out: Path = DEFAULT_OUT
    compare: Path | None = None


# The cases of a benchmark, the most important ones first.
MakeCases = Callable[[Options], Iterator[Case]]
# More rows for a case that has been measured, such as what takes a process of its own.
Finish = Callable[[Row], Row]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `read_options` reads."""
    parser.add_argument("--quick", action="store_true", help="few samples of few small cases")
    parser.add_argument("--seconds", type=float, help="begin no case after so many seconds")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the record (%(default)s)")
    parser.add_argument("--compare", type=Path, metavar="RECORD", help="mark what became slower since RECORD")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def read_options(arguments: argparse.Namespace) -> Options:
    """Raises ConfigError for a device that is not there and for seconds that are no time."""
    if arguments.seconds is not None and not 0 < arguments.seconds < math.inf:
        raise ConfigError(f"--seconds {arguments.seconds:g} must be a positive number; leave it out for no limit")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda, but torch sees no CUDA device; run `fastgan doctor`, or leave it out")
    device = torch.device(arguments.device) if arguments.device else default_device()
    return Options(device, arguments.quick, arguments.seconds, arguments.out, arguments.compare)


def run_benchmarks(
    title: str,
    benchmarks: Mapping[str, MakeCases],
    options: Options,
    *,
    module: str,
    finish: Finish = lambda row: row,
) -> Path:
    """Measures the cases of all `benchmarks`, says each row, and writes one record.

    Args:
        title: part of the record's name, whose path is returned.
        module: that was run, within the folder of benchmarks.
    Raises:
        DataError: if `options.compare` is no record with rows of these benchmarks, or `options.out` cannot be written.
        Exception: of a benchmark that cannot make its cases, once the record of those before it is written.
    """
    # Looked at first: an hour later would be late.
    require_writable(options.out)
    earlier = None if options.compare is None else _comparable(options.compare, benchmarks)
    clocks = [gpu_clocks()]
    found = measure(benchmarks, options, finish=finish)
    clocks.append(gpu_clocks())
    configuration = {
        "benchmarks": list(benchmarks),
        "device": options.device.type,
        "quick": options.is_quick,
        "complete": found.is_complete,
        "gpu_clocks_before_and_after": clocks,
    }
    facts = found.figures.model_dump(mode="json", exclude_none=True)
    path = write_record(title, facts, configuration=configuration, records_dir=options.out, module=module)
    say(f"record: {path}")
    _say_notes(found.figures.rows)
    if earlier is not None:
        _say_comparison(earlier, read_record(path))
    if found.error is not None:
        raise found.error
    return path


class Measured(NamedTuple):
    """What has been found, whether no case was left out, and what ended it early, if that was no signal."""

    figures: Figures
    is_complete: bool
    error: Exception | None = None


def measure(benchmarks: Mapping[str, MakeCases], options: Options, *, finish: Finish = lambda row: row) -> Measured:
    """The rows of all benchmarks, each said as it comes, with the ceilings.

    A signal or an error ends it early with the rows that it has.
    """
    ends = math.inf if options.seconds is None else time.monotonic() + options.seconds
    rows: list[Row] = []
    ceilings: Ceilings | None = None
    is_complete, error = False, None

    def on_rows(measured: list[Row]) -> None:
        rows.extend(measured)
        for row in measured:
            say(row_line(row, base=measured[0]))

    try:
        with stop_signals_raise():
            ceilings = measure_ceilings(options.device, formats=_formats(options), is_quick=options.is_quick)
            say(_ceilings_line(ceilings))
            if options.device.type == "cpu":
                say("measured on a CPU: these times mean nothing for GPUs")
            is_complete = measure_cases(
                itertools.chain.from_iterable(make_cases(options) for make_cases in benchmarks.values()),
                QUICK if options.is_quick else FULL,
                ceilings=ceilings,
                finish=finish,
                on_rows=on_rows,
                is_over=lambda: time.monotonic() > ends,
            )
    except StoppedError as name:
        warn(f"{name} has ended the measurement early")
    except Exception as failure:  # the caller raises it again
        error = failure
    return Measured(Figures(rows=tuple(rows), ceilings=ceilings), is_complete, error)


def _comparable(path: Path, benchmarks: Iterable[str]) -> Record:
    record = read_record(path)
    measured = dict.fromkeys(row.benchmark for row in record.rows().rows)
    if not measured:
        raise DataError(f"--compare {path} holds no rows; give a record that `fastgan bench` wrote")
    if not measured.keys() & set(benchmarks):
        now = ", ".join(benchmarks)
        raise DataError(f"--compare {path} holds {', '.join(measured)} and nothing of {now}; measure the same")
    return record


def _say_notes(rows: Sequence[Row]) -> None:
    if not rows:
        say("note: no case has been measured")
    num_wrong = sum((row.refused or "").startswith(WRONG) for row in rows)
    if num_wrong:
        say(f"note: {num_wrong} of {len(rows)} rows have no time, because their result is wrong")


def _say_comparison(earlier: Record, now: Record) -> None:
    for difference in environment_differences(earlier, now):
        warn(difference)
    for line in compare_rows(earlier.rows().rows, now.rows().rows):
        say(line)


def main_of(name: str, make_cases: MakeCases, *, description: str) -> int:
    """The command line of the module bench_NAME; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.bench_{name}", description=description)
    add_options(parser)
    try:
        run_benchmarks(name, {name: make_cases}, read_options(parser.parse_args()), module=f"bench_{name}")
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    return 0


def _formats(options: Options) -> tuple[str, ...]:
    """Emulated, a single product of bf16 matrices takes many seconds; TF32 is a GPU's."""
    formats = ("bf16", "fp32") if computes_bf16(options.device) else ("fp32",)
    return (*formats, TF32) if options.device.type == "cuda" else formats


def _ceilings_line(ceilings: Ceilings) -> str:
    products = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in ceilings.matmul_flops_per_second.items())
    return f"ceilings: copy {ceilings.copy_bytes_per_second / 1e9:,.1f} GB/s, matrix product {products} GFLOP/s"
