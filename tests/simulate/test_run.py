"""The executor of segments equals the one of single ranks, and its figures are what can be worked out by hand."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan.errors import ConfigError
from fastgan.schedule import Alternate, Collective, Compute, Joint, LazyPenalty, Policy, Split, Ticket, execute, overlap
from fastgan.schedule.policy import MEASURED_STEPS
from fastgan.simulate import CostModel, Fabric, Noise, Part, efficiency, parts_from_passes, simulate, unit_model
from fastgan.simulate.cost import Work
from fastgan.simulate.history import History
from tests.schedule.worlds import policies, programs

FABRIC = Fabric(gpus_per_node=4, intra_bytes_per_second=200e9, inter_bytes_per_second=45e9)
KINDS = ("r1", "r2", "wgan_gp")
COST = CostModel(
    parts=parts_from_passes(Part(0.004, 0.001), Part(0.003, 0.0015), KINDS)
    | {"apply discriminator": Part(0.001), "apply generator": Part(0.002)},
    gradient_bytes={"discriminator": 2e8, "generator": 1e8},
    fabric=FABRIC,
)


def seconds_rank_by_rank(policy: Policy, cost: CostModel, noise: Noise, *, num_steps: int, overlapped: bool) -> float:
    """When the last rank ends, by the executor of single ranks."""
    history = History(policy, cost, noise, num_steps=num_steps)
    learned: dict[str, Compute] = {}

    def seconds(rank: int, what: Compute | Collective) -> float:
        if isinstance(what, Collective):
            learn = learned[what.networks[0]] if what.kind == "gradient" else None
            return history.collective_seconds(what, learn)
        if what.kind == "learn":
            learned.update({update.network: what for update in what.updates})
        return float(history.compute_seconds(what, range(rank, rank + 1))[0])

    mine = programs(policy, num_steps)
    done = execute([list(overlap(actions)) if overlapped else actions for actions in mine], seconds)
    assert not done.stuck
    return max(done.seconds)


@settings(max_examples=60, deadline=None)
@given(policies(max_ranks=9), st.booleans(), st.sampled_from([0.0, 0.3]), st.integers(0, 99))
def test_segments_equal_single_ranks(policy: Policy, overlapped: bool, jitter: float, seed: int) -> None:
    if policy.shares == "measured" or type(policy).__name__ == "Balance":
        return  # Their plans depend on what has been agreed on, which differs between the two executors.
    noise = Noise(jitter=jitter, straggler_share=0.3, seed=seed)
    found = simulate(policy, COST, num_steps=4, overlapped=overlapped, noise=noise)
    expected = seconds_rank_by_rank(policy, COST, noise, num_steps=4, overlapped=overlapped)
    assert found.step_seconds.sum() == pytest.approx(expected, rel=1e-12)


def test_one_rank_takes_the_sum_of_its_parts() -> None:
    policy = Alternate(batch_images=10, penalties=(LazyPenalty("r1", 1.0, 4),))
    found = simulate(policy, COST, num_steps=9, overlapped=False)
    generate, judge = 0.004 + 0.010, 0.003 + 0.015
    step = generate + judge + 5 * judge + 0.001 + 2 * judge + 2 * generate + 0.002
    # The penalty is due in the first, the fifth and the ninth step.
    expected = [step + 5 * judge * (number % 4 == 0) for number in range(9)]
    assert found.step_seconds == pytest.approx(expected)
    assert found.images_per_second == pytest.approx(7 * 10 / sum(expected[1:-1]))
    assert found.idle_share == {"both": pytest.approx(0.0)}
    assert efficiency(policy, found, COST, num_steps=9) == pytest.approx(1.0)


def test_micro_batches_take_their_fixed_time_each_and_fakes_are_made_again() -> None:
    whole, halves = Alternate(batch_images=10), Alternate(batch_images=10, micro_batch_images=5)
    added = simulate(halves, COST).step_seconds[1] - simulate(whole, COST).step_seconds[1]
    fixed_of_a_step = 0.004 + 6 * 0.003 + 2 * 0.003 + 2 * 0.004
    assert added == pytest.approx(fixed_of_a_step + 2 * 0.004 + 10 * 0.001)


def test_joint_saves_the_second_look_at_the_fakes() -> None:
    saved = (simulate(p, COST).step_seconds[1] for p in (Alternate(batch_images=10), Joint(batch_images=10)))
    assert next(saved) - next(saved) == pytest.approx(0.003 + 0.015)


def test_a_step_waits_for_the_slowest_rank() -> None:
    policy = Alternate(batch_images=64, num_ranks=8)
    plain, slow = (
        simulate(policy, COST, noise=Noise(straggler_share=share, straggler_slowdown=2.0)) for share in (0.0, 0.3)
    )
    assert slow.step_seconds[1] / plain.step_seconds[1] == pytest.approx(2.0, rel=0.1)
    assert 0.2 < slow.idle_share["both"] < 0.5


def test_measured_shares_take_work_from_the_slow_ranks() -> None:
    settings = {"batch_images": 256, "micro_batch_images": 2, "num_ranks": 8}
    noise = Noise(straggler_share=0.3, straggler_slowdown=2.0)
    equal, measured = (
        simulate(Alternate(**settings, shares=shares), COST, num_steps=20, noise=noise)  # type: ignore[arg-type]
        for shares in ("equal", "measured")
    )
    # As in training: ranks compare their times at the end of every 16th step, and the step after the next follows.
    decided = MEASURED_STEPS + 1
    assert measured.step_seconds[:decided] == pytest.approx(equal.step_seconds[:decided])
    assert measured.step_seconds[decided] < 0.8 * equal.step_seconds[decided]
    assert measured.step_seconds[-1] < 0.8 * equal.step_seconds[-1]


def test_jitter_is_repeatable_and_follows_its_seed() -> None:
    policy = Alternate(batch_images=64, num_ranks=8)
    found = [simulate(policy, COST, noise=Noise(jitter=0.1, seed=seed)).step_seconds for seed in (1, 1, 2)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_jitter_has_the_mean_one_and_seeds_choose_the_stragglers() -> None:
    found = Noise(jitter=0.5).jitters(100_000, (1, 2, 3))
    assert found.mean() == pytest.approx(1.0, abs=0.01)
    assert np.log(found).std() == pytest.approx(0.5, abs=0.01)
    one, other = (Noise(straggler_share=0.3, straggler_slowdown=2.0, seed=seed).factors(10_000) for seed in (1, 2))
    assert not np.array_equal(one, other)
    for factors in (one, other):
        assert set(factors) == {1.0, 2.0}
        assert factors.mean() == pytest.approx(1.3, abs=0.02)


def test_votes_and_publications_take_their_time() -> None:
    ranks = range(9)
    vote = COST.collective_seconds(Collective(Ticket(0, 0), "vote", (), ranks))
    assert vote == COST.fabric.all_reduce_seconds(ranks, 64) > 0
    sent = COST.collective_seconds(Collective(Ticket(0, 1), "publish", ("generator",), ranks))
    assert sent == COST.fabric.broadcast_seconds(ranks, COST.gradient_bytes["generator"]) > 0


def test_a_reduction_hides_behind_the_shortest_backward_pass() -> None:
    """Of two ranks of the generator one has 2 images, the other 3."""
    policy = Split(batch_images=5, num_ranks=3, discriminator_ranks=1)
    cost = replace(COST, gradient_bytes={"discriminator": 1e10, "generator": 1e10})
    history = History(policy, cost, Noise(), num_steps=3)
    learn = next(a for a in history.programs[-1] if isinstance(a, Compute) and a.kind == "learn")
    reduction = Collective(Ticket(0, 1), "gradient", ("generator",), range(1, 3))
    two, three = (cost.backward_seconds(learn, Work(np.array([n]), np.array([1])))[0] for n in (2, 3))
    assert two < three
    assert history.collective_seconds(reduction, learn) == cost.collective_seconds(reduction, two)


@pytest.mark.parametrize("policy", [Alternate(batch_images=1, discriminator_updates=3), Joint(batch_images=1)])
def test_one_network_after_the_other_and_both_at_once_are_not_stale(policy: Policy) -> None:
    found = simulate(policy, COST)
    assert found.max_staleness == found.mean_staleness == 0


def test_a_reduction_hides_behind_the_backward_pass_but_for_its_last_piece() -> None:
    policy = Alternate(batch_images=64, num_ranks=8)
    hidden, shown = (simulate(policy, replace(COST, hides_reduction=h), overlapped=False) for h in (True, False))
    reductions = sum(COST.fabric.all_reduce_seconds(range(8), num_bytes) for num_bytes in (2e8, 1e8))
    pieces = [(2e8, math.ceil(2e8 / (25 << 20))), (1e8, math.ceil(1e8 / (25 << 20)))]
    left = sum(COST.fabric.all_reduce_seconds(range(8), num_bytes) / number for num_bytes, number in pieces)
    assert shown.step_seconds[1] - hidden.step_seconds[1] == pytest.approx(reductions - left)


def test_split_reports_the_idle_time_of_each_role_and_the_staleness() -> None:
    policy = Split(batch_images=64, num_ranks=8, discriminator_ranks=4, publish_every=2)
    found = simulate(policy, COST, num_steps=40)
    # The generator's ranks have less to do.
    assert found.idle_share["discriminator"] < 0.1 < found.idle_share["generator"]
    assert found.max_staleness == 2
    assert found.mean_staleness == pytest.approx(1.5, abs=0.1)


def test_ten_thousand_ranks_take_seconds() -> None:
    policy = Alternate(batch_images=80_000, num_ranks=10_000, penalties=(LazyPenalty("r1", 1.0, 16),))
    begin = time.process_time()
    found = simulate(policy, COST, num_steps=25, noise=Noise(jitter=0.05))
    # A hundred steps in a minute would leave 15 seconds.
    assert time.process_time() - begin < 7.5
    assert found.num_ranks == 10_000


def test_the_model_of_pictures_knows_all_that_a_policy_needs() -> None:
    policy = Joint(batch_images=8, num_ranks=4, penalties=(LazyPenalty("r1", 1.0),))
    # Two reductions; the vote is not in every step.
    assert simulate(policy, unit_model(policy)).step_seconds[1] == pytest.approx(1 + 1 + 6 + 2 + 5 + 0.4 + 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(Alternate(batch_images=1), COST, num_steps=2), "steps=2 must be at least 3"),
        (lambda: Noise(jitter=1.0), r"jitter=1.0 must be in \[0, 1\)"),
        (lambda: Noise(straggler_share=2.0), r"stragglers=2.0 must be in \[0, 1\]"),
        (lambda: Noise(straggler_slowdown=0.5), "slowdown=0.5 must be at least 1"),
        (lambda: Noise(seed=-1), "seed=-1 must be at least 0"),
        (
            lambda: simulate(Alternate(batch_images=1), replace(COST, parts=parts_from_passes(Part(0), Part(0)))),
            "20 steps end after 0 s, which no steps do; give other times",
        ),
        (
            lambda: simulate(
                Alternate(batch_images=1), replace(COST, parts=parts_from_passes(Part(1e308), Part(1e308)))
            ),
            "20 steps end after inf s",
        ),
        (
            lambda: simulate(Alternate(batch_images=1, penalties=(LazyPenalty("zero_centered", 1.0),)), COST),
            "nothing says how long 'penalty zero_centered' takes; measure it with fastgan bench step",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(call: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()  # type: ignore[operator]
