"""The simulator against the clock: `python -m benchmarks.calibrate_simulator` predicts what it then measures.

For 1, 2 and 4 ranks on this machine: the parts of a training step, each measured with all ranks busy, and a small and a
large all-reduce give the simulator's costs; its prediction of a step is held against the step itself, measured in turns
with them. The ranks have one thread each and share the cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench_parallel import environments
from benchmarks.calibration_worker import LARGE, LARGE_BYTES, SMALL, SMALL_BYTES, STEP
from benchmarks.parallel_worker import MARK
from benchmarks.record import RECORDS_DIR, require_writable, write_record
from benchmarks.step_providers import steps_per_period
from benchmarks.train_step import load_preset
from fastgan.errors import FastganError, TrainingError
from fastgan.simulate import CostModel, Fabric, simulate
from fastgan.simulate.record import parts_from_times
from fastgan.train.build import build_networks
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import RunConfig
from fastgan.train.log import fail, say

ROOT = Path(__file__).resolve().parents[1]
NUM_RANKS = (1, 2, 4)
_NUM_ROUNDS, _NUM_QUICK_ROUNDS = 15, 2


class Link(NamedTuple):
    """Seconds of a message and bytes per second of a rank, from two all-reduces in a ring."""

    latency_seconds: float
    bytes_per_second: float


class Found(NamedTuple):
    """milliseconds of a step. error: of the prediction, relative to what was measured."""

    num_ranks: int
    measured: float
    predicted: float
    link: Link | None

    @property
    def error(self) -> float:
        """Above 0 where the simulator expects a slower step."""
        return self.predicted / self.measured - 1


def link_of(seconds: Mapping[str, float], *, num_ranks: int) -> Link | None:
    """What makes a ring take as long as it did; None for one rank alone."""
    if num_ranks == 1:
        return None
    messages = 2 * (num_ranks - 1)
    rate = (LARGE_BYTES - SMALL_BYTES) / num_ranks * messages / max(seconds[LARGE] - seconds[SMALL], 1e-9)
    return Link(max(seconds[SMALL] / messages - SMALL_BYTES / num_ranks / rate, 0.0), rate)


def predict(config: RunConfig, seconds: Mapping[str, float], *, num_ranks: int) -> float:
    """Mean seconds of a step over one period of the lazy penalties.

    Args:
        seconds: medians by the names of `benchmarks.calibration_worker.calls`.
    """
    times: dict[str, dict[int, float]] = {}
    for name, value in seconds.items():
        part, at, num_images = name.partition(" @ ")
        if at:
            times.setdefault(part, {})[int(num_images)] = value
    networks = dict(zip(("generator", "discriminator"), build_networks(config, device="meta"), strict=True))
    sizes = {name: 4.0 * sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    link = link_of(seconds, num_ranks=num_ranks) or Link(0.0, 1.0)
    cost = CostModel(
        parts=parts_from_times(times),
        gradient_bytes=sizes,
        fabric=Fabric(
            gpus_per_node=num_ranks,
            intra_bytes_per_second=link.bytes_per_second,
            inter_bytes_per_second=link.bytes_per_second,
            intra_latency_seconds=link.latency_seconds,
            algorithm="ring",
        ),
        hides_reduction=False,
    )
    policy = build_schedule(config, num_ranks=num_ranks)
    # The first and the last step have one neighbour only.
    found = simulate(policy, cost, num_steps=steps_per_period(config) + 2, overlapped=False)
    return float(found.step_seconds[1:-1].mean())


def calibrate(num_ranks: int, *, is_quick: bool) -> tuple[Found, dict[str, float]]:
    """Starts the ranks; what they found, and the medians of all that was measured, in seconds."""
    config = load_preset("digits", is_quick=is_quick)
    seconds = _run_ranks(num_ranks, is_quick=is_quick)
    measured = seconds[STEP] / steps_per_period(config)
    predicted = predict(config, seconds, num_ranks=num_ranks)
    return Found(num_ranks, 1e3 * measured, 1e3 * predicted, link_of(seconds, num_ranks=num_ranks)), seconds


def _run_ranks(num_ranks: int, *, is_quick: bool) -> dict[str, float]:
    rounds = _NUM_QUICK_ROUNDS if is_quick else _NUM_ROUNDS
    command = [sys.executable, "-m", "benchmarks.calibration_worker", "--rounds", str(rounds)]
    command += ["--quick"] if is_quick else []
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for environment in environments(num_ranks, is_launched=num_ranks > 1)
    ]
    # A rank that fails ends the others, which wait for it no longer than a timeout.
    said = [process.communicate() for process in processes]
    for process, (_, complaint) in zip(processes, said, strict=True):
        if process.returncode:
            last = (complaint.strip().splitlines() or ["no message"])[-1]
            raise TrainingError(f"a rank of {num_ranks} failed: {last}")
    (line,) = (line for line in said[0][0].splitlines() if line.startswith(MARK))
    seconds: dict[str, float] = json.loads(line.removeprefix(MARK))
    return seconds


def text_of(found: Found) -> str:
    """One line."""
    link = found.link
    by = f"; link {1e6 * link.latency_seconds:.0f} us, {link.bytes_per_second / 1e6:,.0f} MB/s" if link else ""
    ranks = f"{found.num_ranks} rank{'s' if found.num_ranks > 1 else ''}"
    times = f"measured {found.measured:.1f} ms, predicted {found.predicted:.1f} ms"
    return f"{ranks}: {times}, error {found.error:+.1%}{by}"


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate_simulator", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small batches and few samples: shows that it works")
    parser.add_argument("--out", type=Path, default=RECORDS_DIR, help="folder of the record (%(default)s)")
    arguments = parser.parse_args()
    runs = []
    try:
        require_writable(arguments.out)
        for num_ranks in NUM_RANKS:
            found, seconds = calibrate(num_ranks, is_quick=arguments.quick)
            say(text_of(found))
            milliseconds = {name: 1e3 * value for name, value in seconds.items()}
            link = {} if found.link is None else found.link._asdict()
            runs.append(found._asdict() | {"link": link, "error": found.error, "medians_milliseconds": milliseconds})
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    configuration = {"preset": "digits", "engine": "flat", "threads_per_rank": 1, "quick": arguments.quick}
    path = write_record("calibrate_simulator", {"runs": runs}, configuration=configuration, records_dir=arguments.out)
    say(f"record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
