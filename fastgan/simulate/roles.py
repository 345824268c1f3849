"""How many ranks of `split` take which role."""

from dataclasses import replace

from fastgan.schedule import Split
from fastgan.simulate.cost import CostModel
from fastgan.simulate.run import simulate

# Enough for the longest wait to show.
NUM_STEPS = 8


def best_roles(policy: Split, cost: CostModel) -> Split:
    """The policy with the number of discriminator ranks whose steps are predicted to be shortest.

    More ranks in a role make its part of the step shorter and the other's longer, so the step time falls and then
    rises: a search by thirds finds the valley in a few dozen simulations, whatever the number of ranks.
    """
    # A role has no more ranks than there are images, or micro-batches, in a batch.
    most = policy.batch_images // (policy.micro_batch_images or 1)
    few, many = max(1, policy.num_ranks - most), min(policy.num_ranks - 1, most)
    seconds: dict[int, float] = {}

    def step_seconds(num: int) -> float:
        if num not in seconds:
            found = simulate(replace(policy, discriminator_ranks=num), cost, num_steps=NUM_STEPS)
            seconds[num] = float(found.step_seconds[1:-1].mean())
        return seconds[num]

    while many - few > 2:
        third = (many - few) // 3
        if step_seconds(few + third) <= step_seconds(many - third):
            many -= third
        else:
            few += third
    best = min(range(few, many + 1), key=step_seconds)
    return replace(policy, discriminator_ranks=best)
