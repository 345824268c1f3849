"""Roles, publications and versions of the policy `split`."""

import pytest

from fastgan.errors import ConfigError
from fastgan.schedule import ScheduleState, Split


def steps_of(policy: Split, num_steps: int) -> list[tuple[ScheduleState, list[tuple[str, int, int]]]]:
    state, found = ScheduleState(), []
    for _ in range(num_steps):
        step = policy.step(state)
        found.append((state, [(u.network, u.version, u.reads) for u in step.updates]))
        state = policy.advance(state)
    return found


def reads(policy: Split, num_steps: int, network: str = "discriminator") -> list[int]:
    return [read for _, updates in steps_of(policy, num_steps) for name, _, read in updates if name == network]


def test_without_delay_both_networks_read_what_the_step_began_with() -> None:
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, delay_steps=0)
    assert reads(policy, 5) == reads(policy, 5, "generator") == [0, 1, 2, 3, 4]


def test_a_delay_is_the_staleness_of_every_read() -> None:
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, delay_steps=2)
    assert reads(policy, 6) == [0, 0, 0, 1, 2, 3]


def test_staleness_grows_between_two_publications() -> None:
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, publish_every=3, max_staleness=3)
    assert reads(policy, 9) == [0, 0, 0, 0, 3, 3, 3, 6, 6]


def test_several_updates_in_a_step_count_as_versions() -> None:
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, discriminator_updates=3)
    assert reads(policy, 4, "generator") == [0, 0, 3, 6]
    assert reads(policy, 4) == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_roles_have_ranks_of_their_own_and_the_ranks_at_the_border_publish() -> None:
    policy = Split(batch_images=8, num_ranks=5, discriminator_ranks=2)
    state = policy.advance(ScheduleState())
    roles = [{update.network for update in policy.plan(state, rank).updates} for rank in range(5)]
    assert roles == [{"discriminator"}] * 2 + [{"generator"}] * 3
    routes = [(e.network, e.source, e.targets, e.group) for e in policy.step(state).exchanges]
    assert routes == [
        ("discriminator", 1, range(2, 5), range(1, 5)),
        ("generator", 2, range(2), range(3)),
    ]
    # Eight images over three ranks: the parts differ by one at most.
    sizes = [policy.plan(state, rank).updates[0].micro_batches[0].num_samples for rank in range(5)]
    assert sizes == [4, 4, 2, 3, 3]


def test_the_generators_ranks_name_the_real_images_of_the_discriminators_last_update() -> None:
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, discriminator_updates=2)
    updates = policy.step(ScheduleState()).updates
    assert [(u.network, u.first_sample) for u in updates] == [
        ("discriminator", 0),
        ("discriminator", 4),
        ("generator", 4),
    ]


def test_publications_that_are_underway_at_the_end_of_a_checkpoint_are_awaited_after_it() -> None:
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, delay_steps=2)
    state = steps_of(policy, 4)[-1][0]
    sent = policy.step(state).exchanges
    later = policy.advance(policy.advance(state))
    assert policy.step(later).arrivals == sent


def test_no_version_is_below_that_of_new_networks() -> None:
    """After a checkpoint of `alternate` whose generator had not started yet."""
    policy = Split(batch_images=4, num_ranks=2, discriminator_ranks=1, delay_steps=2)
    discriminator, generator = policy.step(ScheduleState(step=5, images_seen=20, discriminator_updates=5)).updates
    assert (discriminator.reads, generator.reads) == (0, 3)
    late = policy.step(ScheduleState(step=5, images_seen=20, generator_updates=5)).updates
    assert [update.reads for update in late] == [3, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator_ranks": 0}, "schedule.discriminator_ranks=0 must leave at least one of num_ranks=4 ranks"),
        ({"discriminator_ranks": 4}, "schedule.discriminator_ranks=4 must leave at least one of num_ranks=4 ranks"),
        ({"num_ranks": 1}, "schedule.policy=split needs at least one rank for each of its 2 roles, and num_ranks=1"),
        ({"discriminator_updates": 0}, "schedule.discriminator_updates=0 must be at least 1"),
        ({"publish_every": 0}, "schedule.publish_every=0 must be at least 1"),
        ({"delay_steps": -1}, "schedule.delay_steps=-1 must be at least 0"),
        (
            {"publish_every": 4, "max_staleness": 3},
            "schedule.max_staleness=3 must be at least delay_steps + publish_every - 1 = 4",
        ),
        ({"generator_start_images": 8}, "schedule.generator_start_images=8 leaves the ranks of one role idle"),
        ({"batch_images": 1}, "batch_images=1 must hold at least one of the images for each of 2 ranks"),
    ],
)
def test_bad_settings_name_key_value_rule_and_remedy(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Split(**{"batch_images": 8, "num_ranks": 4, "discriminator_ranks": 2, **settings})  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)
