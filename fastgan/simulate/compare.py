"""What a schedule gains and loses: against one rank alone, and against another schedule."""

from typing import NamedTuple

from fastgan.schedule import Alternate, Policy, Split
from fastgan.simulate.cost import CostModel
from fastgan.simulate.run import Simulated, simulate


class Gain(NamedTuple):
    """Steps of `split` against those of `alternate` on the same ranks.

    times: images per second of the one over those of the other.
    seconds, alternate_seconds: of a step with the batch of `split`.
    """

    times: float
    seconds: float
    alternate_seconds: float


def gain_of_split(policy: Split, cost: CostModel) -> Gain:
    """What is gained over ranks that make both networks' updates, fakes shared, one after the other.

    Ranks wait for gradients where they are started in both, as without `parallel.overlap`. A batch that does not divide
    over all ranks is made a little larger for `alternate`, and images per second are compared.
    """
    unit = policy.num_ranks * (policy.micro_batch_images or 1)
    same = Alternate(
        batch_images=-(-policy.batch_images // unit) * unit,
        micro_batch_images=policy.micro_batch_images,
        num_ranks=policy.num_ranks,
        penalties=policy.penalties,
        discriminator_updates=policy.discriminator_updates,
        generator_updates=policy.generator_updates,
    )
    # Two intervals of every penalty, and the two steps at the ends that do not count.
    num_steps = 2 * min(64, max([4, *(penalty.every for penalty in policy.penalties)])) + 2
    rates = [simulate(p, cost, num_steps=num_steps, overlapped=False).images_per_second for p in (policy, same)]
    num_images = policy.batch_images * policy.discriminator_updates
    return Gain(rates[0] / rates[1], *(num_images / rate for rate in rates))


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
