"""What every policy promises, over random worlds, settings, histories and steps."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.schedule import Alternate, Joint, Policy, ScheduleState, Split
from tests.schedule.worlds import last_state, num_steps, plans_of_all_ranks, policies, random_agreed, seeds, states

OTHER = {"discriminator": "generator", "generator": "discriminator"}


@given(policies(), num_steps, seeds)
def test_all_members_of_a_group_issue_the_same_collectives_in_ticket_order(
    policy: Policy, steps: int, seed: int
) -> None:
    plans = plans_of_all_ranks(policy, last_state(policy, steps, seed))
    collectives = plans[0].whole.collectives
    tickets = [collective.ticket for collective in collectives]
    assert tickets == sorted(set(tickets))
    for plan in plans:
        assert plan.whole == plans[0].whole
        assert plan.collectives == tuple(c for c in collectives if plan.rank in c.group)
    for collective in collectives:
        assert len(collective.group) > 1
        assert [plan.rank for plan in plans if collective in plan.collectives] == list(collective.group)


@given(policies(), num_steps, seeds)
def test_samples_are_disjoint_and_cover_the_batch_and_weights_sum_to_one(policy: Policy, steps: int, seed: int) -> None:
    plans = plans_of_all_ranks(policy, last_state(policy, steps, seed))
    for update in plans[0].whole.updates:
        key = update.network, update.version
        parts = [part for plan in plans for part in plan.updates if (part.network, part.version) == key]
        assert len(parts) == len(update.group)
        micro_batches = [micro for part in parts for micro in part.micro_batches]
        for first, firsts in (
            (update.first_sample, [micro.first_sample for micro in micro_batches]),
            (update.first_latent, [micro.first_latent for micro in micro_batches]),
        ):
            ends = [start + micro.num_samples for start, micro in zip(firsts, micro_batches, strict=True)]
            assert [first, *ends] == [*firsts, first + policy.batch_images]
        assert sum(micro.weight for micro in micro_batches) == 1
        assert all(micro.weight == Fraction(micro.num_samples, policy.batch_images) for micro in micro_batches)
        assert all(part.micro_batches for part in parts)


@given(policies(max_ranks=8), num_steps, seeds)
def test_every_version_is_made_once_and_every_sample_is_shown_once(policy: Policy, steps: int, seed: int) -> None:
    versions = {"discriminator": 0, "generator": 0}
    images = 0
    for state in states(policy, steps, seed):
        assert (state.discriminator_updates, state.generator_updates) == tuple(versions.values())
        step = policy.step(state)
        for update in step.updates:
            assert update.version == versions[update.network] + 1
            versions[update.network] = update.version
        firsts = [update.first_sample for update in step.updates if update.network == "discriminator"]
        assert firsts in ([state.images_seen + k * policy.batch_images for k in range(len(firsts))], [])
        assert step.num_images == policy.batch_images * max(1, len(firsts))
        assert state.images_seen == images
        images += step.num_images


@given(policies(max_ranks=8), num_steps, seeds)
def test_latents_are_new_at_every_update_unless_shared(policy: Policy, steps: int, seed: int) -> None:
    next_latent = 0
    for state in states(policy, steps, seed):
        for update in policy.step(state).updates:
            if update.shared_fakes and update.network == "generator":
                assert update.first_latent == next_latent - policy.batch_images
            else:
                assert update.first_latent == next_latent
                next_latent += policy.batch_images


@given(policies(max_ranks=8), num_steps, seeds)
def test_shared_fakes_come_in_pairs_of_one_generator_version(policy: Policy, steps: int, seed: int) -> None:
    plan = policy.plan(last_state(policy, steps, seed))
    marked = [update for update in plan.updates if update.shared_fakes]
    assert len(marked) in (0, 2)
    if marked:
        discriminator, generator = marked
        assert (discriminator.network, generator.network) == ("discriminator", "generator")
        assert discriminator.micro_batches == generator.micro_batches
        assert discriminator.reads == generator.version - 1


@given(policies(max_ranks=8), st.integers(1, 20), seeds)
def test_staleness_never_exceeds_its_bound(policy: Policy, steps: int, seed: int) -> None:
    history = list(states(policy, steps, seed))
    for state in history[:-1]:
        step = policy.step(state)
        now = {"discriminator": state.discriminator_updates, "generator": state.generator_updates}
        made = dict(now)
        for update in step.updates:
            other = OTHER[update.network]
            if isinstance(policy, Split):
                ratio = getattr(policy, f"{other}_updates")
                bound = policy.delay_steps + policy.publish_every - 1
                assert 0 <= now[other] - update.reads <= bound * ratio
            elif isinstance(policy, Joint):
                assert update.reads == now[other]
            else:
                assert update.reads == made[other]
            made[update.network] = update.version


@given(policies(max_ranks=8), st.integers(1, 20), seeds)
def test_a_version_that_is_read_has_arrived(policy: Policy, steps: int, seed: int) -> None:
    sent, known = set(), {"discriminator": 0, "generator": 0}
    for state in states(policy, steps, seed):
        step = policy.step(state)
        for exchange in step.exchanges:
            assert exchange.version == getattr(state, f"{exchange.network}_updates")
            assert exchange.source not in exchange.targets
            assert {exchange.source, *exchange.targets} == set(exchange.group)
        sent |= set(step.exchanges)
        for exchange in step.arrivals:
            assert exchange in sent
            known[exchange.network] = exchange.version
        if isinstance(policy, Split):
            assert all(update.reads == known[OTHER[update.network]] for update in step.updates)
        else:
            assert not step.exchanges


@given(policies(max_ranks=2), st.integers(1, 20), seeds)
def test_long_run_ratio_is_exact(policy: Policy, steps: int, seed: int) -> None:
    """From where both networks are updated on."""
    start = max(policy.discriminator_start_images, policy.generator_start_images)
    ratio = {Alternate, Split} & {type(policy)} and (policy.discriminator_updates, policy.generator_updates)  # type: ignore[attr-defined]
    for state in states(policy, steps, seed):
        made = [update.network for update in policy.step(state).updates]
        counts = made.count("discriminator"), made.count("generator")
        if state.images_seen < start:
            assert 0 in counts
            assert sum(counts) > 0
        elif ratio or isinstance(policy, Joint):
            assert counts == (ratio or (1, 1))
        else:
            assert counts[1] == 1
            assert policy.min_updates <= counts[0] <= policy.max_updates  # type: ignore[attr-defined]


@given(policies(max_ranks=2), st.integers(0, 10_000))
def test_lazy_penalties_have_their_nominal_weight_on_average(policy: Policy, first_update: int) -> None:
    for penalty in policy.penalties:
        # The step's first discriminator updates number `first_update` to `first_update + every - 1`, each once.
        due = []
        for number in range(first_update, first_update + penalty.every):
            state = ScheduleState(step=number, images_seen=10**6, discriminator_updates=number)
            update = next(u for u in policy.step(state).updates if u.network == "discriminator")
            due += [found.weight for found in update.penalties if found.kind == penalty.kind]
        assert len(due) == 1
        assert due[0] / penalty.every == pytest.approx(penalty.weight, rel=1e-12)


@given(policies(), num_steps, seeds, st.data())
def test_the_plan_after_a_resume_equals_the_plan_without_one(
    policy: Policy, steps: int, seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, policy.num_ranks - 1))
    state = last_state(policy, steps, seed)
    resumed = ScheduleState.from_json(json.loads(json.dumps(state.to_json())))
    assert resumed == state
    assert policy.plan(resumed, rank) == policy.plan(state, rank)
    agreed = random_agreed(policy, seed)
    assert policy.advance(resumed, agreed) == policy.advance(state, agreed)


@given(policies(), num_steps, seeds, st.data())
def test_the_next_plan_is_known_before_the_step_ends(
    policy: Policy, steps: int, seed: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, policy.num_ranks - 1))
    state = last_state(policy, steps, seed)
    agreed = random_agreed(policy, seed)
    before, after = policy.plan(policy.advance(state), rank), policy.plan(policy.advance(state, agreed), rank)
    assert before.updates == after.updates
    assert before.collectives == after.collectives


@settings(max_examples=30)
@given(policies(max_ranks=16), seeds)
def test_the_counts_do_not_depend_on_the_number_of_ranks(policy: Policy, seed: int) -> None:
    """So that a checkpoint can be continued on another world; shares start again there."""
    if isinstance(policy, Split) or policy.shares != "equal":
        return
    alone = type(policy)(**{**vars(policy), "num_ranks": 1})
    assert last_state(alone, 9, seed) == last_state(policy, 9, seed)


@given(policies(), num_steps, seeds)
def test_the_digest_is_equal_on_all_ranks_and_another_in_every_step(policy: Policy, steps: int, seed: int) -> None:
    state = last_state(policy, steps, seed)
    assert len({plan.digest for plan in plans_of_all_ranks(policy, state)}) == 1
    assert policy.plan(policy.advance(state)).digest != policy.plan(state).digest
