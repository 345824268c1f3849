"""How long fastgan takes to start: `python -m benchmarks.import_time`. Each sample is a new interpreter."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import CpuStopwatch
from benchmarks.record import require_writable, write_record
from benchmarks.rows import Figures, Row
from benchmarks.runner import DEFAULT_OUT
from benchmarks.text import row_line
from benchmarks.timing import Settings, interleave
from fastgan.errors import FastganError
from fastgan.train.log import fail, say

ROOT = Path(__file__).resolve().parents[1]
# What a fresh interpreter runs. The first is the floor: what Python itself takes.
PROGRAMS = {
    "nothing": ["-c", "pass"],
    "import fastgan": ["-c", "import fastgan"],
    "fastgan --help": ["-m", "fastgan", "--help"],
    "import torch": ["-c", "import torch"],
}
_FULL = Settings(min_rounds=15, max_rounds=15, num_warmup_calls=1, min_sample_seconds=0)
_QUICK = _FULL._replace(min_rounds=3, max_rounds=3)


def measure(*, is_quick: bool) -> Figures:
    """One row for each of PROGRAMS."""
    calls = {name: _starter(arguments) for name, arguments in PROGRAMS.items()}
    samples = interleave(calls, CpuStopwatch(), _QUICK if is_quick else _FULL)
    rows = [
        Row(benchmark="import_time", case="a new interpreter", provider=name, device="cpu", dtype="-", time=time)
        for name, (time, _) in samples.items()
    ]
    return Figures(rows=tuple(rows))


def _starter(arguments: list[str]) -> Callable[[int], object]:
    command = [sys.executable, *arguments]
    return lambda _: subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_time", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the record (%(default)s)")
    arguments = parser.parse_args()
    try:
        require_writable(arguments.out)
        figures = measure(is_quick=arguments.quick)
        for row in figures.rows:
            say(row_line(row, base=row))
        configuration = {"quick": arguments.quick}
        facts = figures.model_dump(mode="json", exclude_none=True)
        say(f"record: {write_record('import_time', facts, configuration=configuration, records_dir=arguments.out)}")
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
