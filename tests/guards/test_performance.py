"""What a training step asks of torch equals committed numbers: a slowdown shows without a clock.

The numbers hold for one version of torch, the one that constraints.txt pins: others decompose operators differently.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks.op_counts import Counts, count_ops
from benchmarks.parallel_worker import make_step
from fastgan.dist import ALONE, World
from fastgan.train.config import RunConfig
from tests.guards.tree import ROOT

NUMBERS = Path(__file__).with_name("performance.json")
UPDATE = "if the change is meant, write the new numbers with: python -m tests.guards.test_performance"
CONFIG = {
    "name": "guard",
    "total_images": 64,
    "batch_images": 4,
    "data": {"resolution": 32, "channels": 1},
    "generator": {"latent_dim": 16, "channels": 8},
    "discriminator": {"channels": 8},
    "objective": {"loss": "relativistic"},
    "penalties": [{"kind": "r1", "weight": 1.0, "every": 2}],
}
# Alone in its group, FSDP2 sends nothing, so there is nothing to guard.
ENGINES = ("single", "flat", "ddp")
# The first steps also make the optimizers' state.
_NUM_WARMUP_STEPS = 2


def pinned_torch() -> str:
    """The version that the numbers were written with."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


def step_counts() -> dict[str, dict[str, int]]:
    """Counts of a step with R1 and of one without, by engine; of engines that communicate, in a group of one rank."""
    counts = {}
    for engine in ENGINES:
        config = RunConfig.model_validate(CONFIG | {"parallel": {"engine": engine}})
        with group_of_one(is_needed=engine != "single") as world:
            step = make_step(config, world, torch.device("cpu"))
            for _ in range(_NUM_WARMUP_STEPS):
                step()
            counts |= {f"{engine}, {kind}": count_ops(step)._asdict() for kind in ("step with R1", "step without")}
    return counts


@contextmanager
def group_of_one(*, is_needed: bool) -> Iterator[World]:
    """A process group with this process alone in it, while entered."""
    if not is_needed:
        yield ALONE
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.FileStore(f"{folder}/store", 1), rank=0, world_size=1
        )
        try:
            yield World(is_launched=True)
        finally:
            torch.distributed.destroy_process_group()


def write_numbers() -> None:
    """Replaces the committed numbers."""
    NUMBERS.write_text(json.dumps(step_counts(), indent=2) + "\n", encoding="utf-8")


# A weight of one channel has strides that can be read in two ways.
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
def test_a_step_asks_no_more_of_torch_than_before() -> None:
    if torch.__version__.split("+")[0] != pinned_torch():
        pytest.skip(f"the numbers hold for torch {pinned_torch()}, and this is {torch.__version__}")
    written, counted = json.loads(NUMBERS.read_text(encoding="utf-8")), step_counts()
    found = [
        f"{name}: {count} was {written[name][count]:,} and is {value:,}"
        for name, counts in counted.items()
        for count, value in counts.items()
        if value != written[name][count]
    ]
    assert not found, "\n".join([UPDATE, *found])


def test_the_numbers_are_those_that_are_counted() -> None:
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert written.keys() == {f"{engine}, {kind}" for engine in ENGINES for kind in ("step with R1", "step without")}
    assert written["ddp, step without"]["num_collectives"] > 0
    assert all(counts.keys() == set(Counts._fields) for counts in written.values())


def test_a_collective_is_counted() -> None:
    with group_of_one(is_needed=True):
        counts = count_ops(lambda: torch.distributed.all_reduce(torch.ones(6)))
    assert (counts.num_collectives, counts.num_bytes_sent) == (1, 24)


if __name__ == "__main__":
    write_numbers()
