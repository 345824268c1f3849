"""What executes the plans of a policy, and how its ranks agree."""

from collections.abc import Callable

from fastgan.dist import World
from fastgan.schedule import Joint, Policy, Split
from fastgan.train.agreement import Agreement
from fastgan.train.joint_step import JointStep
from fastgan.train.roles import Roles
from fastgan.train.split_step import SplitStep
from fastgan.train.step import TrainStep


def step_class(policy: Policy) -> type[TrainStep]:
    """The class that executes the plans of `policy`."""
    if isinstance(policy, Split):
        return SplitStep
    return JointStep if isinstance(policy, Joint) else TrainStep


def make_agreement(world: World, roles: Roles | None, *, signal: Callable[[], int]) -> Agreement:
    """The agreement of all ranks, or with `roles` of those of a role.

    Args:
        signal: number of the signal that this process has received, 0 for none.
    """
    if roles is None:
        return Agreement(world, signal=signal)
    # A role of one rank, too, must not publish what is not finite.
    return Agreement(roles.own, everybody=roles.everybody, signal=signal, may_skip=True)
