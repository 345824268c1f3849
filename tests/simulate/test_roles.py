"""The role sizes of `split`: as good as trying all of them."""

from dataclasses import replace

import pytest

from fastgan.schedule import LazyPenalty, Split
from fastgan.simulate import CostModel, Fabric, Part, best_roles, gain_of_split, parts_from_passes, simulate

FABRIC = Fabric(gpus_per_node=8, intra_bytes_per_second=200e9, inter_bytes_per_second=45e9)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("num_ranks", [2, 5, 16])
def test_the_roles_found_are_within_a_hair_of_the_best(num_ranks: int, ratio: float) -> None:
    parts = parts_from_passes(Part(0.002, 0.001), Part(0.002 * ratio, 0.001 * ratio))
    cost = CostModel(parts=parts, gradient_bytes={"discriminator": 1e8, "generator": 1e8}, fabric=FABRIC)
    policy = Split(batch_images=16 * num_ranks, num_ranks=num_ranks, discriminator_ranks=1)
    times = {
        num: simulate(replace(policy, discriminator_ranks=num), cost, num_steps=8).step_seconds[1:-1].mean()
        for num in range(1, num_ranks)
    }
    found = best_roles(policy, cost).discriminator_ranks
    # Ranks that share a batch unevenly make small steps in the curve.
    assert times[found] <= 1.02 * min(times.values())


def test_the_gain_is_that_of_images_per_second_over_alternate() -> None:
    """Where a pass costs the same whatever it holds each role makes its own passes only; else both do as much work."""
    policy = Split(batch_images=8, num_ranks=2, discriminator_ranks=1)
    sizes = {"discriminator": 1.0, "generator": 1.0}
    # 11 passes one after the other, fakes shared; 7 on the slower of two roles, which makes fakes of its own.
    launch_bound = CostModel(parts=parts_from_passes(Part(0.01), Part(0.01)), gradient_bytes=sizes, fabric=FABRIC)
    found = gain_of_split(policy, launch_bound)
    assert found.times == pytest.approx(11 / 7, rel=0.01)
    assert found.times == pytest.approx(found.alternate_seconds / found.seconds)
    # Two discriminator updates in a step: 14 passes instead of 7 and 7 and 4 one after the other.
    twice = gain_of_split(replace(policy, discriminator_updates=2), launch_bound)
    assert (twice.seconds, twice.alternate_seconds) == pytest.approx((0.14, 0.18), rel=0.01)
    busy = CostModel(parts=parts_from_passes(Part(0, 0.01), Part(0, 0.01)), gradient_bytes=sizes, fabric=FABRIC)
    assert gain_of_split(policy, busy).times == pytest.approx(11 / 14, rel=0.01)
    # Nine images do not divide over two ranks: images per second are compared, not steps.
    odd = gain_of_split(replace(policy, batch_images=9), busy)
    assert odd.times == pytest.approx(11 / 14, rel=0.01)


def test_the_gain_counts_penalties_and_waits_for_gradients_where_they_are_started() -> None:
    policy = Split(batch_images=8, num_ranks=2, discriminator_ranks=1, penalties=(LazyPenalty("r1", 1.0, 2),))
    parts = parts_from_passes(Part(0.01), Part(0.01), ("r1",))
    sizes = {"discriminator": 1e8, "generator": 1e8}
    found = gain_of_split(policy, CostModel(parts=parts, gradient_bytes=sizes, fabric=FABRIC, hides_reduction=False))
    # A penalty is five passes, in one of two updates; of split's roles each is one rank, which reduces with nobody.
    assert found.seconds == pytest.approx(0.07 + 0.025, rel=0.01)
    reductions = 2 * FABRIC.all_reduce_seconds(range(2), 1e8)
    assert found.alternate_seconds == pytest.approx(0.11 + 0.025 + reductions, abs=0.1 * reductions)
