"""One rank of the simulator's calibration: `python -m benchmarks.calibration_worker`, started by calibrate_simulator.

All ranks measure the same thing at the same time, so that a part takes what it takes when the other ranks compute, too.
Rank 0 prints the medians as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist

from benchmarks.bench_step_parts import Part, part_names
from benchmarks.parallel_worker import MARK, make_step
from benchmarks.step_providers import steps_per_period
from benchmarks.train_step import load_preset
from fastgan.dist import World, max_integers, process_group, world_from_environment
from fastgan.train.config import RunConfig
from fastgan.train.log import say

STEP, SMALL, LARGE = "step", "small all-reduce", "large all-reduce"
SMALL_BYTES, LARGE_BYTES = 64, 1 << 20
# The small batch is so many times smaller than that of a rank.
_RATIO = 4
# A sample is at least so long: the ranks wait for each other before and after it.
_SAMPLE_SECONDS = 0.03
_TIMEOUT_SECONDS = 120.0
_CPU = torch.device("cpu")


def calls(config: RunConfig, world: World) -> dict[str, Callable[[], object]]:
    """What is measured, by name: a period of steps, all-reduces, each part at two batch sizes as "PART @ IMAGES"."""
    step = make_step(config, world, _CPU)
    found: dict[str, Callable[[], object]] = {STEP: lambda: [step() for _ in range(steps_per_period(config))]}
    if world.num_ranks > 1:
        small, large = torch.zeros(SMALL_BYTES, dtype=torch.uint8), torch.zeros(LARGE_BYTES // 4)
        found |= {SMALL: lambda: dist.all_reduce(small), LARGE: lambda: dist.all_reduce(large)}
    mine = config.batch_images // world.num_ranks
    for num_images in (mine, mine // _RATIO):
        alone = {"batch_images": num_images, "parallel": config.parallel.model_copy(update={"engine": "single"})}
        for name in part_names(config):
            part = Part(config.model_copy(update=alone), _CPU, name, dtype=torch.float32)
            found[f"{name} @ {num_images}"] = part
    return found


def measure(found: Mapping[str, Callable[[], object]], world: World, *, num_rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each, one sample in each round."""
    repeats = {}
    for name, call in found.items():
        call()
        _together(call, world, repeats=1)
        seconds = _together(call, world, repeats=1)
        (microseconds,) = max_integers(world, [round(1e6 * seconds)])
        repeats[name] = max(1, round(1e6 * _SAMPLE_SECONDS / max(1, microseconds)))
    samples: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(num_rounds):
        for name, call in found.items():
            samples[name].append(_together(call, world, repeats=repeats[name]))
    return samples


def _together(call: Callable[[], object], world: World, *, repeats: int) -> float:
    """Seconds per call, from when all ranks are ready to when all are done."""
    _barrier(world)
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    _barrier(world)
    return (time.perf_counter() - began) / repeats


def _barrier(world: World) -> None:
    if world.num_ranks > 1:
        dist.barrier()


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration_worker", description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = world_from_environment()
    engine = "flat" if world.num_ranks > 1 else "single"
    config = load_preset("digits", is_quick=arguments.quick, overrides=[f"parallel.engine={engine}"])
    with process_group(world, device=_CPU, timeout_seconds=_TIMEOUT_SECONDS):
        samples = measure(calls(config, world), world, num_rounds=arguments.rounds)
    if world.is_main:
        say(MARK + json.dumps({name: statistics.median(seconds) for name, seconds in samples.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
