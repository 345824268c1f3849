"""The comparison with one process catches each of the mistakes that train on in silence."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fastgan.parallel import EngineChoice
from tests.parallel.planted import PLANTED, REFUSED, graph_from_before_the_wrapped_forward
from tests.parallel.ranks import RankError, Ranks
from tests.parallel.toy import Case, alone, largest_difference, trained


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda mistake: mistake.__name__)
def test_a_planted_mistake_is_caught(two_ranks: Ranks, mistake: Callable[[Case], Any]) -> None:
    choice = EngineChoice(*PLANTED[mistake])
    case = Case(discriminator=choice, generator=choice, penalties=("r1",), micro_batch_images=2)
    if mistake is graph_from_before_the_wrapped_forward:
        case = replace(case, micro_batch_images=None)
    if mistake in REFUSED:
        with pytest.raises(RankError, match=REFUSED[mistake]):
            two_ranks.run(mistake, case)
        return
    weights, _ = trained(alone(case))
    answers = two_ranks.run(mistake, case)
    assert all(largest_difference(found, weights) > 1e-5 for found, _ in answers)
