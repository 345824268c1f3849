"""One process of a parallel engine that is measured: `python -m benchmarks.parallel_worker`, started by bench_parallel.

Rank 0 reads one command per line and hands it to all ranks; it answers with one line of JSON. The end of its input is
the command to end.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.baselines.bare_ddp import BareDdpStep
from benchmarks.op_counts import count_ops
from benchmarks.step_providers import RandomImages, steps_per_period
from benchmarks.train_step import load_preset
from fastgan.dist import World, process_group, sum_over_ranks, world_from_environment
from fastgan.errors import FastganError
from fastgan.train.agreement import Agreement
from fastgan.train.build import build_state
from fastgan.train.build_schedule import build_schedule
from fastgan.train.config import RunConfig
from fastgan.train.log import fail, say
from fastgan.train.precision import choose_device
from fastgan.train.step_choice import step_class

PERIOD, COUNT, KEPT, END = "period", "count", "kept", "end"
# What the first step says of itself must be the same under every engine.
COMPARED = ("loss_discriminator", "loss_generator")
# Before every answer: libraries write to the same stream.
MARK = "@@ "
# Its ranks wait for the next command while all others are started.
_TIMEOUT_SECONDS = 900.0


def serve(config: RunConfig, step: Callable[[], dict[str, float]], *, world: World, device: torch.device) -> None:
    """Says the first step's losses, and obeys commands until the end."""
    _answer(world, step())
    while (command := _next_command(world)) != END:
        if command == COUNT:
            _answer(world, count_ops(step)._asdict())
            continue
        if command == KEPT:
            _answer(world, {"num_bytes": living_tensor_bytes()})
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
    step = step_class(schedule)(
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


def make_bare_step(config: RunConfig, world: World, device: torch.device) -> Callable[[], dict[str, float]]:
    """As `make_step`, of the loop without fastgan's machinery."""
    images = RandomImages(config, device, torch.channels_last)
    step = BareDdpStep(
        config, world=world, draw_images=lambda first, number: images.batch(first, number).images, device=device
    )

    def make() -> dict[str, float]:
        losses = step.run()
        if step.num_updates > 1:
            return {}
        sums = sum_over_ranks(world, torch.stack([losses[name].double() for name in COMPARED]))
        return dict(zip(COMPARED, (sums / world.num_ranks).tolist(), strict=True))

    return make


def living_tensor_bytes() -> int:
    """Memory of the floating-point tensors of this process: weights, gradients, optimizer state, images.

    Bytes are messages to other ranks, which live until they have been sent.
    """
    # `isinstance` would ask objects for their class, at which deprecated ones warn.
    found: list[Tensor] = [x for x in gc.get_objects() if issubclass(type(x), Tensor)]
    found += [x.grad for x in found if x.is_leaf and x.grad is not None]
    # A sharded tensor is a description of the whole and holds its part.
    parts = [getattr(x, "_local_tensor", x) for x in found]
    # Other subclasses, such as those that a compiler leaves behind, have no memory.
    plain = [x for x in parts if type(x) in {Tensor, torch.nn.Parameter}]
    held = [x for x in plain if x.is_floating_point() and x.device.type != "meta" and x.layout is torch.strided]
    storages = [x.untyped_storage() for x in held]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


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
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what differs from the preset digits")
    parser.add_argument("--penalty-mode", default="double", help="of all penalties (double)")
    parser.add_argument("--bare-ddp", action="store_true", help="torch's DDP without fastgan's machinery")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    try:
        config = load_preset("digits", is_quick=arguments.quick, overrides=arguments.overrides)
        penalties = tuple(penalty.model_copy(update={"mode": arguments.penalty_mode}) for penalty in config.penalties)
        config = config.model_copy(update={"penalties": penalties})
        world = world_from_environment()
        device = choose_device(arguments.device, world)
        with process_group(world, device=device, timeout_seconds=_TIMEOUT_SECONDS):
            make = make_bare_step if arguments.bare_ddp else make_step
            serve(config, make(config, world, device), world=world, device=device)
    except FastganError as error:
        fail(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
