"""No schedule waits for ever, in any world of up to six ranks; and schedules that do are found out."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from fastgan.schedule import (
    Alternate,
    Balance,
    Collective,
    Compute,
    Joint,
    Policy,
    Split,
    Start,
    Ticket,
    Wait,
    execute,
    overlap,
)
from tests.schedule.worlds import policies, programs, seeds

STEPS = 5


def small_policies() -> Iterator[Policy]:
    """Every policy in every world of up to six ranks, with all small settings that change who waits for whom."""
    for num_ranks in range(1, 7):
        world = {"num_ranks": num_ranks, "batch_images": 60, "micro_batch_images": 1}
        yield Joint(**world)
        for shares, share_fakes in itertools.product(("equal", "measured"), (False, True)):
            for discriminator, generator in itertools.product((1, 2), (1, 2)):
                updates = {"discriminator_updates": discriminator, "generator_updates": generator}
                yield Alternate(**world, **updates, shares=shares, share_fakes=share_fakes)
            yield Balance(**world, patience=1, shares=shares, share_fakes=share_fakes)
        for name in ("discriminator", "generator"):
            yield Alternate(**world, **{f"{name}_start_images": 120})
        for border, every, delay in itertools.product(range(1, num_ranks), (1, 2, 3), (0, 1, 2, 4)):
            for discriminator, generator in ((1, 1), (2, 1), (1, 2)):
                updates = {"discriminator_updates": discriminator, "generator_updates": generator}
                timing = {"publish_every": every, "delay_steps": delay}
                yield Split(**world, **updates, **timing, discriminator_ranks=border)


def test_every_policy_ends_in_every_world_of_up_to_six_ranks() -> None:
    num_worlds = 0
    for policy in small_policies():
        actions = programs(policy, STEPS)
        for found in (actions, [list(overlap(mine)) for mine in actions]):
            for is_blocking in (False, True):
                # Blocking at the start of a publication that overlap has left in place is the hardest rule.
                assert not execute(found, is_blocking=is_blocking).stuck, policy
        num_worlds += 1
    assert num_worlds > 500


@settings(max_examples=15, deadline=None)
@given(policies(max_ranks=64), seeds)
def test_random_worlds_end(policy: Policy, seed: int) -> None:
    assert not execute(programs(policy, 4, seed), is_blocking=True).stuck


def test_a_decision_of_one_rank_is_found() -> None:
    """Rank 1 leaves out an update that the others make, as with a loss that is not finite on it alone."""
    everybody = programs(Alternate(batch_images=12, num_ranks=3), 2)
    first = [a.collective for a in everybody[1] if isinstance(a, Start)][:2]
    everybody[1] = [a for a in everybody[1] if isinstance(a, Compute) or a.collective not in first]
    assert set(execute(everybody).stuck) == {0, 1, 2}


def test_a_swapped_order_is_found() -> None:
    """Two groups that share ranks, entered in another order by one rank: each is inside another collective."""
    first = Collective(Ticket(0, 0), "publish", ("discriminator",), range(2))
    second = Collective(Ticket(0, 1), "publish", ("generator",), range(2))
    none: frozenset[str] = frozenset()
    right = [Start(first, none, none), Start(second, none, none), Wait(first, none, none), Wait(second, none, none)]
    assert not execute([right, right], is_blocking=True).stuck
    wrong = [right[1], right[0], *right[2:]]
    assert set(execute([right, wrong]).stuck) == {0, 1}
    split = programs(Split(batch_images=8, num_ranks=4, discriminator_ranks=2), 4)
    assert not execute(split).stuck
    one, other = (p for p, a in enumerate(split[2]) if isinstance(a, Start) and a.collective.ticket in ((1, 1), (1, 2)))
    split[2][one], split[2][other] = split[2][other], split[2][one]
    assert {1, 2} <= execute(split).stuck.keys()


def test_a_missing_member_is_found() -> None:
    """Rank 3 does not know that it belongs to the generator's group."""
    split = programs(Split(batch_images=8, num_ranks=4, discriminator_ranks=2), 3)
    split[3] = [a for a in split[3] if isinstance(a, Compute) or a.collective.kind == "publish"]
    stuck = execute(split).stuck
    assert isinstance(stuck[2], Wait)
    assert stuck[2].collective.group == range(2, 4)


def test_ranks_that_differ_in_a_group_are_found() -> None:
    actions = programs(Alternate(batch_images=4, num_ranks=2), 1)
    actions[1] = [
        a if isinstance(a, Compute) else replace(a, collective=replace(a.collective, group=range(1, 2)))
        for a in actions[1]
    ]
    assert execute(actions).stuck.keys() == {0}


@pytest.mark.parametrize("is_blocking", [False, True])
def test_times_add_up_on_two_streams(is_blocking: bool) -> None:
    """Two ranks compute 1 and 2 seconds, reduce for 3 and compute on: behind the reduction, or after it."""
    none: frozenset[str] = frozenset()
    reduce = Collective(Ticket(0, 0), "gradient", ("generator",), range(2))
    work = Compute("learn", (), none, none)
    mine = [work, Start(reduce, none, none), work, Wait(reduce, none, none), work]
    found = execute(
        [mine, mine],
        lambda rank, what: 3.0 if isinstance(what, Collective) else rank + 1.0,
        is_blocking=is_blocking,
    )
    reductions = [(span.rank, span.begin, span.end) for span in found.spans if span.what == reduce]
    assert reductions == [(0, 2.0, 5.0), (1, 2.0, 5.0)]
    assert found.seconds == ([7.0, 9.0] if is_blocking else [6.0, 7.0])


@pytest.mark.parametrize(("delay", "exposed"), [(0, 3.0), (1, 0.0), (2, 0.0)])
def test_publications_are_hidden_behind_a_step(delay: int, exposed: float) -> None:
    policy = Split(batch_images=8, num_ranks=4, discriminator_ranks=2, delay_steps=delay)

    def cost(rank: int, what: object) -> float:
        if isinstance(what, Compute):
            return 3.0 if rank < 2 and what.kind == "learn" else 1.0
        assert isinstance(what, Collective)
        return 1.5 if what.kind == "publish" else 0.0

    # A step of the discriminator computes for 6 seconds, the slower role: it waits for nobody else.
    assert execute(programs(policy, 5), cost).seconds[:2] == [5 * 6.0 + 4 * exposed] * 2
