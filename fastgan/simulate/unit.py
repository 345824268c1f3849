"""A model for pictures: a forward pass of a rank's images takes 1, a collective 0.5."""

from dataclasses import dataclass

from fastgan.schedule import Policy
from fastgan.simulate.cost import VOTE_BYTES, CostModel, Part, parts_from_passes


@dataclass(frozen=True)
class _Constant:
    def all_reduce_seconds(self, group: range, num_bytes: float) -> float:
        del group
        return 0.5 if num_bytes > VOTE_BYTES else 0.1

    def broadcast_seconds(self, group: range, num_bytes: float) -> float:
        del group, num_bytes
        return 0.5


def unit_model(policy: Policy) -> CostModel:
    """Both networks take equally long; a pass over all of a rank's images, on average over all ranks, takes 1."""
    forward = Part(0.0, policy.num_ranks / policy.batch_images)
    parts = parts_from_passes(forward, forward, tuple(penalty.kind for penalty in policy.penalties))
    parts |= {"apply discriminator": Part(0.2), "apply generator": Part(0.2)}
    return CostModel(
        parts=parts,
        gradient_bytes={"discriminator": 1e6, "generator": 1e6},
        fabric=_Constant(),
        hides_reduction=False,
    )
