"""Every promise of the policy `alternate`, over random worlds, settings and steps."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan.errors import ConfigError
from fastgan.schedule import Alternate, LazyPenalty, Plan, ScheduleState, Update

penalties = st.lists(
    st.builds(
        LazyPenalty,
        st.sampled_from(["r1", "r2", "wgan_gp"]),
        st.floats(min_value=0.01, max_value=100),
        st.integers(1, 20),
    ),
    max_size=3,
    unique_by=lambda penalty: penalty.kind,
).map(tuple)
num_steps = st.integers(0, 30)


@st.composite
def policies(draw: st.DrawFn, max_ranks: int = 64) -> Alternate:
    num_ranks = draw(st.integers(1, max_ranks))
    micro_batch_images = draw(st.integers(1, 8))
    num_micro_batches = draw(st.integers(1, 4))
    return Alternate(
        batch_images=num_ranks * micro_batch_images * num_micro_batches,
        micro_batch_images=draw(st.sampled_from([None, micro_batch_images])),
        discriminator_updates=draw(st.integers(1, 5)),
        generator_updates=draw(st.integers(1, 3)),
        penalties=draw(penalties),
        share_fakes=draw(st.booleans()),
        num_ranks=num_ranks,
    )


def state_after(policy: Alternate, steps: int) -> ScheduleState:
    state = ScheduleState()
    for _ in range(steps):
        state = policy.advance(state)
    return state


def plans_of_all_ranks(policy: Alternate, state: ScheduleState) -> list[Plan]:
    return [policy.plan(state, rank) for rank in range(policy.num_ranks)]


def updates_of_steps(policy: Alternate, steps: int) -> list[Update]:
    """Rank 0's updates in the first `steps` steps."""
    return [update for step in range(steps) for update in policy.plan(state_after(policy, step)).updates]


@given(policies(max_ranks=4), num_steps)
def test_real_samples_are_new_at_every_discriminator_update(policy: Alternate, steps: int) -> None:
    updates = updates_of_steps(policy, steps)
    firsts = [u.micro_batches[0].first_sample for u in updates if u.network == "discriminator"]
    assert firsts == [number * policy.batch_images for number in range(steps * policy.discriminator_updates)]


@given(policies(max_ranks=4), num_steps)
def test_generator_updates_name_the_real_samples_of_the_last_discriminator_update(
    policy: Alternate, steps: int
) -> None:
    updates = policy.plan(state_after(policy, steps)).updates
    last_discriminator = updates[policy.discriminator_updates - 1]
    for update in updates[policy.discriminator_updates :]:
        assert [m.first_sample for m in update.micro_batches] == [
            m.first_sample for m in last_discriminator.micro_batches
        ]


@given(policies(max_ranks=4), st.integers(1, 10))
def test_latents_are_new_at_every_update_unless_shared(policy: Alternate, steps: int) -> None:
    batches = [
        update.micro_batches[0].first_latent // policy.batch_images for update in updates_of_steps(policy, steps)
    ]
    per_step = policy.discriminator_updates + policy.generator_updates
    if policy.share_fakes:
        for step in range(steps):
            first_generator = step * per_step + policy.discriminator_updates
            assert batches[first_generator] == batches[first_generator - 1]
        assert sorted(set(batches)) == list(range(steps * (per_step - 1)))
    else:
        assert batches == list(range(steps * per_step))


@given(policies(), num_steps)
def test_long_run_ratio_and_clock_are_exact(policy: Alternate, steps: int) -> None:
    state = state_after(policy, steps)
    assert (
        state.discriminator_updates * policy.generator_updates == state.generator_updates * policy.discriminator_updates
    )
    assert state.images_seen == steps * policy.batch_images * max(1, policy.discriminator_updates)
    assert state.step == steps
    assert policy.plan(state).num_images == policy.advance(state).images_seen - state.images_seen


