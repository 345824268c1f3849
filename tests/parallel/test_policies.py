"""Every policy on two ranks trains what one process trains on both ranks' batches, also with unequal shares."""

from dataclasses import replace

import pytest

from fastgan.dist import World, world_from_environment
from fastgan.errors import ConfigError
from fastgan.schedule import Alternate, ScheduleState
from fastgan.train.agreement import Agreement
from fastgan.train.build_engines import choose_engines
from fastgan.train.config import load_config
from fastgan.train.step_statistics import Statistics
from tests.parallel.ranks import Ranks
from tests.parallel.test_parity import ENGINES, check
from tests.parallel.toy import Case, build, train_steps


@pytest.mark.parametrize("engine", ENGINES)
def test_joint_equals_one_process(two_ranks: Ranks, engine: str) -> None:
    choice = ENGINES[engine]
    case = Case(discriminator=choice, generator=choice, penalties=("r1", "r2"), policy="joint", loss="relativistic")
    check(two_ranks, case)
    check(two_ranks, replace(case, micro_batch_images=2))


@pytest.mark.parametrize(("policy", "engine"), [("alternate", "flat"), ("alternate", "ddp"), ("joint", "flat")])
def test_unequal_shares_are_the_plain_mean_over_the_batch(two_ranks: Ranks, policy: str, engine: str) -> None:
    choice = ENGINES[engine]
    case = Case(discriminator=choice, generator=choice, penalties=("r1",), policy=policy, micro_batch_images=2)
    check(two_ranks, replace(case, shares=(1, 5)))


def test_unequal_shares_of_several_discriminators_are_the_plain_mean(two_ranks: Ranks) -> None:
    choice = ENGINES["flat"]
    case = Case(discriminator=choice, generator=ENGINES["ddp"], members=(choice,), micro_batch_images=2, shares=(1, 5))
    check(two_ranks, case)


def num_discriminator_updates(case: Case) -> list[int]:
    """How many the state counts after each number of steps."""
    counts = []
    for num_steps in range(1, case.num_steps + 1):
        state = build(case)
        train_steps(state, replace(case, num_steps=num_steps))
        counts.append(state.schedule.discriminator_updates)
    return counts


def test_balance_decides_on_two_ranks_what_it_decides_on_one(two_ranks: Ranks) -> None:
    """A band that no statistic reaches: one update more in each step, from the third on."""
    case = Case(discriminator=ENGINES["ddp"], generator=ENGINES["ddp"], policy="balance", num_steps=4)
    check(two_ranks, case)
    assert two_ranks.run(num_discriminator_updates, case) == [[1, 2, 4, 7]] * 2


class FixedPace:
    """Stands for a measurement."""

    def __init__(self, world: World) -> None:
        self.world = world

    def microseconds(self, plan: object) -> int:
        del plan
        return 1000 * (self.world.rank + 1)


def agreed_microseconds() -> tuple[int, ...]:
    world = world_from_environment()
    plan = Alternate(batch_images=4, num_ranks=2).plan(ScheduleState(), world.rank)
    return Agreement(world).agree(plan, Statistics(), FixedPace(world)).rank_microseconds  # type: ignore[arg-type]


def test_all_ranks_learn_the_pace_of_all(two_ranks: Ranks) -> None:
    assert two_ranks.run(agreed_microseconds) == [(1000, 2000)] * 2


@pytest.mark.parametrize(
    ("engine", "others", "reason", "remedy"),
    [
        ("fsdp2", [], "gathers weights in every micro-batch", "ddp or flat, or schedule.shares=equal"),
        ("deepspeed", [], "gathers weights in every micro-batch", "ddp or flat, or schedule.shares=equal"),
        ("ddp", ["schedule.policy=joint"], "arranges its buckets anew in a forward pass", "flat"),
        ("ddp", ["ensemble.members=[{name: two}]"], "arranges its buckets anew in a forward pass", "flat"),
    ],
)
def test_engines_whose_ranks_meet_in_every_micro_batch_refuse_unequal_shares(
    engine: str, others: list[str], reason: str, remedy: str
) -> None:
    settings = [f"parallel.engine={engine}", *others, "schedule.shares=[3,1]"]
    config = load_config("digits", overrides=settings)
    world = World(0, 2, 0, is_launched=True)
    asked = rf"schedule.shares=\[3, 1\] with parallel.engine={engine} of "
    with pytest.raises(ConfigError, match=rf"{asked}.*{reason}.*; give parallel.engine={remedy}$"):
        choose_engines(config, world=world)
