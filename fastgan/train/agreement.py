"""What all ranks decide together, each time from integers that all of them have reduced.

A rank that left a step out, or stopped, on its own would leave the others waiting for it for ever.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as torch_dist
from torch import Tensor

from fastgan.dist import World, sum_integers
from fastgan.errors import DistributedError, TrainingError
from fastgan.parallel import Engine
from fastgan.schedule import Agreed, Plan
from fastgan.train.pace import Pace
from fastgan.train.step_statistics import Statistics

MAX_SKIPPED_IN_A_ROW = 10
# What fits into 63 bits.
_DIGEST_DIGITS = 15


class Vote(NamedTuple):
    """A vote under way.

    numbers: [4] int64, the largest over all ranks once `work` has ended: whether a loss is not finite, the number of a
        signal, the digest of the plan, and its negative.
    """

    numbers: Tensor
    work: torch_dist.Work


class Ballot:
    """What one update of a rank reports, and the vote on whether it may be made.

    Args:
        ask: starts the vote on what is reported, or returns None where nobody else is to be asked.
    """

    def __init__(self, ask: Callable[[Statistics], Vote | None]) -> None:
        self.statistics = Statistics()
        self.vote: Vote | None = None
        self._ask = ask

    def add(self, values: Mapping[str, Tensor], *, weight: Fraction, is_last: bool) -> None:
        """Adds what a forward pass reports, before its backward pass, during which the vote after the last travels."""
        self.statistics.add(values, weight=float(weight))
        if is_last:
            self.vote = self._ask(self.statistics)


class Agreement:
    """Whether an update may be made, and whether a signal ends the run.

    On several ranks, an update is skipped by all of them when the loss or the gradient is not finite on any. A single
    process does not ask, which would make a GPU wait in every update: `FiniteGuard` stops it one step later.

    A vote starts as soon as the losses are known and travels during the backward pass. What follows that pass, whether
    the gradient is finite, needs none: all ranks find it from the same sums.

    Args:
        world: the ranks that decide.
        signal: number of the signal that this process has received, 0 for none.
    """

    def __init__(self, world: World, *, signal: Callable[[], int] = lambda: 0) -> None:
        self.world = world
        self.num_skipped = 0
        self._signal = signal
        self._agreed_signal = 0
        self._skipped_in_a_row = 0

    def skipped(self) -> dict[str, float]:
        """The number of updates skipped since the start of this process, to log; empty where none can be."""
        return {"skipped_updates": float(self.num_skipped)} if self.world.num_ranks > 1 else {}

    @property
    def signal(self) -> int:
        """Largest signal number that any rank had received at the latest update; 0 for none."""
        return self._signal() if self.world.num_ranks == 1 else self._agreed_signal

    def agree(self, plan: Plan, statistics: Statistics, pace: Pace | None) -> Agreed:
        """What the schedule decides from after the step of `plan`; all ranks call it together.

        Args:
            statistics: of the step's updates.
            pace: of this rank; None where shares do not follow it.
        """
        batch_images = plan.num_images // max(1, plan.count("discriminator"))
        counts = statistics.count("sign_statistic", num_images=batch_images)
        mine = [0] * plan.num_ranks
        if pace is not None:
            mine[plan.rank] = pace.microseconds(plan)
        sign_sum, num_judged, *microseconds = sum_integers(self.world, [*counts, *mine])
        measured = tuple(microseconds) if pace is not None else ()
        return Agreed(sign_sum=sign_sum, num_judged=num_judged, rank_microseconds=measured)

    def ballot(self, plan: Plan) -> Ballot:
        """For one update of `plan`, or for several that are made together or not at all."""
        return Ballot(partial(self._ask, plan))

    def _ask(self, plan: Plan, reported: Statistics) -> Vote | None:
        if self.world.num_ranks == 1:
            return None
        is_bad = reported.total().isfinite().logical_not().long()
        digest = int(plan.digest[:_DIGEST_DIGITS], 16)
        numbers = torch.cat([is_bad.view(1), is_bad.new_tensor([self._signal(), digest, -digest])])
        work = torch_dist.all_reduce(numbers, op=torch_dist.ReduceOp.MAX, group=self.world.group, async_op=True)
        assert work is not None
        return Vote(numbers, work)

    def may_step(self, ballot: Ballot, *engines: Engine) -> bool:
        """Whether all ranks make the updates that `engines` have accumulated, all of them; they call it together.

        Args:
            ballot: with all that these updates report.
        Raises:
            TrainingError: on all ranks, when too many updates in a row could not be made.
            DistributedError: on all ranks, when they follow different plans.
        """
        vote = ballot.vote
        if vote is None:
            return True
        vote.work.wait()
        norms = torch.stack([engine.gradient_norm() for engine in engines])
        has_bad_gradient = norms.isfinite().all().logical_not().long().view(1)
        # One transfer from the device for all of it.
        bad_loss, self._agreed_signal, digest, negative, bad_gradient = torch.cat(
            [vote.numbers, has_bad_gradient.to(vote.numbers.device)]
        ).tolist()
        if digest != -negative:
            remedy = "give all machines the same version of fastgan and the same checkpoint"
            raise DistributedError(f"rank {self.world.rank} and others plan different steps; {remedy}")
        return self._note(bad_loss or bad_gradient)

    def _note(self, any_bad: int) -> bool:
        """Counts an update that is skipped, or none. Returns whether it is made."""
        self.num_skipped += any_bad
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if any_bad else 0
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"{self._skipped_in_a_row} updates in a row had a loss or gradient that was not finite: training "
                "diverged; start again from an earlier checkpoint with lower optimizer.discriminator.learning_rate and "
                "optimizer.generator.learning_rate, or with a penalty such as r1"
            )
        return not any_bad
