"""The number of discriminator updates follows the agreed sign statistic, slowly and between its bounds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan.errors import ConfigError
from fastgan.schedule import Agreed, Balance, ScheduleState


def counts(policy: Balance, percents: list[int], *, begin: int = 1) -> list[int]:
    """Discriminator updates in each step, when the statistic of step i is percents[i]; and two steps after."""
    state, found = ScheduleState(balance=(begin, begin, 0, 0)), []
    for percent in [*percents, 40, 40]:
        found.append(len(policy.step(state).updates) - 1)
        state = policy.advance(state, Agreed(sign_sum=percent, num_judged=100))
    return found


def test_a_decision_takes_effect_two_steps_after_the_statistic_that_completes_it() -> None:
    policy = Balance(batch_images=4, patience=2)
    assert counts(policy, [0, 0, 40, 40, 90, 90]) == [1, 1, 1, 2, 2, 2, 2, 1]


def test_a_step_within_the_band_starts_the_count_again() -> None:
    assert set(counts(Balance(batch_images=4, patience=3), [0, 0, 40, 0, 0, 40, 0, 0])) == {1}


def test_the_edges_of_the_band_are_inside() -> None:
    policy = Balance(batch_images=4, patience=1, low_percent=20, high_percent=60)
    assert set(counts(policy, [20, 60, 20, 60], begin=2)) == {2}
    assert counts(policy, [19], begin=2)[-1] == 3
    assert counts(policy, [61], begin=2)[-1] == 1


@pytest.mark.parametrize(("percent", "begin", "change"), [(90, 4, -1), (0, 1, 1)])
def test_after_a_change_the_count_starts_again(percent: int, begin: int, change: int) -> None:
    found = counts(Balance(batch_images=4, patience=2), [percent] * 4, begin=begin)
    assert found == [begin, begin, begin, begin + change, begin + change, begin + 2 * change]


@given(st.lists(st.integers(-100, 100), max_size=40), st.integers(1, 3))
def test_the_bounds_hold_and_changes_are_of_one(percents: list[int], patience: int) -> None:
    policy = Balance(batch_images=4, min_updates=2, max_updates=4, patience=patience)
    found = counts(policy, percents)
    assert all(2 <= count <= 4 for count in found)
    assert all(abs(after - before) <= 1 for before, after in pairwise(found))


def test_the_bounds_hold_after_a_resume_with_others() -> None:
    state = ScheduleState(balance=(4, 4, 0, 0))
    assert len(Balance(batch_images=4, max_updates=2).step(state).updates) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_updates": 0}, "schedule.min_updates=0 must be at least 1; without an update there is no statistic"),
        ({"patience": 0}, "schedule.patience=0 must be at least 1"),
        ({"min_updates": 4}, "schedule.min_updates=4 must be below schedule.max_updates=4"),
        ({"low_percent": 70}, "schedule.low_percent=70 must be below schedule.high_percent=60"),
        ({"high_percent": 101}, "schedule.low_percent=20 and schedule.high_percent=101 must lie in -100 to 100"),
    ],
)
def test_bad_settings_name_key_value_rule_and_remedy(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Balance(batch_images=4, **settings)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
