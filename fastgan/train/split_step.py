"""The step of the policy `split`: each rank updates one network and reads weights of the other that are published."""

from typing import Any, NamedTuple

from fastgan.dist import max_integers
from fastgan.schedule import Plan
from fastgan.train.step import TrainStep
from fastgan.train.step_statistics import Statistics


class Read(NamedTuple):
    """The version of the other network that all updates of one step have read, `staleness` steps old."""

    step: int
    version: int
    staleness: int


class SplitStep(TrainStep):
    """Publishes and receives weights as planned, and makes the updates of one role, which the state says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.state.roles is not None
        self.roles = self.state.roles
        # Since the latest call of `pop_reads`.
        self._reads: list[Read] = []

    def _begin(self, plan: Plan) -> None:
        super()._begin(plan)
        with self.trace.span("weights: publish"):
            self._publish(plan)
        with self.trace.span("weights: receive"):
            self._receive(plan)

    def meet(self, statistics: Statistics) -> None:
        """As of every step; publications under way have arrived then, but are taken as if they had not waited."""
        super().meet(statistics)
        self.roles.settle()

    def pop_reads(self) -> list[Read]:
        """What the steps since the latest call have read, in their order."""
        reads, self._reads = self._reads, []
        return reads

    def _publish(self, plan: Plan) -> None:
        """Starts what the plan says; the weights may change at once."""
        for exchange in plan.whole.exchanges:
            if plan.rank in exchange.group:
                channel = self.roles.channels[exchange.network]
                channel.start(step=exchange.ticket.step, version=exchange.version)

    def _receive(self, plan: Plan) -> None:
        """Takes what is due, and without lockstep also what has arrived on all ranks of the role."""
        policy, replica = self.roles.policy, self.roles.replica
        number = policy.num_due(plan.step, replica.step, replica.underway)
        if not policy.lockstep:
            # The smallest number over the role: one update reads one version.
            (most_missing,) = max_integers(self.roles.own, [-replica.num_arrived])
            number = max(number, -most_missing)
        replica.take(number)
        staleness = plan.step - replica.step
        assert 0 <= staleness <= policy.bound, f"weights of step {replica.step} are too old for step {plan.step}"
        self._reads.append(Read(plan.step, replica.version, staleness))
