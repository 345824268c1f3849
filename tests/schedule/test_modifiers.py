"""Shares of unequal ranks, and the images from which on each network is updated."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan.errors import ConfigError
from fastgan.schedule import Agreed, Alternate, Joint, ScheduleState, Split
from fastgan.schedule.shares import rebalanced


def micro_batches_of_ranks(policy: Alternate, state: ScheduleState) -> list[int]:
    return [len(policy.plan(state, rank).updates[0].micro_batches) for rank in range(policy.num_ranks)]


def test_given_shares_are_the_ranks_micro_batches_and_weights() -> None:
    policy = Alternate(batch_images=24, micro_batch_images=4, num_ranks=3, shares=(1, 3, 2))
    parts = [policy.plan(ScheduleState(), rank).updates[0].micro_batches for rank in range(3)]
    assert [[micro.first_sample for micro in mine] for mine in parts] == [[0], [4, 8, 12], [16, 20]]
    assert [sum(micro.weight for micro in mine) for mine in parts] == [Fraction(1, 6), Fraction(1, 2), Fraction(1, 3)]


def test_measured_shares_follow_the_pace_of_the_ranks_two_steps_later() -> None:
    policy = Alternate(batch_images=24, micro_batch_images=2, num_ranks=3, shares="measured")
    first = ScheduleState()
    second = policy.advance(first, Agreed(rank_microseconds=(100, 100, 400)))
    third = policy.advance(second)
    fourth = policy.advance(third)
    assert [micro_batches_of_ranks(policy, s) for s in (first, second, third, fourth)] == [
        [4, 4, 4],
        [4, 4, 4],
        # The third rank needs four times as long for each: with 2 of them it would end after all others.
        [6, 5, 1],
        [6, 5, 1],
    ]


@pytest.mark.parametrize(
    ("microseconds", "shares"),
    [
        # 25 and 23 micro-batches would save 3.5% of the slowest rank's time, 26 and 22 of them 6.6%.
        ((100, 108), [24, 24]),
        ((100, 116), [26, 22]),
    ],
)
def test_shares_stay_where_little_is_gained(microseconds: tuple[int, int], shares: list[int]) -> None:
    policy = Alternate(batch_images=48, micro_batch_images=1, num_ranks=2, shares="measured")
    state = policy.advance(ScheduleState(), Agreed(rank_microseconds=microseconds))
    assert micro_batches_of_ranks(policy, policy.advance(state)) == shares


def test_a_pace_is_that_of_the_shares_in_the_measured_step() -> None:
    """Equal times with equally many: equal ranks, whatever has been decided for a later step."""
    assert rebalanced((6, 2), (4, 4), (100, 100), groups=[range(2)]) == (4, 4)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 10**6)), min_size=1, max_size=20),
    st.integers(0, 20),
)
def test_the_slowest_rank_is_as_fast_as_can_be(ranks: list[tuple[int, int]], more: int) -> None:
    counts = [count for count, _ in ranks]
    counts[0] += more
    times = [max(1, time) for _, time in ranks]
    found = rebalanced(counts, counts, times, groups=[range(len(counts))])
    assert sum(found) == sum(counts)
    assert min(found) >= 1
    pace = [Fraction(time, count) for time, count in zip(times, counts, strict=True)]
    slowest = max(n * p for n, p in zip(found, pace, strict=True))
    # A division in which every rank ends earlier by more than the hysteresis would hold fewer units than there are.
    goal = slowest * Fraction(19, 20)
    room = sum(max(0, -(-goal // p) - 1) for p in pace)
    assert room < sum(counts) or any(p >= goal for p in pace)


def test_every_role_has_shares_of_its_own() -> None:
    policy = Split(batch_images=8, micro_batch_images=1, num_ranks=4, discriminator_ranks=2, shares="measured")
    state = policy.advance(ScheduleState(), Agreed(rank_microseconds=(100, 300, 50, 50)))
    assert policy.advance(state).shares == (6, 2, 4, 4)


def test_shares_start_again_with_another_number_of_ranks() -> None:
    state = ScheduleState(shares=(3, 1), later_shares=(3, 1))
    policy = Alternate(batch_images=4, micro_batch_images=1, num_ranks=4, shares="measured")
    assert micro_batches_of_ranks(policy, state) == [1, 1, 1, 1]
    assert policy.advance(state).later_shares == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"shares": (3, 4)},
            "schedule.shares=[3, 4]: ranks 0 to 1 must add up to batch_images / micro_batch_images = 8",
        ),
        ({"shares": (8, 0)}, "schedule.shares=[8, 0] must be at least 1 each"),
        ({"shares": (4, 2, 2)}, "schedule.shares=[4, 2, 2] must have one number for each of num_ranks=2"),
        ({"shares": "measured", "micro_batch_images": None}, "schedule.shares=measured counts micro-batches"),
        (
            {"shares": "measured", "micro_batch_images": 3},
            "batch_images=16 must be a multiple of micro_batch_images = 3",
        ),
        ({"shares": "measured", "num_ranks": 9}, "batch_images=16 must hold at least one of the micro-batches of 2"),
    ],
)
def test_shares_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Alternate(**{"batch_images": 16, "micro_batch_images": 2, "num_ranks": 2, **settings})  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("kind", [Alternate, Joint])
def test_a_network_waits_for_its_images(kind: type[Alternate | Joint]) -> None:
    policy = kind(batch_images=10, generator_start_images=20)
    state, found = ScheduleState(), []
    for _ in range(4):
        step = policy.step(state)
        found.append([(u.network, u.version, u.reads, u.shared_fakes) for u in step.updates])
        assert step.is_joint == (kind is Joint and len(step.updates) == 2)
        state = policy.advance(state)
    lag = kind is Joint
    assert found == [
        [("discriminator", 1, 0, False)],
        [("discriminator", 2, 0, False)],
        [("discriminator", 3, 0, True), ("generator", 1, 3 - lag, True)],
        [("discriminator", 4, 1, True), ("generator", 2, 4 - lag, True)],
    ]


def test_a_generator_that_warms_up_runs_the_clock() -> None:
    policy = Alternate(batch_images=10, discriminator_start_images=10, adversarial_start_images=20)
    states = [ScheduleState()]
    for _ in range(3):
        states.append(policy.advance(states[-1]))
    assert [state.images_seen for state in states] == [0, 10, 20, 30]
    assert [state.discriminator_updates for state in states] == [0, 0, 1, 2]
    updates = [policy.step(state).updates[-1] for state in states]
    assert [(u.network, u.first_sample, u.adversarial) for u in updates] == [
        ("generator", 0, False),
        ("generator", 10, False),
        ("generator", 20, True),
        ("generator", 30, True),
    ]


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (Alternate, {"generator_start_images": -1}, "schedule.generator_start_images=-1 must be at least 0"),
        (
            Alternate,
            {"generator_start_images": 5, "discriminator_start_images": 7},
            "schedule.generator_start_images=5 leaves nothing to do before schedule.discriminator_start_images=7",
        ),
        (
            Joint,
            {"adversarial_start_images": 5},
            "schedule.adversarial_start_images=5 does not go with schedule.policy=joint",
        ),
    ],
)
def test_starts_that_do_not_fit_are_refused(policy: type[Alternate], settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        policy(batch_images=8, **settings)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
