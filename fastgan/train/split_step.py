"""The step of the policy `split`: each rank updates one network and reads weights of the other that are published."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as torch_dist
from torch import Tensor

from fastgan.dist import max_integers
from fastgan.errors import DistributedError
from fastgan.parallel import Engine
from fastgan.schedule import Plan
from fastgan.train.agreement import Agreement, Ballot
from fastgan.train.roles import Roles
from fastgan.train.step import TrainStep
from fastgan.train.step_statistics import Statistics

# Of a plan's digest: as many digits as an integer of 64 bits holds with a sign.
_DIGEST_DIGITS = 15


class Read(NamedTuple):
    """The version of the other network that all updates of one step have read, `staleness` steps old."""

    step: int
    version: int
    staleness: int


class _Notice(NamedTuple):
    numbers: Tensor
    work: torch_dist.Work


class SplitAgreement(Agreement):
    """Updates are agreed on within a role, which does not wait for the other; a signal by all ranks, some steps later.

    Ranks of the two roles are at most `bound` steps apart. So what all of them have said at the end of a step is known
    without waiting `bound + 1` steps later, and is acted on by all at the end of that step.

    Args:
        roles: of this rank.
        signal: number of the signal that this process has received, 0 for none.
    """

    def __init__(self, roles: Roles, *, signal: Callable[[], int] = lambda: 0) -> None:
        super().__init__(roles.own, signal=signal)
        self._everybody, self._lag = roles.everybody, roles.policy.bound + 1
        self._underway: deque[_Notice] = deque()
        self._signal_of_all = 0

    @property
    def signal(self) -> int:
        """Largest signal number that any rank had received some steps ago; 0 for none."""
        return self._signal_of_all

    def may_step(self, ballot: Ballot, *engines: Engine) -> bool:
        """As of every agreement; a role of one rank decides alone, since it must not publish what is not finite."""
        if self.world.num_ranks > 1:
            return super().may_step(ballot, *engines)
        norms = [engine.gradient_norm() for engine in engines]
        return self._note(not bool(sum(norms, ballot.statistics.total()).isfinite().item()))

    def end_step(self, plan: Plan) -> None:
        """Says what this rank knows at the end of `plan`, and learns what all knew some steps ago.

        Raises:
            DistributedError: if ranks planned different steps.
        """
        digest = int(plan.digest[:_DIGEST_DIGITS], 16)
        numbers = torch.tensor([self._signal(), digest, -digest])
        work = torch_dist.all_reduce(numbers, op=torch_dist.ReduceOp.MAX, group=self._everybody.group, async_op=True)
        assert work is not None
        self._underway.append(_Notice(numbers, work))
        if len(self._underway) <= self._lag:
            return
        notice = self._underway.popleft()
        notice.work.wait()
        self._signal_of_all, largest, smallest = notice.numbers.tolist()
        if largest != -smallest:
            remedy = "give all machines the same version of fastgan and the same checkpoint"
            raise DistributedError(f"rank {self._everybody.rank} and others plan different steps; {remedy}")

    def settle(self) -> None:
        """Waits for what is under way; it still counts only when its time has come."""
        for notice in self._underway:
            notice.work.wait()


class SplitStep(TrainStep):
    """Publishes and receives weights as planned, and makes the updates of one role, which the state says."""

    agreement: SplitAgreement

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.state.roles is not None
        self.roles = self.state.roles
        # Since the latest call of `pop_reads`.
        self._reads: list[Read] = []

    def run(self, plan: Plan) -> Statistics:
        """Makes the updates of this rank's role."""
        with self.trace.span("weights: publish"):
            self._publish(plan)
        with self.trace.span("weights: receive"):
            self._receive(plan)
        statistics = super().run(plan)
        self.agreement.end_step(plan)
        return statistics

    def meet(self, statistics: Statistics) -> None:
        """As of every step; publications under way have arrived then, but are taken as if they had not waited."""
        super().meet(statistics)
        self.roles.settle()
        self.agreement.settle()

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
