"""What the tests of overlap run on each rank."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks.op_counts import count_ops
from fastgan.parallel import EngineChoice, make_engine
from fastgan.parallel.flat import FlatEngine
from fastgan.parallel.sums import Sums
from fastgan.train.step import TrainStep
from tests.parallel import toy
from tests.parallel.ranks import COLLECTIVE_TIMEOUT_SECONDS
from tests.parallel.toy import Case


def in_plain_order(case: Case) -> Any:
    """The same passes, each optimizer step right behind its backward pass."""

    def at_once(method: Callable[..., Any]) -> Callable[..., Any]:
        def update(self: TrainStep, update: Any, statistics: Any, **others: Any) -> Any:
            result = method(self, update, statistics, **others)
            self.finish(statistics)
            return result

        return update

    with ExitStack() as patches:
        for name in ("_update_discriminator", "_update_generator"):
            patches.enter_context(mock.patch.object(TrainStep, name, at_once(getattr(TrainStep, name))))
        return toy.trained(case)


def interrupted(case: Case) -> Any:
    """Trains in two halves; nothing is pending between them."""
    state = toy.build(case)
    toy.train_steps(state, case)
    toy.train_steps(state, case)
    return toy.whole_weights(state)


def order_of_events(case: Case) -> list[str]:
    """What runs and what is sent in two steps, in order; buckets are as small as they can be."""
    events: list[str] = []

    @contextmanager
    def span(name: str) -> Iterator[None]:
        events.append(name)
        yield
        events.append(f"end of {name}")

    def start(self: Sums, values: torch.Tensor) -> None:
        events.append("send")
        ordinary_start(self, values)

    def backward(tensor: torch.Tensor, **options: Any) -> None:
        ordinary_backward(tensor, **options)
        events.append("autograd is done")

    def wait(self: Sums) -> None:
        if self._unfinished:
            events.append("wait")
        ordinary_wait(self)

    ordinary_start, ordinary_wait, ordinary_init = Sums.start, Sums.wait, TrainStep.__init__
    ordinary_backward = torch.Tensor.backward
    trace = mock.Mock(span=span)
    defaults = {**FlatEngine.__init__.__kwdefaults__, "bucket_bytes": 1}
    with (
        mock.patch.object(Sums, "start", start),
        mock.patch.object(Sums, "wait", wait),
        mock.patch.object(torch.Tensor, "backward", backward),
        mock.patch.object(TrainStep, "__init__", lambda self, *a, **k: ordinary_init(self, *a, trace=trace, **k)),
        mock.patch.object(FlatEngine.__init__, "__kwdefaults__", defaults),
    ):
        toy.trained(case)
    return events


def bytes_sent(kind: str, dtype: torch.dtype | None) -> int:
    """By one update of a layer with 600 numbers, without the first, in which DDP arranges its buckets."""
    engine = make_engine(
        EngineChoice(kind),
        nn.Sequential(nn.Linear(20, 30, bias=False)),
        make_optimizer=toy.make_optimizer("sgd"),
        device=torch.device("cpu"),
        timeout_seconds=COLLECTIVE_TIMEOUT_SECONDS,
        communication_dtype=dtype,
    )

    def update() -> None:
        loss: Any = engine(torch.ones(1, 20))
        engine.backward(loss.sum(), weight=Fraction(1, 2), is_last=True)
        engine.step()

    for _ in range(3):
        update()
    return count_ops(update).num_bytes_sent
