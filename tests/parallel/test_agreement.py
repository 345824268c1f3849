"""What one rank meets, all ranks act on together."""

from dataclasses import replace

import numpy as np
import pytest

from fastgan.parallel import EngineChoice
from tests.parallel.nan import train_with_nan, train_with_other_latents
from tests.parallel.ranks import RankError, Ranks
from tests.parallel.toy import Case

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


def test_ten_skipped_updates_in_a_row_stop_all_ranks(two_ranks: Ranks) -> None:
    choice = EngineChoice("ddp")
    case = Case(discriminator=choice, generator=choice, loss="relativistic", num_steps=20)
    with pytest.raises(RankError, match="10 updates in a row had a loss or gradient that was not finite"):
        two_ranks.run(train_with_nan, case, True)


def test_ranks_that_follow_different_plans_stop_before_the_first_update(two_ranks: Ranks) -> None:
    choice = EngineChoice("ddp")
    with pytest.raises(RankError, match="plan different steps; give all machines the same version"):
        two_ranks.run(train_with_other_latents, Case(discriminator=choice, generator=choice))
