"""`overlap` changes when things are done, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from fastgan.schedule import Action, Alternate, Compute, Policy, Start, Wait, execute, overlap
from tests.schedule.worlds import policies, programs, seeds


def final_values(actions: list[Action]) -> dict[str, int]:
    """Every name's last value, where a value is a hash of the action that made it and of all that it read."""
    values: dict[str, int] = {}
    for action in actions:
        read = tuple((name, values.get(name, 0)) for name in sorted(action.reads))
        what = action.updates if isinstance(action, Compute) else action.collective
        values |= {name: hash((type(action).__name__, what, name, read)) for name in action.writes}
    return values


@given(policies(max_ranks=6), st.integers(1, 5), seeds, st.data())
def test_every_action_finds_the_values_of_the_plain_order(
    policy: Policy, steps: int, seed: int, data: st.DataObject
) -> None:
    mine = programs(policy, steps, seed)[data.draw(st.integers(0, policy.num_ranks - 1))]
    moved = list(overlap(mine))
    assert sorted(map(repr, moved)) == sorted(map(repr, mine))
    assert final_values(moved) == final_values(mine)
    for kind in (Start, Wait, Compute):
        if kind is not Compute:
            assert [a for a in moved if isinstance(a, kind)] == [a for a in mine if isinstance(a, kind)]


def test_only_what_touches_nothing_of_it_overtakes_an_optimizer_step() -> None:
    def work(reads: str = "", writes: str = "") -> Compute:
        return Compute("learn", (), frozenset(reads), frozenset(writes))

    step = Compute("apply", (), frozenset("r"), frozenset("w"))
    for independent in (work(), work(reads="r"), work(reads="x", writes="y")):
        assert overlap([step, independent]) == (independent, step)
    for dependent in (work(reads="w"), work(writes="r"), work(writes="w")):
        assert overlap([step, dependent]) == (step, dependent)


def hidden_behind(actions: list[Action]) -> list[tuple[str, str]]:
    """(network whose gradient is on its way, computation meanwhile)."""
    found, underway = [], []
    for action in actions:
        if isinstance(action, Start) and action.collective.kind == "gradient":
            underway.append(action.collective.networks[0])
        elif isinstance(action, Wait) and action.collective.kind == "gradient":
            underway.remove(action.collective.networks[0])
        elif isinstance(action, Compute):
            found += [(network, action.kind) for network in underway]
    return found


def test_what_is_hidden() -> None:
    policy = Alternate(batch_images=8, num_ranks=2, share_fakes=False)
    assert hidden_behind(programs(policy, 3)[0]) == []
    assert hidden_behind(list(overlap(programs(policy, 3)[0]))) == [
        ("discriminator", "generate"),
        ("generator", "judge_real"),
        ("discriminator", "generate"),
        ("generator", "judge_real"),
        ("discriminator", "generate"),
    ]


def test_shared_fakes_leave_nothing_to_hide_the_discriminators_reduction_behind() -> None:
    policy = Alternate(batch_images=8, num_ranks=2, share_fakes=True)
    assert set(hidden_behind(list(overlap(programs(policy, 3)[0])))) == {("generator", "judge_real")}


@given(policies(max_ranks=6), seeds, st.floats(0.1, 10))
def test_overlap_is_never_slower(policy: Policy, seed: int, collective_seconds: float) -> None:
    plain = programs(policy, 4, seed)

    def cost(rank: int, what: object) -> float:
        return rank + 1.0 if isinstance(what, Compute) else collective_seconds

    before = execute(plain, cost)
    after = execute([list(overlap(mine)) for mine in plain], cost)
    assert not after.stuck
    assert max(after.seconds) <= max(before.seconds) * (1 + 1e-9)
