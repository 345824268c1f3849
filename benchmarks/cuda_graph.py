"""A provider recorded as a CUDA graph: what remains of its time when the host has nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.harness import Inputs, Provider, Run

_NUM_WARMUP_CALLS = 3


class Recording(NamedTuple):
    """`replay` computes `outputs` anew from what is in `inputs`."""

    inputs: Inputs
    outputs: Sequence[Tensor]
    replay: Callable[[], None]


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
    return Recording(own, outputs, graph.replay)


def graphed(
    provider: Provider, *, has_state: bool = False, record: Callable[[Run, Inputs], Recording] = record_cuda_graph
) -> Provider:
    """`provider` replayed from a graph that is recorded at its first call; a call copies its inputs into it.

    Args:
        has_state: whether each call changes what the next one computes. Its recording then cannot be compared with the
            first result, and the provider itself is.
    """
    eager: list[Run] = []

    def build() -> Run:
        run, recordings = provider.build(), list[Recording]()
        eager[:] = [run]

        def replayed(*inputs: Tensor) -> Sequence[Tensor]:
            if not recordings:
                recordings.append(record(run, inputs))
            recording = recordings[0]
            with torch.no_grad():
                for own, given in zip(recording.inputs, inputs, strict=True):
                    own.copy_(given)
            recording.replay()
            return recording.outputs

        return replayed

    return Provider(
        f"{provider.name}, CUDA graph",
        build=build,
        prepare=provider.prepare,
        check=lambda run, inputs: provider.check(eager[0] if has_state else run, inputs),
        dtype=provider.dtype,
    )
