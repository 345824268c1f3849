"""The reducer and the agreements with eight ranks, as threads."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastgan.dist import World, check_same, from_main, gather_texts, max_integers, sum_over_ranks, together
from fastgan.errors import DistributedError, RunFolderError
from fastgan.parallel.flat import FlatEngine, make_buckets
from tests.parallel.threads import run_threads

NUM_RANKS = 8
# More on some ranks than on others, and none on one: 36 samples in all.
NUM_SAMPLES = (1, 2, 3, 4, 5, 6, 0, 15)


class Output(NamedTuple):
    loss: Tensor
    statistics: dict[str, Tensor]


class Loss(nn.Module):
    """Three layers, of which each sample uses the first and one of the two others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.even, self.odd = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, samples: Tensor, *, use_odd: bool) -> Output:
        hidden = self.first(samples).tanh()
        return Output((self.odd if use_odd else self.even)(hidden).square().mean(), {})


def samples() -> Tensor:
    return torch.arange(36 * 3, dtype=torch.float64).reshape(36, 3).sin()


def make_loss() -> Loss:
    # Threads share torch's generator.
    with torch.random.fork_rng():
        return Loss().double()


@pytest.fixture
def models() -> list[Loss]:
    """Equal models, made one after the other."""
    return [make_loss() for _ in range(NUM_RANKS)]


def expected_gradients(uses_odd: Callable[[int], bool]) -> list[Tensor]:
    """On one process: every sample counts 1/36, whichever rank has it."""
    model, start = make_loss(), 0
    for rank, count in enumerate(NUM_SAMPLES):
        if count:
            part = samples()[start : start + count]
            (model(part, use_odd=uses_odd(rank)).loss * count / 36).backward()
        start += count
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("bucket_bytes", [1, 40, 1 << 20])
@pytest.mark.parametrize("overlap", [True, False])
def test_uneven_shares_make_the_gradient_of_the_whole_batch(
    models: list[Loss], overlap: bool, bucket_bytes: int
) -> None:
    """Also where a rank's samples do not touch a parameter, and where a rank has no sample at all."""

    def rank_gradients(world: World) -> list[Tensor]:
        model = models[world.rank]
        engine = FlatEngine(
            model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), bucket_bytes=bucket_bytes, overlap=overlap
        )
        start, count = sum(NUM_SAMPLES[: world.rank]), NUM_SAMPLES[world.rank]
        # A rank without samples takes part with the weight 0: all ranks send equally often.
        part = samples()[start : start + count] if count else samples()[:1]
        halves = part.chunk(2)
        for half in halves:
            output = engine(half, use_odd=world.rank % 2 == 1)
            weight = Fraction(len(half) if count else 0, 36)
            engine.backward(output.loss, weight=weight, is_last=half is halves[-1])
        engine.wait()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    expected = expected_gradients(lambda rank: rank % 2 == 1)
    for gradients in run_threads(rank_gradients):
        torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-15)


def test_buckets_hold_every_parameter_once_the_last_first() -> None:
    parameters = [nn.Parameter(torch.zeros(size)) for size in (5, 3, 4, 100)]
    parameters.insert(2, nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    buckets = make_buckets(parameters, bucket_bytes=30)
    assert [[p.numel() for p in bucket] for bucket in buckets] == [[100], [4], [2], [3, 5]]


def test_agreements() -> None:
    def agree(world: World) -> Any:
        largest = max_integers(world, [world.rank, -world.rank, world.rank == 3])
        total = sum_over_ranks(world, torch.tensor([1.0, world.rank]))
        texts = gather_texts(world, "é" * world.rank)
        check_same(world, {"the data": "same"}, remedy="none")
        return largest, total.tolist(), texts, from_main(world, lambda: f"from {world.rank}")

    for answer in run_threads(agree):
        assert answer == ([7, 0, 1], [8.0, 28.0], ["é" * rank for rank in range(8)], "from 0")


def test_what_fails_on_one_rank_fails_on_all() -> None:
    def fail(world: World) -> str:
        try:
            with together(world):
                if world.rank == 5:
                    raise RunFolderError("the disk is full")
        except (RunFolderError, DistributedError) as error:
            return str(error)
        return "nothing happened"

    answers = run_threads(fail)
    assert answers.pop(5) == "the disk is full"
    assert set(answers) == {
        f"rank {rank} ends because another failed; its error is the one to repair" for rank in (0, 1, 2, 3, 4, 6, 7)
    }


def test_a_difference_is_named_on_all_ranks() -> None:
    def differ(world: World) -> str:
        with pytest.raises(DistributedError) as caught:
            check_same(world, {"the data": str(world.rank == 6), "the seed": "1"}, remedy="repair it")
        return str(caught.value)

    assert set(run_threads(differ)) == {"the ranks differ in the data; repair it"}


def test_the_failure_of_the_first_rank_reaches_all() -> None:
    def fail(world: World) -> str:
        def make() -> str:
            raise RunFolderError("no folder")

        with pytest.raises((RunFolderError, DistributedError)) as caught:
            from_main(world, make)
        return str(caught.value)

    first, *others = run_threads(fail)
    assert first == "no folder"
    assert all("ends because rank 0 failed" in text for text in others)
