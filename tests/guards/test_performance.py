"""What a training step asks of torch equals committed numbers: a slowdown shows without a clock.

The numbers hold for one version of torch, the one that constraints.txt pins: others decompose operators differently.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks.op_counts import Counts, count_ops, count_own_ops
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
# The interpreter takes a second for what a GPU does in microseconds; the number of calls is the same.
TINY = {"batch_images": 1, "generator": {"latent_dim": 4, "channels": 2}, "discriminator": {"channels": 2}}
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


def kernel_counts() -> dict[str, dict[str, int]]:
    """Calls of each op that launches a kernel, where Triton serves all it can: on a CPU, in its interpreter."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = make_step(RunConfig.model_validate(CONFIG | TINY), ALONE, device)
    return {f"kernels, {kind}": count_own_ops(step) for kind in ("step with R1", "step without")}


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
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are first imported
    counts = step_counts()
    os.environ["FASTGAN_IMPL"] = "triton"
    NUMBERS.write_text(json.dumps(counts | kernel_counts(), indent=2) + "\n", encoding="utf-8")


def differences(counted: dict[str, dict[str, int]]) -> list[str]:
    """One sentence for each count that is not the written one."""
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    return [
        f"{name}: {count} was {written[name].get(count, 0):,} and is {counts.get(count, 0):,}"
        for name, counts in counted.items()
        for count in sorted(counts.keys() | written[name].keys())
        if counts.get(count, 0) != written[name].get(count, 0)
    ]


# A weight of one channel has strides that can be read in two ways.
@pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")
def test_a_step_asks_no_more_of_torch_than_before() -> None:
    if torch.__version__.split("+")[0] != pinned_torch():
        pytest.skip(f"the numbers hold for torch {pinned_torch()}, and this is {torch.__version__}")
    found = differences(step_counts())
    assert not found, "\n".join([UPDATE, *found])


@pytest.mark.slow
def test_a_step_launches_no_more_kernels_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTGAN_IMPL", "triton")
    found = differences(kernel_counts())
    assert not found, "\n".join([UPDATE, *found])


def test_a_difference_names_step_count_and_both_values() -> None:
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert differences(written) == []
    name = "kernels, step without"
    before = written[name]["conv2d"]
    assert differences({name: written[name] | {"conv2d": 1_000, "new": 1}}) == [
        f"{name}: conv2d was {before} and is 1,000",
        f"{name}: new was 0 and is 1",
    ]


def test_the_numbers_are_those_that_are_counted() -> None:
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    kinds = ("step with R1", "step without")
    assert written.keys() == {f"{name}, {kind}" for name in (*ENGINES, "kernels") for kind in kinds}
    assert written["ddp, step without"]["num_collectives"] > 0
    assert all(written[f"{engine}, {kind}"].keys() == set(Counts._fields) for engine in ENGINES for kind in kinds)


def test_a_collective_is_counted() -> None:
    with group_of_one(is_needed=True):
        counts = count_ops(lambda: torch.distributed.all_reduce(torch.ones(6)))
    assert (counts.num_collectives, counts.num_bytes_sent) == (1, 24)


if __name__ == "__main__":
    write_numbers()