@given(policies(max_ranks=2), st.integers(0, 10_000))
def test_lazy_penalties_have_their_nominal_weight_on_average(policy: Alternate, first_step: int) -> None:
    ratio = policy.discriminator_updates
    for penalty in policy.penalties:
        # Over `every` steps each residue of the update number comes up equally often.
        due = [
            due.weight
            for step in range(first_step, first_step + penalty.every)
            for update in policy.plan(ScheduleState(step=step, discriminator_updates=step * ratio)).updates
            for due in update.penalties
            if due.kind == penalty.kind
        ]
        assert len(due) == ratio
        assert sum(due) / (ratio * penalty.every) == pytest.approx(penalty.weight, rel=1e-12)


def test_a_penalty_is_due_at_update_zero_and_at_every_multiple_of_its_interval() -> None:
    policy = Alternate(
        batch_images=4, discriminator_updates=3, penalties=(LazyPenalty("r1", 0.5, 4), LazyPenalty("r2", 2))
    )
    updates = [update for update in updates_of_steps(policy, 4) if update.network == "discriminator"]
    assert [len(update.penalties) == 2 for update in updates] == [number % 4 == 0 for number in range(12)]
    assert [(due.kind, due.weight) for due in updates[4].penalties] == [("r1", 2.0), ("r2", 2.0)]


@given(policies(), num_steps)
def test_ranks_agree_on_the_digest_and_on_all_but_their_samples(policy: Alternate, steps: int) -> None:
    plans = plans_of_all_ranks(policy, state_after(policy, steps))
    assert len({plan.digest for plan in plans}) == 1
    assert len({tuple(replace(update, micro_batches=()) for update in plan.updates) for plan in plans}) == 1
    assert len({tuple(len(update.micro_batches) for update in plan.updates) for plan in plans}) == 1


def test_the_digest_shows_any_difference_between_ranks() -> None:
    state, base = ScheduleState(), Alternate(batch_images=8, num_ranks=2, penalties=(LazyPenalty("r1", 1.0, 8),))
    others = [
        base.plan(base.advance(state)),
        base.plan(replace(state, images_seen=1)),
        base.plan(replace(state, next_latent=1)),
        *(
            replace(base, **change).plan(state)
            for change in (
                {"batch_images": 16},
                {"num_ranks": 4},
                {"share_fakes": False},
                {"discriminator_updates": 2},
                {"generator_updates": 2},
                {"penalties": ()},
                {"penalties": (LazyPenalty("r1", 2.0, 8),)},
            )
        ),
    ]
    digests = {base.plan(state).digest, *(plan.digest for plan in others)}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_images": 0}, "batch_images=0 must be at least 1"),
        ({"num_ranks": 0}, "num_ranks=0 must be at least 1"),
        ({"micro_batch_images": 0}, "micro_batch_images=0 must be at least 1"),
        ({"discriminator_updates": 0}, "schedule.discriminator_updates=0 must be at least 1"),
        ({"generator_updates": -1}, "schedule.generator_updates=-1 must be at least 1"),
        (
            {"num_ranks": 4, "micro_batch_images": 6},
            "batch_images=100 must be a multiple of num_ranks x micro_batch_images = 4 x 6 = 24; nearest: 96 or 120",
        ),
        ({"num_ranks": 3}, "batch_images=100 must be a multiple of num_ranks = 3; nearest: 99 or 102"),
        ({"num_ranks": 128}, "batch_images=100 must be a multiple of num_ranks = 128; nearest: 128"),
    ],
)
def test_bad_settings_name_key_value_rule_and_remedy(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Alternate(**{"batch_images": 100, **settings})  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("every", [0, -3])
def test_an_interval_below_one_is_refused(every: int) -> None:
    with pytest.raises(ConfigError, match=f"penalties: every={every} of r1 must be at least 1"):
        LazyPenalty("r1", 1.0, every)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_not_positive_and_finite_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"penalties: weight=\S+ of r1 must be positive and finite"):
        LazyPenalty("r1", weight)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_outside_the_world_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank={rank} must be one of the num_ranks=2"):
        Alternate(batch_images=4, num_ranks=2).plan(ScheduleState(), rank)
