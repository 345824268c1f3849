"""What a training step asks of torch and which kernels it launches equal committed numbers: a slowdown shows without a
clock.

The numbers hold for one version of torch, the one that constraints.txt pins: others decompose operators differently.
"""

import importlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from benchmarks.op_counts import Counts, count_ops
from benchmarks.parallel_worker import make_step
from fastgan.dist import ALONE, World
from fastgan.train.config import RunConfig
from tests.guards.tree import ROOT
from tests.kernels.ledger import ARCHITECTURES, LEDGER

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
# All that has kernels: two kinds of penalties, and spectral norm of both networks.
WITH_KERNELS = {
    "penalties": [{"kind": kind, "weight": 1.0, "every": 2} for kind in ("r1", "wgan_gp")],
    "generator": {"latent_dim": 16, "channels": 8, "spectral_norm": True},
    "discriminator": {"channels": 8, "spectral_norm": True},
}
STEPS = ("step with R1", "step without")
# Copy engines are only found on a GPU; every activation of these networks follows a convolution, which contains it.
NOT_IN_THE_STEP = {"conv_transpose2d_tma_kernel", "conv2d_tma_kernel", "partial_sums_tma_kernel", "bias_act_kernel"}
KERNEL_STEPS = ("step with penalties", "step without")
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
            counts |= {f"{engine}, {kind}": count_ops(step)._asdict() for kind in STEPS}
    return counts


def kernel_counts() -> dict[str, dict[str, int]]:
    """Launches of each kernel where Triton serves all it can. Nothing is computed, so a CPU counts as fast as a GPU."""
    # Both kinds of ops are told that there is an interpreter, and never get to see whether there is.
    with mock.patch.dict(os.environ, {"FASTGAN_IMPL": "triton", "TRITON_INTERPRET": "1"}), forced_native_ops():
        step = make_step(RunConfig.model_validate(CONFIG | WITH_KERNELS), ALONE, torch.device("cpu"))
        return {f"kernels, {kind}": count_launches(step) for kind in KERNEL_STEPS}


@contextmanager
def forced_native_ops() -> Iterator[None]:
    """The ops that may run in csrc/ run by Triton."""
    with ExitStack() as stack:
        # By name: `fastgan.ops` has functions that are called like these modules.
        for name in ("spectral_norm", "gradient_penalty"):
            module = importlib.import_module(f"fastgan.ops.{name}")
            stack.enter_context(mock.patch.object(module, "choose_native", by_triton))
        yield


def by_triton(op: str, impl: str, like: torch.Tensor) -> str:
    """As `choose_native`."""
    del op, impl, like
    return "triton"


def count_launches(step: Callable[[], object]) -> dict[str, int]:
    """Launches of each kernel in one step, by name; instead of running, they are counted."""
    from triton.runtime.jit import KernelInterface

    launches: Counter[str] = Counter()

    def launcher(kernel: Any, grid: object) -> Callable[..., None]:
        del grid
        return lambda *args, **kwargs: launches.update([kernel.fn.__name__])

    with mock.patch.object(KernelInterface, "__getitem__", launcher):
        step()
    return dict(sorted(launches.items()))


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
    os.environ["TRITON_INTERPRET"] = "1"  # as in all tests; read when Triton is first imported
    NUMBERS.write_text(json.dumps(step_counts() | kernel_counts(), indent=2) + "\n", encoding="utf-8")


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


def test_a_step_launches_no_more_kernels_than_before() -> None:
    pytest.importorskip("triton")
    found = differences(kernel_counts())
    assert not found, "\n".join([UPDATE, *found])


def test_a_difference_names_step_count_and_both_values() -> None:
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert differences(written) == []
    name = "kernels, step without"
    before = written[name]["conv2d_kernel"]
    assert differences({name: written[name] | {"conv2d_kernel": 1_000, "new": 1}}) == [
        f"{name}: conv2d_kernel was {before} and is 1,000",
        f"{name}: new was 0 and is 1",
    ]


def test_the_numbers_are_those_that_are_counted() -> None:
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    of_engines = {f"{engine}, {kind}" for engine in ENGINES for kind in STEPS}
    assert written.keys() == of_engines | {f"kernels, {kind}" for kind in KERNEL_STEPS}
    assert written["ddp, step without"]["num_collectives"] > 0
    assert all(written[name].keys() == set(Counts._fields) for name in of_engines)


def test_every_kernel_of_a_step_is_counted() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "kernels").glob("*.py")]
    kernels = {name for source in sources for name in re.findall(r"^def (\w+_kernel)\(", source, re.MULTILINE)}
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert written["kernels, step with penalties"].keys() == kernels - NOT_IN_THE_STEP


def test_what_is_launched_has_been_compiled_for_every_architecture() -> None:
    written = json.loads(NUMBERS.read_text(encoding="utf-8"))
    launched = {name for kind in KERNEL_STEPS for name in written[f"kernels, {kind}"]}
    for architecture in ARCHITECTURES:
        entries = json.loads(LEDGER.read_text(encoding="utf-8"))[f"sm_{architecture}"]
        assert launched <= {entry.split(" / ")[1] for entry in entries}


def test_a_collective_is_counted() -> None:
    with group_of_one(is_needed=True):
        counts = count_ops(lambda: torch.distributed.all_reduce(torch.ones(6)))
    assert (counts.num_collectives, counts.num_bytes_sent) == (1, 24)


if __name__ == "__main__":
    write_numbers()
