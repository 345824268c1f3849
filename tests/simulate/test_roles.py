"""The role sizes of `split`: as good as trying all of them."""

from dataclasses import replace

import pytest

from fastgan.schedule import Split
from fastgan.simulate import CostModel, Fabric, Part, best_roles, parts_from_passes, simulate

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
