"""What one rank meets, all ranks act on together."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from torch.distributed import distributed_c10d

from fastgan.objectives import DiscriminatorObjective, GeneratorObjective
from fastgan.parallel import Engine, EngineChoice
from fastgan.train.agreement import Agreement
from tests.parallel import toy
from tests.parallel.nan import train_with_nan, train_with_other_latents, votes_with_infinite_loss
from tests.parallel.ranks import COLLECTIVE_TIMEOUT_SECONDS, RankError, Ranks
from tests.parallel.toy import Case, alone

CHOICES = [
    EngineChoice("flat"),
    EngineChoice("ddp"),
    EngineChoice("fsdp2"),
    *(EngineChoice("deepspeed", s) for s in (0, 1, 2, 3)),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.kind}-{choice.stage}")
def test_a_nan_on_one_rank_makes_all_skip_the_update_and_count_it(two_ranks: Ranks, choice: EngineChoice) -> None:
    case = Case(discriminator=choice, generator=choice, penalties=("r1",), optimizer="adam", num_steps=4)
    if choice.stage == 3:
        case = replace(case, penalties=(), spectral_norm=False)
    answers = two_ranks.run(train_with_nan, case, False)
    # Sample 30 is in the third discriminator update, on rank 1; the generator's loss does not read images.
    assert [answer["skipped"] for answer in answers] == [[0, 0, 1, 1]] * 2
    assert "loss_discriminator" not in answers[0]["records"][2]
    assert "loss_generator" in answers[0]["records"][2]
    for answer in answers:
        for name, value in answer["weights"].items():
            assert np.isfinite(value).all()
            np.testing.assert_array_equal(value, answers[0]["weights"][name])


@pytest.mark.parametrize(
    ("policy", "objective", "expected"),
    [
        ("alternate", DiscriminatorObjective, "yes yes, yes yes, no yes"),
        ("alternate", GeneratorObjective, "yes yes, yes yes, yes no"),
        ("joint", DiscriminatorObjective, "yes, yes, no"),
        ("joint", GeneratorObjective, "yes, yes, no"),
    ],
)
def test_a_loss_that_is_infinite_on_one_rank_is_skipped_by_all_whatever_its_gradient(
    two_ranks: Ranks, policy: str, objective: type[DiscriminatorObjective | GeneratorObjective], expected: str
) -> None:
    choice = EngineChoice("flat")
    case = Case(discriminator=choice, generator=choice, policy=policy, num_steps=3)
    votes = [vote == "yes" for vote in expected.replace(",", "").split()]
    assert two_ranks.run(votes_with_infinite_loss, case, objective) == [votes, votes]


def norms(case: Case) -> list[float]:
    """Of the gradient of each update."""
    found: list[float] = []

    class Noting(Agreement):
        def may_step(self, *engines: Engine) -> bool:
            found.extend(engine.gradient_norm().item() for engine in engines)
            return super().may_step(*engines)

    with mock.patch.object(toy, "Agreement", Noting):
        toy.trained(case)
    return found


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice.kind}-{choice.stage}")
def test_the_norm_of_a_gradient_is_that_of_one_process(two_ranks: Ranks, choice: EngineChoice) -> None:
    case = Case(discriminator=choice, generator=choice, num_steps=1, spectral_norm=False)
    expected = norms(alone(case))
    assert len(expected) == 2
    for found in two_ranks.run(norms, case):
        assert found == pytest.approx(expected, rel=1e-5)


def timeouts(choices: list[EngineChoice]) -> set[float]:
    """Seconds, of all process groups that there are once engines of these kinds have been built."""
    for choice in choices:
        toy.build(Case(discriminator=choice, generator=choice, spectral_norm=False))
    cpu = torch.device("cpu")
    backends = [group._get_backend(cpu) for group in distributed_c10d._world.pg_map]
    return {getattr(found, "wrapped_pg", found).options._timeout.total_seconds() for found in backends}


def test_no_engine_waits_longer_than_the_timeout(two_ranks: Ranks) -> None:
    assert two_ranks.run(timeouts, CHOICES) == [{COLLECTIVE_TIMEOUT_SECONDS}] * 2


def test_ten_skipped_updates_in_a_row_stop_all_ranks(two_ranks: Ranks) -> None:
    choice = EngineChoice("ddp")
    case = Case(discriminator=choice, generator=choice, loss="relativistic", num_steps=20)
    with pytest.raises(RankError, match="10 updates in a row had a loss or gradient that was not finite"):
        two_ranks.run(train_with_nan, case, True)


def test_ranks_that_follow_different_plans_stop_before_the_first_update(two_ranks: Ranks) -> None:
    choice = EngineChoice("ddp")
    with pytest.raises(RankError, match="plan different steps; give all machines the same version"):
        two_ranks.run(train_with_other_latents, Case(discriminator=choice, generator=choice))
