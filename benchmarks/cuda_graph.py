"""A provider recorded as a CUDA graph: what remains of its time when the host has nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gate import complaint, limit_of_yardstick, relative_error
from benchmarks.harness import Inputs, Provider, Run

_NUM_WARMUP_CALLS = 3


class Recording(NamedTuple):
    """`replay` computes `outputs` anew from what is in `inputs`; to record took `num_calls` calls."""

    inputs: Inputs
    outputs: Sequence[Tensor]
    replay: Callable[[], None]
    num_calls: int

    def play(self, inputs: Inputs) -> Sequence[Tensor]:
        """The outputs for `inputs`, until the next call."""
        with torch.no_grad():
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given)
        self.replay()
        return self.outputs


def record_cuda_graph(run: Run, inputs: Inputs) -> Recording:
    """Runs a few times on a stream of its own, as torch asks for, then records."""
    own = tuple(x.detach().clone(memory_format=torch.preserve_format).requires_grad_(x.requires_grad) for x in inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_NUM_WARMUP_CALLS):
            run(*own)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(*own)
    # What is being recorded does not run.
    return Recording(own, outputs, graph.replay, _NUM_WARMUP_CALLS)


def graphed(
    provider: Provider, *, has_state: bool = False, record: Callable[[Run, Inputs], Recording] = record_cuda_graph
) -> Provider:
    """`provider` replayed from a graph that is recorded at its first call; a call copies its inputs into it.

    Args:
        has_state: whether each call changes what the next one computes. The provider itself is then compared with what
            is right for a first call, and the first replay with as many calls of the provider.
    """
    eager: list[Run] = []
    recordings: list[Recording] = []

    def build() -> Run:
        run = provider.build()
        eager[:] = [run]
        recordings.clear()

        def replayed(*inputs: Tensor) -> Sequence[Tensor]:
            if not recordings:
                recordings.append(record(run, inputs))
            return recordings[0].play(inputs)

        return replayed

    def check_with_state(replayed: Run, inputs: Inputs) -> Sequence[Tensor]:
        first = [y.detach().clone() for y in provider.check(eager[0], inputs)]
        found = replayed(*inputs)
        # The check, the recording, and the replay itself.
        _check_replay(found, provider.build(), inputs, num_calls=1 + recordings[0].num_calls + 1)
        return first

    return Provider(
        f"{provider.name}, CUDA graph",
        build=build,
        prepare=provider.prepare,
        check=check_with_state if has_state else provider.check,
        dtype=provider.dtype,
    )


def _check_replay(found: Sequence[Tensor], run: Run, inputs: Inputs, *, num_calls: int) -> None:
    """Raises RuntimeError unless `found` is what the last of so many calls of `run` gives."""
    for _ in range(num_calls):
        expected = run(*inputs)
    limit = limit_of_yardstick(expected[0].dtype, expected[0].device)
    wrong = complaint(relative_error(found, [y.detach().double() for y in expected]), limit)
    if wrong is not None:
        raise RuntimeError(f"{wrong}, in the replay")
