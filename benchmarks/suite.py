"""All benchmarks by name: `python -m benchmarks.suite kernels|step|data|parallel|all`, which is `fastgan bench`.

Beside its record it leaves a report of all records in the same folder, and draws what has not been drawn yet.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import (
    bench_bias_act,
    bench_compiled_step,
    bench_conv2d,
    bench_conv_transpose2d,
    bench_data,
    bench_gradient_penalty,
    bench_parallel,
    bench_policies,
    bench_spectral_norm,
    bench_step_parts,
    train_step,
)
from benchmarks.record import read_records
from benchmarks.report import write_report
from benchmarks.runner import MakeCases, add_options, read_options, run_benchmarks
from fastgan.errors import FastganError
from fastgan.train.log import fail, say

# The most important ones first: a run that is cut short has those.
KERNELS: dict[str, MakeCases] = {
    "conv_transpose2d": bench_conv_transpose2d.cases,
    "conv2d": bench_conv2d.cases,
    "gradient_penalty": bench_gradient_penalty.cases,
    "spectral_norm": bench_spectral_norm.cases,
    "bias_act": bench_bias_act.cases,
}
TARGETS: dict[str, dict[str, MakeCases]] = {
    "kernels": KERNELS,
    "step": {
        "train_step": train_step.cases,
        "policies": bench_policies.cases,
        "step_parts": bench_step_parts.cases,
        "compiled_step": bench_compiled_step.cases,
    },
    "data": {"data": bench_data.cases},
    "parallel": {"parallel": bench_parallel.cases},
}
TARGETS["all"] = {name: cases for target in TARGETS.values() for name, cases in target.items()}
BENCHMARKS = TARGETS["all"]
CHOICES = tuple(dict.fromkeys((*TARGETS, *BENCHMARKS)))


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("target", choices=CHOICES, help="a group of benchmarks, or one of them")
    add_options(parser)
    arguments = parser.parse_args()
    target = arguments.target
    try:
        options = read_options(arguments)
        read_records(options.out)  # what is no record would spoil the report, after all has been measured
        run_benchmarks(
            f"bench-{target}",
            TARGETS.get(target) or {target: BENCHMARKS[target]},
            options,
            module="suite",
            finish=(lambda row: row) if options.is_quick else train_step.with_process_memory,
        )
        records = read_records(options.out)
        # A run may have ended before its first case.
        if any(record.rows().rows for record in records.values()):
            say(f"report: {write_report(records, options.out / 'report', redraw=False)}")
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        # Ctrl-C while cases are measured ends them early; here it came before or after, where records are whole.
        fail(f"stopped; records stay in {arguments.out}, and `fastgan bench report {arguments.out}` makes their report")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
