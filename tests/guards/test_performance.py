"""What a training step asks of torch equals committed numbers: a slowdown shows without a clock.

The numbers hold for one version of torch, the one that constraints.txt pins: others decompose operators differently.
"""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.op_counts import Counts, count_ops
from benchmarks.step_providers import RandomImages
from fastgan.train.build import build_schedule, build_state
from fastgan.train.config import RunConfig
from fastgan.train.step import TrainStep
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
# The first steps also make the optimizers' state.
_NUM_WARMUP_STEPS = 2


def pinned_torch() -> str:
    """The version that the numbers were written with."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


def step_counts() -> dict[str, dict[str, int]]:
    """Counts of a step with R1 and of one without."""
    config = RunConfig.model_validate(CONFIG)
    device = torch.device("cpu")
    state = build_state(config, num_classes=0, dtype=torch.float32, device=device)
    schedule = build_schedule(config)
    images = RandomImages(config, device, torch.channels_last)
    step = TrainStep(
        state, loader=images, seed=0, latent_dim=config.generator.latent_dim, ema=config.ema, device=device
    )

    def run() -> None:
        step.run(schedule.plan(state.schedule))
        state.schedule = schedule.advance(state.schedule)

    for _ in range(_NUM_WARMUP_STEPS):
        run()
    return {name: count_ops(run)._asdict() for name in ("step with R1", "step without a penalty")}


def write_numbers() -> None:
    """Replaces the committed numbers."""
    NUMBERS.write_text(json.dumps(step_counts(), indent=2) + "\n", encoding="utf-8")


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
    assert written.keys() == {"step with R1", "step without a penalty"}
    assert all(counts.keys() == set(Counts._fields) for counts in written.values())


def test_a_collective_is_counted(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        counts = count_ops(lambda: torch.distributed.all_reduce(torch.ones(6)))
    finally:
        torch.distributed.destroy_process_group()
    assert (counts.num_collectives, counts.num_bytes_sent) == (1, 24)


if __name__ == "__main__":
    write_numbers()
