"""Mistakes that train on in silence, planted on purpose. Each returns what `toy.trained` returns, or raises."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fastgan.parallel import ddp, fsdp2
from fastgan.parallel.flat import FlatEngine
from fastgan.parallel.sums import Sums
from fastgan.train import step
from tests.parallel import toy
from tests.parallel.toy import Case


def clipping(case: Case) -> Any:
    def clipped(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return settings(*args, **kwargs) | {"gradient_clipping": 0.01}

    settings = toy.deepspeed_settings
    with mock.patch.object(toy, "deepspeed_settings", clipped):
        return toy.trained(case)


def discriminator_not_frozen(case: Case) -> Any:
    with mock.patch.object(step, "frozen", return_value=nullcontext()):
        return toy.trained(case)


def mean_instead_of_sum(case: Case) -> Any:
    """The shares of the batch are averaged over the ranks once more."""

    def unscaled(self: Any, *args: Any, **kwargs: Any) -> None:
        ordinary(self, *args, **kwargs)
        self._num_ranks = 1

    ordinary = ddp.DdpEngine.__init__
    with mock.patch.object(ddp.DdpEngine, "__init__", unscaled):
        return toy.trained(case)


def sum_over_micro_batches(case: Case) -> Any:
    """Every micro-batch counts as a whole batch."""

    def heavy(self: Any, loss: Any, *, weight: Any, is_last: bool) -> None:
        ordinary(self, loss, weight=weight * 3, is_last=is_last)

    ordinary = FlatEngine.backward
    with mock.patch.object(FlatEngine, "backward", heavy):
        return toy.trained(case)


def static_graph(case: Case) -> Any:
    def static(*args: Any, **kwargs: Any) -> Any:
        return DistributedDataParallel(*args, static_graph=True, **kwargs)

    with mock.patch.object(ddp, "DistributedDataParallel", static), mock.patch.object(ddp, "_no_buffer_sync", dict):
        return toy.trained(case)


def no_reshard(case: Case) -> Any:
    """The optimizer updates shards that nobody gathers again."""

    def unresharded(self: Any) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    with (
        mock.patch.object(fsdp2.Fsdp2Engine, "step", unresharded),
        mock.patch.object(fsdp2.Fsdp2Engine, "gathered", lambda self: nullcontext(self._sharded.unshard())),
        mock.patch.object(fsdp2.Fsdp2Engine, "gradient_norm", return_value=torch.zeros(())),
    ):
        return toy.trained(case)


def graph_from_before_the_wrapped_forward(case: Case) -> Any:
    with mock.patch.object(fsdp2.Fsdp2Engine, "keeps_graph", True):
        return toy.trained(case)


def skipped_reduction(case: Case) -> Any:
    """Each rank goes on with its own gradient, in one bucket of several."""

    def start(self: Any, values: torch.Tensor) -> None:
        nonlocal num_buckets
        num_buckets += 1
        if num_buckets % 2:
            ordinary(self, values)

    num_buckets, ordinary = 0, Sums.start
    with mock.patch.object(Sums, "start", start):
        return toy.trained(case)


def noise_by_rank(case: Case) -> Any:
    def local(self: Any, *args: Any, **kwargs: Any) -> None:
        ordinary(self, *args, **kwargs)
        self.seed = dist.get_rank()

    ordinary = step.TrainStep.__init__
    with mock.patch.object(step.TrainStep, "__init__", local):
        return toy.trained(case)


def power_iterations_by_rank(case: Case) -> Any:
    """The vectors of spectral norm drift apart between the ranks."""

    def more(self: Any, *args: Any, **kwargs: Any) -> None:
        for _ in range(1 + dist.get_rank()):
            ordinary(self, *args, **kwargs)

    ordinary = step.TrainStep._step_spectral_norm
    with mock.patch.object(step.TrainStep, "_step_spectral_norm", more):
        return toy.trained(case)


# Mistake -> the engine and stage that it is planted in.
PLANTED: dict[Callable[[Case], Any], tuple[str, int]] = {
    clipping: ("deepspeed", 2),
    discriminator_not_frozen: ("deepspeed", 1),
    mean_instead_of_sum: ("ddp", 0),
    sum_over_micro_batches: ("flat", 0),
    static_graph: ("ddp", 0),
    no_reshard: ("fsdp2", 0),
    graph_from_before_the_wrapped_forward: ("fsdp2", 0),
    skipped_reduction: ("flat", 0),
    noise_by_rank: ("ddp", 0),
    power_iterations_by_rank: ("ddp", 0),
}
# Those that are not silent here: what torch says. All others train on, and only the comparison sees them.
REFUSED = {static_graph: "expect_autograd_hooks_"}


def compressed(case: Case) -> Any:
    """No mistake: gradients are sent in bf16, so that weights differ by its rounding."""
    make = toy.make_engine
    with mock.patch.object(toy, "make_engine", partial(make, communication_dtype=torch.bfloat16)):
        return toy.trained(case)
