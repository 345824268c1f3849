"""From the command line of a benchmark to lines on the terminal and a record."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.ceilings import measure_ceilings
from benchmarks.compare import compare_rows, environment_differences
from benchmarks.harness import Case, measure_cases
from benchmarks.machine import computes_bf16, default_device, gpu_clocks
from benchmarks.record import Record, read_record, require_writable, write_record
from benchmarks.rows import Ceilings, Figures, Row
from benchmarks.text import row_line
from benchmarks.timing import FULL, QUICK
from fastgan.errors import ConfigError, FastganError
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
    """Raises ConfigError for a device that is not there."""
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
        title: part of the record's name.
        module: that was run, within the folder of benchmarks.
    Returns:
        The path of the record.
    Raises:
        DataError: if `options.compare` is no record, or `options.out` cannot be written.
    """
    # Looked at first: an hour later would be late.
    require_writable(options.out)
    earlier = None if options.compare is None else read_record(options.compare)
    clocks = [gpu_clocks()]
    figures, is_complete = measure(benchmarks, options, finish=finish)
    clocks.append(gpu_clocks())
    configuration = {
        "benchmarks": list(benchmarks),
        "device": options.device.type,
        "quick": options.is_quick,
        "complete": is_complete,
        "gpu_clocks_before_and_after": clocks,
    }
    facts = figures.model_dump(mode="json", exclude_none=True)
    path = write_record(title, facts, configuration=configuration, records_dir=options.out, module=module)
    say(f"record: {path}")
    if earlier is not None:
        _say_comparison(earlier, read_record(path))
    return path


def measure(
    benchmarks: Mapping[str, MakeCases], options: Options, *, finish: Finish = lambda row: row
) -> tuple[Figures, bool]:
    """The rows of all benchmarks, each said as it comes, with the ceilings; and whether no case was left out.

    SIGTERM ends it early with the rows that it has.
    """
    ends = math.inf if options.seconds is None else time.monotonic() + options.seconds
    ceilings = measure_ceilings(options.device, dtypes=_dtypes(options), is_quick=options.is_quick)
    say(_ceilings_line(ceilings))
    if options.device.type == "cpu":
        say("measured on a CPU: these times mean nothing for GPUs")
    rows: list[Row] = []

    def on_rows(measured: list[Row]) -> None:
        rows.extend(measured)
        for row in measured:
            say(row_line(row, base=measured[0]))

    try:
        with _sigterm_raises():
            is_complete = measure_cases(
                itertools.chain.from_iterable(make_cases(options) for make_cases in benchmarks.values()),
                QUICK if options.is_quick else FULL,
                ceilings=ceilings,
                finish=finish,
                on_rows=on_rows,
                is_over=lambda: time.monotonic() > ends,
            )
    except _TerminatedError:
        is_complete = False
    return Figures(rows=tuple(rows), ceilings=ceilings), is_complete


class _TerminatedError(BaseException):
    """SIGTERM has come. No Exception: a provider that fails must not swallow it."""


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within, SIGTERM raises _TerminatedError between two lines of Python; afterwards it means what it meant before."""

    def end(number: int, frame: object) -> None:
        del number, frame
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def _dtypes(options: Options) -> tuple[str, ...]:
    """Emulated, a single product of bf16 matrices takes many seconds."""
    return ("bf16", "fp32") if computes_bf16(options.device) else ("fp32",)


def _ceilings_line(ceilings: Ceilings) -> str:
    products = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in ceilings.matmul_flops_per_second.items())
    return f"ceilings: copy {ceilings.copy_bytes_per_second / 1e9:,.1f} GB/s, matrix product {products} GFLOP/s"
