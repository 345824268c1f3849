"""Roles of `split` that take what has arrived: the bound holds, nobody waits for ever, and what a checkpoint keeps."""

import itertools
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.errors import ConfigError
from fastgan.schedule import Action, ScheduleState, Split, Start, Wait, execute, overlap, program

NUM_STEPS = 12


@st.composite
def timings(draw: st.DrawFn) -> dict[str, int]:
    """Intervals and bounds that the policy accepts."""
    every, delay = draw(st.integers(1, 5)), draw(st.integers(0, 5))
    return {
        "publish_every": every,
        "delay_steps": delay,
        "max_staleness": every + delay - 1 + draw(st.integers(0, 4)),
    }


def published(policy: Split, step: int) -> list[int]:
    """The steps up to `step` at which weights are sent."""
    return list(range(policy.publish_every, step + 1, policy.publish_every))


def patient(policy: Split, rank: int) -> Iterator[Action]:
    """The actions of a free-running rank to which nothing ever comes before it has to wait for it: the worst case."""
    state, in_use = ScheduleState(), 0
    underway: deque[tuple[int, Action]] = deque()
    for _ in range(NUM_STEPS):
        plan = policy.plan(state, rank)
        arrivals = {e.ticket.step: e.collective for e in plan.whole.exchanges if rank in e.targets}
        for action in program(plan):
            if isinstance(action, Wait) and action.collective.kind == "publish":
                continue
            yield action
            if isinstance(action, Start) and action.collective in arrivals.values():
                underway.append((state.step, action))
                for _ in range(policy.num_due(state.step, in_use, [sent for sent, _ in underway])):
                    in_use, start = underway.popleft()
                    assert isinstance(start, Start)
                    yield Wait(start.collective, start.writes, frozenset())
        state = policy.advance(state)


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_nobody_waits_for_ever_in_small_worlds(num_ranks: int) -> None:
    for border, every, delay, more in itertools.product(range(1, num_ranks), (1, 2, 3), (0, 1, 2), (0, 1, 3)):
        timing = {"publish_every": every, "delay_steps": delay, "max_staleness": every + delay - 1 + more}
        policy = Split(batch_images=12, num_ranks=num_ranks, discriminator_ranks=border, lockstep=False, **timing)
        actions = [list(patient(policy, rank)) for rank in range(num_ranks)]
        for found in (actions, [list(overlap(mine)) for mine in actions]):
            for is_blocking in (False, True):
                assert not execute(found, is_blocking=is_blocking).stuck, policy


@settings(max_examples=200, deadline=None)
@given(timings(), st.booleans(), st.lists(st.integers(0, 9), min_size=30, max_size=30))
def test_the_bound_holds_whatever_arrives_early(timing: dict[str, int], lockstep: bool, early: list[int]) -> None:
    policy = Split(batch_images=2, num_ranks=2, discriminator_ranks=1, lockstep=lockstep, **timing)
    in_use, underway, largest = 0, deque[int](), 0
    for step, num_early in enumerate(early):
        underway.extend(sent for sent in published(policy, step) if sent == step)
        # Buffers for so many are enough.
        assert len(underway) <= policy.bound // policy.publish_every + 1
        num_due = policy.num_due(step, in_use, underway)
        num_taken = num_due if lockstep else min(len(underway), max(num_due, num_early))
        for _ in range(num_taken):
            in_use = underway.popleft()
        largest = max(largest, step - in_use)
    assert largest <= policy.bound
    if lockstep:
        assert policy.bound == policy.delay_steps + policy.publish_every - 1 == largest


def test_in_lockstep_what_is_due_is_what_the_plan_awaits() -> None:
    for every, delay in itertools.product((1, 2, 3), (0, 1, 2, 4)):
        policy = Split(batch_images=2, num_ranks=2, discriminator_ranks=1, publish_every=every, delay_steps=delay)
        state, in_use, underway = ScheduleState(), 0, deque[int]()
        for step in range(NUM_STEPS):
            whole = policy.step(state)
            underway.extend({exchange.ticket.step for exchange in whole.exchanges})
            due = [underway.popleft() for _ in range(policy.num_due(step, in_use, underway))]
            assert due == sorted({exchange.ticket.step for exchange in whole.arrivals})
            in_use = max(due, default=in_use)
            # One update of each network per step: a version is a step.
            assert {update.reads for update in whole.updates} == {in_use}
            state = policy.advance(state)


def test_a_bound_below_the_interval_would_wait_for_what_is_not_sent() -> None:
    class Tight(Split):
        @property
        def bound(self) -> int:
            return self.publish_every - 2

    policy = Tight(batch_images=2, num_ranks=2, discriminator_ranks=1, publish_every=3, delay_steps=0, lockstep=False)
    with pytest.raises(AssertionError, match="step 2 waits for weights that are not sent"):
        policy.num_due(2, 0, [])
    with pytest.raises(ConfigError, match=r"max_staleness=1 must be at least delay_steps \+ publish_every - 1 = 2"):
        Split(batch_images=2, num_ranks=2, discriminator_ranks=1, publish_every=3, delay_steps=0, max_staleness=1)


@settings(max_examples=200, deadline=None)
@given(timings(), st.integers(1, 20))
def test_a_checkpoint_of_the_same_split_goes_on_with_what_its_plans_read(timing: dict[str, int], step: int) -> None:
    policy = Split(batch_images=2, num_ranks=2, discriminator_ranks=1, **timing)
    state, reads = ScheduleState(), 0
    for _ in range(step):
        reads = policy.step(state).updates[0].reads
        state = policy.advance(state)
    at_hand = [0, *published(policy, step - 1)]
    found = policy.kept(state, at_hand)
    # The version in use, then all that was sent after it.
    assert found == tuple(sent for sent in at_hand if sent >= reads)
    # What has been read and dropped is not needed, what is still to be read is.
    assert policy.kept(state, found) == found
    for place in range(1, len(found)):
        assert policy.kept(state, (*found[:place], *found[place + 1 :])) == ()
    assert policy.kept(state, ()) == ()
