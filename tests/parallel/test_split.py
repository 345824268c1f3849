"""`split` on two and three ranks: what is trained, what is read, what a rank holds, and what happens to all."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from fastgan.dist import ALONE
from fastgan.parallel.publish import Channel
from fastgan.schedule import LazyPenalty, ScheduleState
from fastgan.train.roles import Roles
from tests.parallel import split
from tests.parallel.ranks import RankError, Ranks
from tests.parallel.split import SplitCase, policy_of
from tests.parallel.toy import largest_difference
from tests.train.test_dirac import by_hand, largest_rate, shrinks


def weights_of(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Those of both roles; the ranks of a role must have the same."""
    found: dict[str, Any] = {}
    for answer in answers:
        for name, value in answer["weights"].items():
            assert (found.setdefault(name, value) == value).all(), f"rank {answer['rank']} has another {name}"
    return found


@pytest.mark.parametrize(("every", "delay"), [(1, 0), (1, 1), (1, 4), (3, 0), (2, 1)])
def test_two_ranks_in_lockstep_equal_a_plain_loop_with_the_same_staleness(
    two_ranks: Ranks, every: int, delay: int
) -> None:
    policy = policy_of(2, 1, publish_every=every, delay_steps=delay)
    answers = two_ranks.run(split.trained, SplitCase(policy))
    hand = split.by_hand(policy, num_steps=7)
    assert largest_difference(weights_of(answers), hand) < 1e-6
    reads = [max(0, (step - delay) // every * every) for step in range(7)]
    assert [[read.version for read in answer["reads"]] for answer in answers] == [reads] * 2
    staleness = [read.staleness for read in answers[0]["reads"]]
    assert staleness == [step - read for step, read in enumerate(reads)]
    assert max(staleness) == min(6, policy.bound) or policy.bound > 6


@pytest.mark.parametrize("discriminator_ranks", [1, 2])
@pytest.mark.parametrize("engine", ["flat", "ddp"])
def test_three_ranks_reduce_within_their_role(three_ranks: Ranks, engine: str, discriminator_ranks: int) -> None:
    policy = policy_of(3, discriminator_ranks)
    answers = three_ranks.run(split.trained, SplitCase(policy, engine=engine))
    assert largest_difference(weights_of(answers), split.by_hand(policy, num_steps=7)) < 1e-6
    micro = policy_of(3, discriminator_ranks, micro_batch_images=2)
    answers = three_ranks.run(split.trained, SplitCase(micro, engine=engine))
    assert largest_difference(weights_of(answers), split.by_hand(policy, num_steps=7)) < 1e-6


def test_a_rank_holds_neither_gradients_nor_optimizer_state_of_the_other_network(two_ranks: Ranks) -> None:
    """Beside two buffers: weights and two averages of Adam of its own network, of the other one only weights."""
    for found, own, other, num_copies in zip(
        two_ranks.run(split.kept_bytes, SplitCase(policy_of(2, 1))),
        ("discriminator", "generator"),
        ("generator", "discriminator"),
        # The generator's average lives where the generator is trained.
        (3, 4),
        strict=True,
    ):
        assert found["trained_of_other"] == 0
        num_buffers = {network: found[f"buffers of {network}"] for network in (own, other)}
        assert max(num_buffers.values()) <= 2
        needed = (num_copies + num_buffers[own]) * found[own] + (1 + num_buffers[other]) * found[other]
        # Spectral norm's vectors have no averages; buffers are padded.
        assert 0.97 * needed < found["kept"] < 1.03 * needed
        # As much as an optimizer of the other network, or its gradients, would not fit into that.
        assert found[other] > 0.1 * needed


def test_a_source_waits_rather_than_take_one_buffer_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """To readers that have not taken anything yet."""
    works: list[mock.Mock] = []

    def broadcast(*_: object, **__: object) -> mock.Mock:
        works.append(mock.Mock(**{"is_completed.return_value": False}))
        return works[-1]

    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    channel = Channel("generator", {"weight": torch.zeros(3)}, source=0, group=mock.Mock(), num_buffers=2)
    for step in range(4):
        channel.start(step=step, version=step)
    assert channel.underway == (2, 3)
    assert [work.wait.call_count for work in works] == [1, 1, 0, 0]


def test_a_reader_that_takes_two_publications_reads_the_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    weight = torch.zeros(3)
    channel = Channel("generator", {"weight": weight}, source=0, group=mock.Mock(), num_buffers=3)
    channel.restore((step, 10 * step, {"weight": torch.full((3,), float(step))}) for step in (1, 2, 3))
    assert (weight[0], channel.step, channel.version) == (1, 1, 10)
    channel.take(2)
    assert (weight[0], channel.step, channel.version) == (3, 3, 30)


def test_without_publications_in_a_checkpoint_its_weights_are_those_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    for role, other, version in (("discriminator", "generator", 5), ("generator", "discriminator", 7)):
        channel = Channel(other, {"weight": torch.zeros(1)}, source=1, group=mock.Mock(), num_buffers=2)
        roles = Roles(policy_of(2, 1), role, ALONE, ALONE, {}, {other: channel})  # type: ignore[arg-type, dict-item]
        assert not roles.restore(ScheduleState(step=6, discriminator_updates=7, generator_updates=5), {})
        assert (channel.step, channel.version) == (6, version)


@pytest.mark.parametrize("staleness", [1, 2, 4])
def test_dirac_gan_converges_and_diverges_on_the_two_sides_of_the_largest_rate(
    two_ranks: Ranks, staleness: int
) -> None:
    """The trained path is that of the versions read, and both sides of what is predicted for small steps."""
    # A stronger penalty than in the tests of one process makes both come about in fewer steps.
    g, num_steps = 0.3, 600
    policy = policy_of(2, 1, batch_images=2, delay_steps=staleness, penalties=(LazyPenalty("r1", g / 2),))
    for factor in (0.8, 1.2):
        rate = factor * largest_rate(staleness, g=g)
        psi, theta = two_ranks.run(split.dirac_path, SplitCase(policy, num_steps=num_steps, rate=rate))
        path = np.array([theta, psi]).T
        assert shrinks(path) == (factor < 1)
        assert path[:20] == pytest.approx(by_hand(policy, rate=rate, num_steps=20, g=g), abs=5e-6)


@pytest.mark.parametrize("slow", ["discriminator", "generator"])
def test_free_running_roles_drift_up_to_the_bound_and_read_what_has_arrived(three_ranks: Ranks, slow: str) -> None:
    bound, num_steps = 3, 12
    policy = policy_of(3, 2, max_staleness=bound, lockstep=False)
    answers = three_ranks.run(split.trained, SplitCase(policy, num_steps=num_steps, sleep={slow: 0.2}))
    weights_of(answers)
    by_role = {answer["role"]: answer["reads"] for answer in answers}
    assert answers[0]["reads"] == answers[1]["reads"]
    for reads in by_role.values():
        assert [read.step for read in reads] == list(range(num_steps))
        assert all(0 <= read.staleness <= bound and read.version == read.step - read.staleness for read in reads)
        versions = [read.version for read in reads]
        assert versions == sorted(versions)
    # The quick role has to wait at the bound; to the slow one everything comes early.
    quick = "generator" if slow == "discriminator" else "discriminator"
    assert max(read.staleness for read in by_role[quick]) == bound
    assert sum(read.staleness for read in by_role[slow]) < sum(read.staleness for read in by_role[quick])


def test_an_update_that_is_not_finite_is_skipped_by_its_role_alone(two_ranks: Ranks) -> None:
    answers = two_ranks.run(split.trained, SplitCase(policy_of(2, 1), nan_image=30))
    assert [answer["skipped"] for answer in answers] == [1, 0]
    assert all(np.isfinite(value).all() for value in weights_of(answers).values())


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(three_ranks: Ranks, rank: int) -> None:
    policy = policy_of(3, 1, delay_steps=2, max_staleness=4, lockstep=False)
    case = SplitCase(policy, num_steps=20, interrupted=(rank, 3), sleep={"generator": 0.01})
    answers = three_ranks.run(split.trained, case)
    # Voted at the beginning of step 4, acted on bound + 1 steps later, when that step has ended.
    assert [answer["stopped_at"] for answer in answers] == [4 + (4 + 1) + 1] * 3


def test_a_version_that_the_plan_does_not_name_is_an_error(two_ranks: Ranks) -> None:
    answers = two_ranks.run(split.tampered, SplitCase(policy_of(2, 1)))
    for answer, network in zip(answers, ("generator", "discriminator"), strict=True):
        wrong = f"DistributedError: version 4 of the {network}, published in step 3, arrived where version 3 of step 3"
        assert answer.startswith(wrong)


def test_ranks_that_plan_different_steps_find_out(two_ranks: Ranks) -> None:
    answers = two_ranks.run(split.another_plan, SplitCase(policy_of(2, 1)))
    assert [answer.partition(";")[0] for answer in answers] == [
        f"DistributedError: rank {rank} and others plan different steps" for rank in range(2)
    ]


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_killed_rank_ends_all_others_with_an_error(three_ranks: Ranks, lockstep: bool) -> None:
    case = SplitCase(policy_of(3, 1, lockstep=lockstep), killed=(2, 3), num_steps=10_000)
    with pytest.raises(RankError) as raised:
        three_ranks.run(split.trained_until_a_death, case)
    text = str(raised.value)
    for rank in (0, 1):
        assert f"rank {rank} of 3 lost another rank" in text
    assert "a rank ended without an answer" in text
