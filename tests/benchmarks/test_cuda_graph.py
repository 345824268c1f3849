"""Recorded providers, with a stand-in that calls again where a GPU would replay."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.cuda_graph import Recording, graphed
from benchmarks.harness import Case, Inputs, Provider, Run, measure_case
from benchmarks.timing import Settings

ONCE = Settings(min_rounds=1, max_rounds=1, num_warmup_calls=1, seconds_per_provider=0, min_sample_seconds=0)


def record_by_calling(run: Run, inputs: Inputs) -> Recording:
    """As a graph: outputs stay where they are, and change when it is replayed."""
    own = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs)
    outputs = [y.detach().clone() for y in run(*own)]

    def replay() -> None:
        for kept, y in zip(outputs, run(*own), strict=True):
            kept.copy_(y.detach())

    return Recording(own, outputs, replay, num_calls=1)


def record_a_copy(run: Run, inputs: Inputs) -> Recording:
    """A recording that keeps what the first call made, as one that misses an input or a state does."""
    return Recording(inputs, [y.detach().clone() for y in run(*inputs)], lambda: None, num_calls=1)


def make_inputs(seed: int) -> Inputs:
    return (torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_(),)


def with_gradient(x: Tensor) -> Sequence[Tensor]:
    y = x.square().sum()
    return (y, *torch.autograd.grad(y, x))


def test_a_replay_computes_from_the_inputs_it_is_given() -> None:
    recorded = graphed(Provider("p", build=lambda: with_gradient), record=record_by_calling)
    run = recorded.build()
    for seed in (0, 1):
        inputs = make_inputs(seed)
        for y, expected in zip(run(*inputs), with_gradient(*inputs), strict=True):
            torch.testing.assert_close(y, expected)
    assert recorded.name == "p, CUDA graph"


def test_what_has_state_is_compared_in_its_first_call_and_in_its_replay() -> None:
    def build() -> Run:
        total = torch.zeros(4, 4)
        return lambda x: (total.add_(x.detach()).clone(),)

    case = Case(
        benchmark="sum",
        name="4x4",
        device=torch.device("cpu"),
        dtype="fp32",
        make_inputs=make_inputs,
        exact=lambda x: (x.detach(),),
        providers=(
            Provider("eager", build=build),
            graphed(Provider("right", build=build), has_state=True, record=record_by_calling),
            graphed(Provider("without", build=build), record=record_by_calling),
            graphed(Provider("stale", build=build), has_state=True, record=record_a_copy),
            graphed(Provider("wrong", build=lambda: lambda x: (2 * x,)), has_state=True, record=record_by_calling),
        ),
    )
    rows = measure_case(case, ONCE)
    assert [row.refused is None for row in rows] == [True, True, False, False, False]
    assert rows[3].refused == "wrong result: error 0.33 against float64 is above 0.0001, in the replay"
