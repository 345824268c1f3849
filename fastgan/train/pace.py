"""How fast this rank computes: the time of its forward passes, in which no rank waits for another."""

import time

import torch
from torch import nn

from fastgan.schedule import Plan


class Pace:
    """Measures the forward passes of objectives through their hooks, so that the step need not know of it.

    Backward passes are left out: in some engines they wait for other ranks. On a GPU the times are read when somebody
    asks for them.

    Args:
        objectives: the modules that engines run.
        device: where they run.
    """

    def __init__(self, *objectives: nn.Module, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._begin: float | torch.cuda.Event = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0
        self._num_micro_batches = 0
        for objective in objectives:
            objective.register_forward_pre_hook(lambda *_: self._start())
            objective.register_forward_hook(lambda *_: self._stop())

    def microseconds(self, plan: Plan) -> int:
        """How long the plan's micro-batches of one update take at the mean pace since this was called last."""
        for begin, end in self._events:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1e3
        per_micro_batch = self._seconds / max(1, self._num_micro_batches)
        self._events, self._seconds, self._num_micro_batches = [], 0.0, 0
        return round(1e6 * per_micro_batch * len(plan.updates[0].micro_batches))

    def _start(self) -> None:
        self._begin = self._mark()

    def _stop(self) -> None:
        begin, end = self._begin, self._mark()
        if isinstance(begin, float) and isinstance(end, float):
            self._seconds += end - begin
        elif not isinstance(begin, float) and not isinstance(end, float):
            self._events.append((begin, end))
        self._num_micro_batches += 1

    def _mark(self) -> "float | torch.cuda.Event":
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
