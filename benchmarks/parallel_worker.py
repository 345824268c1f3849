"""One process of a parallel engine that is measured: `python -m benchmarks.parallel_worker`, started by bench_parallel.

Rank 0 reads one command per line and hands it to all ranks; it answers with one line of JSON. The end of its input is
the command to end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist

from benchmarks.op_counts import count_ops
from benchmarks.step_providers import RandomImages, steps_per_period
from benchmarks.train_step import load_preset
from fastgan.dist import World, process_group, world_from_environment
from fastgan.errors import FastganError
from fastgan.train.agreement import Agreement
from fastgan.train.build import build_schedule, build_state
from fastgan.train.config import RunConfig
from fastgan.train.log import fail, say
from fastgan.train.precision import choose_device
from fastgan.train.step import TrainStep

PERIOD, COUNT, END = "period", "count", "end"
# What the first step says of itself must be the same under every engine.
COMPARED = ("loss_discriminator", "loss_generator")
# Before every answer: libraries write to the same stream.
MARK = "@@ "
_TIMEOUT_SECONDS = 120.0


def serve(config: RunConfig, world: World, device: torch.device) -> None:
    """Builds the state, says the first step's losses, and obeys commands until the end."""
    step = make_step(config, world, device)
    _answer(world, step())
    while (command := _next_command(world)) != END:
        if command == COUNT:
            _answer(world, count_ops(step)._asdict())
            continue
        for _ in range(steps_per_period(config)):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        _answer(world, {})


def make_step(config: RunConfig, world: World, device: torch.device) -> Callable[[], dict[str, float]]:
    """A function that makes the next step and returns the losses of all ranks, which it waits for in its first call."""
    state = build_state(config, num_classes=0, dtype=torch.float32, device=device, world=world)
    schedule = build_schedule(config, num_ranks=world.num_ranks)
    step = TrainStep(
        state,
        loader=RandomImages(config, device, torch.channels_last),
        seed=config.seed,
        latent_dim=config.generator.latent_dim,
        ema=config.ema,
        device=device,
        agreement=Agreement(world, signal=lambda: 0),
    )

    def make() -> dict[str, float]:
        statistics = step.run(schedule.plan(state.schedule, world.rank))
        is_first = state.schedule.step == 0
        state.schedule = schedule.advance(state.schedule)
        if not is_first:
            return {}
        found = statistics.read(world)
        return {name: found[name] for name in COMPARED}

    return make


def _next_command(world: World) -> str:
    """The next line of rank 0, the same on all ranks."""
    found = [(sys.stdin.readline().strip() or END) if world.is_main else ""]
    if world.num_ranks > 1:
        dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
    return str(found[0])


def _answer(world: World, facts: dict[str, float] | dict[str, int]) -> None:
    if world.is_main:
        say(MARK + json.dumps(facts))


def main() -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel_worker", description=__doc__)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    try:
        config = load_preset("digits", is_quick=arguments.quick, overrides=[f"parallel.engine={arguments.engine}"])
        world = world_from_environment()
        device = choose_device(arguments.device, world)
        with process_group(world, device=device, timeout_seconds=_TIMEOUT_SECONDS):
            serve(config, world, device)
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
