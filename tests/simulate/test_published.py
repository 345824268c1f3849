"""Predictions against published training speeds; some figures of each table set the costs, the others are predicted.

StyleGAN3-T on A100 GPUs: docs/configs.md of github.com/NVlabs/stylegan3, batch 32 throughout.
StyleGAN2-ADA on V100 GPUs: README.md of github.com/NVlabs/stylegan2-ada-pytorch, middle of the ranges given, batches of
its configuration `auto`.
"""

import pytest

from fastgan.schedule import Alternate, LazyPenalty
from fastgan.simulate import CostModel, Fabric, Part, parts_from_passes, simulate

# Eight GPUs on NVLink.
FABRIC = Fabric(gpus_per_node=8, intra_bytes_per_second=200e9, inter_bytes_per_second=45e9)
# Forward passes in a step, by the counts of `parts_from_passes`: 4 of the generator, 8 of the discriminator.
NUM_PASSES = 12

# Resolution: seconds per 1,000 images on 1, 2, 4 and 8 GPUs, and images per GPU and pass on each.
STYLEGAN3_T = {
    256: ({1: 49.81, 2: 25.05, 4: 13.26, 8: 7.32}, {1: 16, 2: 16, 4: 8, 8: 4}),
    512: ({1: 90.25, 2: 45.42, 4: 22.81, 8: 12.29}, {1: 8, 2: 8, 4: 8, 8: 4}),
}
STYLEGAN2_ADA = {512: ({1: 73.7, 8: 9.6}, 8), 1024: ({1: 158.0, 8: 20.4}, 4)}


def cost_of(step: Part) -> CostModel:
    """Networks whose step takes `step` on one GPU in one pass."""
    forward = step.scaled(1 / NUM_PASSES)
    sizes = {"discriminator": 4 * 29e6, "generator": 4 * 30e6}
    return CostModel(parts=parts_from_passes(forward, forward, ("r1",)), gradient_bytes=sizes, fabric=FABRIC)


def seconds_per_thousand(policy: Alternate, cost: CostModel) -> float:
    return 1000 / simulate(policy, cost, num_steps=6).images_per_second


@pytest.mark.parametrize("resolution", [256, 512])
def test_stylegan3_on_one_to_eight_gpus(resolution: int) -> None:
    """Two of four figures give the time of a pass and of an image; the other two are predicted."""
    published, images = STYLEGAN3_T[resolution]
    many, few = 4, 8
    slope = (published[many] * images[many] * many - published[few] * images[few] * few) / 1e3
    per_image = slope / (images[many] - images[few])
    fixed = published[few] * images[few] * few / 1e3 - per_image * images[few]
    cost = cost_of(Part(fixed, per_image))
    for num_ranks in (1, 2):
        policy = Alternate(
            batch_images=32, micro_batch_images=images[num_ranks], num_ranks=num_ranks, share_fakes=False
        )
        assert seconds_per_thousand(policy, cost) == pytest.approx(published[num_ranks], rel=0.05)


@pytest.mark.parametrize("resolution", [512, 1024])
def test_stylegan2_from_one_to_eight_gpus(resolution: int) -> None:
    """Equal images per GPU: what is lost is communication, a few percent."""
    published, images = STYLEGAN2_ADA[resolution]
    cost = cost_of(Part(0.0, published[1] / 1e3))
    eight = seconds_per_thousand(Alternate(batch_images=8 * images, num_ranks=8, share_fakes=False), cost)
    assert eight == pytest.approx(published[8], rel=0.06)


def test_stylegan2_at_256_pixels_is_bound_by_what_a_step_costs_without_images() -> None:
    """104 ms + 6.0 ms per image on an A100; 16 images on one GPU, 8 on each of eight: 66% efficiency."""
    cost = cost_of(Part(0.104, 0.006))
    one = seconds_per_thousand(Alternate(batch_images=16, share_fakes=False), cost)
    eight = seconds_per_thousand(Alternate(batch_images=64, num_ranks=8, share_fakes=False), cost)
    assert one / eight / 8 == pytest.approx(0.66, abs=0.02)


def test_removing_what_a_step_costs_without_images_is_worth_more_than_overlap() -> None:
    """At 8 GPUs and 64 images: launch overhead 1.4 to 4 times, exact overlap 5 to 18 percent before that."""
    policy = Alternate(batch_images=64, num_ranks=8, penalties=(LazyPenalty("r1", 1.0, 16),), share_fakes=False)
    eager, lean = cost_of(Part(0.104, 0.006)), cost_of(Part(0.010, 0.006))
    gain = seconds_per_thousand(policy, eager) / seconds_per_thousand(policy, lean)
    assert 1.4 < gain < 4
