"""What a schedule gains and loses: against one rank alone, and against another schedule."""

from fastgan.schedule import Alternate, Policy
from fastgan.simulate.cost import CostModel
from fastgan.simulate.run import Simulated, simulate


def alone(policy: Policy) -> Alternate:
    """One rank that makes the same updates by `alternate`, on a rank's mean part of the batch."""
    return Alternate(
        batch_images=max(1, policy.batch_images // policy.num_ranks),
        penalties=policy.penalties,
        discriminator_updates=getattr(policy, "discriminator_updates", 1),
        generator_updates=getattr(policy, "generator_updates", 1),
        share_fakes=getattr(policy, "share_fakes", True),
    )


def efficiency(policy: Policy, simulated: Simulated, cost: CostModel, *, num_steps: int = 20) -> float:
    """Images per second and rank, over those of one rank `alone` without noise.

    It is above 1 where the policy computes less than `alternate` (`joint`), or has more images in a pass (`split`).
    """
    one = simulate(alone(policy), cost, num_steps=num_steps).images_per_second
    return simulated.images_per_second / policy.num_ranks / one
